"""cpm17 as distributed with HoVer-Net: Images/*.png and Labels/*.mat that hold `inst_map`, in train and test."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from amasam.data.files import IMAGE_SUFFIXES, files_by_stem, find_folder, make_sample, read_rgb
from amasam.data.samples import DataError, Sample
from amasam.data.spec import SetSpec


def read(spec: SetSpec, folder: Path) -> list[Sample]:
    """Read the official training images, the test images, or both (`spec.part`)."""
    parts = ("train", "test") if spec.part == "all" else (spec.part,)
    return [sample for part in parts for sample in _read_part(spec, find_folder(folder, part), part)]


def _read_part(spec: SetSpec, folder: Path | None, part: str) -> list[Sample]:
    if folder is None:
        raise DataError(f"data set {spec.name}: no folder {part!r}")
    images, labels = files_by_stem(folder / "Images", IMAGE_SUFFIXES), files_by_stem(folder / "Labels", (".mat",))
    if lonely := sorted(images.keys() ^ labels.keys()):
        raise DataError(f"data set {spec.name}: {lonely[0]!r} is not in both Images and Labels of {folder}")
    return [make_sample(spec, stem, read_rgb(path), read_inst_map(labels[stem])) for stem, path in images.items()]


def read_inst_map(path: Path) -> NDArray[np.int32]:
    """`inst_map` of a MATLAB file as int32 (H, W)."""
    try:
        content = loadmat(path, variable_names=["inst_map"])
    except (MatReadError, NotImplementedError, ValueError) as error:
        raise DataError(f"cannot read {path} as a MATLAB file: {error}") from error
    if "inst_map" not in content or content["inst_map"].ndim != 2:
        raise DataError(f"no two-dimensional inst_map in {path}")
    return np.ascontiguousarray(content["inst_map"], np.int32)
