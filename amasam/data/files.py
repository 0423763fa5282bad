"""Image and label files as arrays, and samples of the two; every format's reader is built from these."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from amasam.data.samples import DataError, Sample
from amasam.data.spec import ESTIMATE_RANGE, SetSpec

IMAGE_SUFFIXES = (".png", ".tif", ".tiff")
LABEL_SUFFIXES = (".png", ".tif", ".tiff", ".npy")
MIDDLE_MPP = 0.25  # um/px of an image without any nucleus in a set of unknown mpp


def read_folder(spec: SetSpec, folder: Path) -> list[Sample]:
    """Read images/* and the labels/* of the same stem; every image must have labels and the other way round."""
    images = files_by_stem(folder / "images", IMAGE_SUFFIXES)
    labels = files_by_stem(folder / "labels", LABEL_SUFFIXES)
    if lonely := sorted(images.keys() ^ labels.keys()):
        raise DataError(f"data set {spec.name}: {lonely[0]!r} has no partner of the same name under {folder}")
    return [make_sample(spec, stem, read_rgb(path), read_labels(labels[stem])) for stem, path in images.items()]


def make_sample(spec: SetSpec, stem: str, image: NDArray[np.uint8], labels: NDArray[np.int32]) -> Sample:
    """Join an image with what its set's description says about it."""
    mpp = estimate_mpp(labels, spec.nucleus_um) if spec.nucleus_um else spec.mpp_at(stem)
    return Sample(image, labels, stem, spec.name, spec.patient_of(stem), mpp, spec.organ_at(stem))


def estimate_mpp(labels: NDArray[np.int32], nucleus_um: float) -> float:
    """The mpp at which the median nucleus has the given diameter (of the circle of its area), within ESTIMATE_RANGE."""
    area = np.bincount(labels.ravel())[1:]
    area = area[area > 0]
    if not len(area):
        return MIDDLE_MPP
    return float(np.clip(nucleus_um / (2 * np.sqrt(np.median(area) / np.pi)), *ESTIMATE_RANGE))


def files_by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Files of a folder by stem, in name order; hidden files and resource forks (`._x`) are no images."""
    paths = sorted(p for p in folder.glob("*") if p.suffix.lower() in suffixes and not p.name.startswith("."))
    by_stem = {path.stem: path for path in paths}
    if len(by_stem) != len(paths):
        raise DataError(f"two files of the same stem in {folder}")
    return by_stem


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Read an image as uint8 (H, W, 3) RGB; an alpha channel is dropped, grey is repeated."""
    pixels = _read_pixels(path)
    if pixels.dtype != np.uint8:
        raise DataError(f"expected an 8-bit image, got {pixels.dtype}: {path}")
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    return np.ascontiguousarray(pixels[..., 2::-1])  # cv2 reads BGR or BGRA


def read_labels(path: Path) -> NDArray[np.int32]:
    """Read an integer label image as int32 (H, W)."""
    pixels = np.load(path, allow_pickle=False) if path.suffix.lower() == ".npy" else _read_pixels(path)
    if pixels.ndim != 2 or not np.issubdtype(pixels.dtype, np.integer):
        raise DataError(f"labels must be integers (H, W), got {pixels.dtype} {pixels.shape}: {path}")
    return np.ascontiguousarray(pixels, np.int32)


def _read_pixels(path: Path) -> NDArray[np.generic]:
    """Decode an image file as stored: own depth, own channels, BGR order."""
    data = np.frombuffer(path.read_bytes(), np.uint8)
    pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    if pixels is None:
        raise DataError(f"cannot decode image {path}")
    return np.asarray(pixels)


def find_folder(root: Path, name: str) -> Path | None:
    """The first folder of a name at or below root, however often an archive nested it; resource forks are skipped."""
    found = (path for path in sorted(root.rglob(name)) if path.is_dir() and "__MACOSX" not in path.parts)
    return min(found, key=lambda path: len(path.parts), default=None)
