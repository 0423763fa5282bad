"""Read any microscope image file as 8-bit RGB, write and read instance-id PNGs."""

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from wsipipe.errors import OutputError, SlideReadError

SUFFIXES = frozenset({".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp", ".webp", ".jp2"})


def list_images(folder: Path) -> list[Path]:
    """List the image files of a folder by name; hidden files and other kinds are left out."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Read an image as uint8 (H, W, 3) RGB: grey is repeated, alpha laid on white, 16-bit and float scaled to 0..255.

    Raises:
        SlideReadError: missing, empty, truncated or not an image.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SlideReadError(f"cannot read image, {error.strerror}: {path}") from None
    if path.suffix.lower() in {".tif", ".tiff"}:
        return to_rgb(_read_tiff(path), path)
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) if content else None
    if image is None or _is_cut_jpeg(content):
        raise SlideReadError(f"not an image, or truncated: {path}")
    if image.ndim == 3 and image.shape[2] >= 3:
        image = image[..., [2, 1, 0, *range(3, image.shape[2])]]  # OpenCV's order is BGR(A)
    return to_rgb(image, path)


def _is_cut_jpeg(content: bytes) -> bool:
    """Whether a JPEG ends before its end marker: the decoder would fill the rest with grey and say nothing."""
    return content.startswith(b"\xff\xd8") and content.rfind(b"\xff\xd9") < len(content) // 2


def _read_tiff(path: Path) -> NDArray[Any]:
    """Read the first page of a TIFF, channels last, palettes resolved."""
    try:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages[0]
            image = page.asarray()
            palette = getattr(page, "colormap", None)
            is_planar = image.ndim == 3 and image.shape[0] in (3, 4) and image.shape[2] not in (3, 4)
    except Exception as error:  # tifffile and its codecs raise many kinds on broken files
        raise SlideReadError(f"cannot read TIFF, {_one_line(error)}: {path}") from None
    if palette is not None and image.ndim == 2:
        image = np.moveaxis(np.asarray(palette), 0, -1)[image]  # (3, 2^bits) -> (H, W, 3)
    return np.moveaxis(image, 0, -1) if is_planar else image


def to_rgb(image: NDArray[Any], path: Path) -> NDArray[np.uint8]:
    """Bring an array (H, W), (H, W, 1..4) of any dtype to uint8 (H, W, 3); path is for messages."""
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[2] not in (1, 2, 3, 4) or 0 in image.shape:
        raise SlideReadError(f"image must be grey, RGB or RGBA, got an array of shape {image.shape}: {path}")
    values = _to_uint8(image, path)
    n_colours = 1 if values.shape[2] <= 2 else 3
    rgb = np.repeat(values[..., :1], 3, axis=2) if n_colours == 1 else values[..., :3]
    if values.shape[2] in (2, 4):
        rgb = _on_white(rgb, values[..., -1])
    return np.ascontiguousarray(rgb)


def _to_uint8(image: NDArray[Any], path: Path) -> NDArray[np.uint8]:
    """Scale by the range that the values can have: bool 1, float 1 (or 255), integers 8, 12 or 16 bits."""
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.bool_:
        return image.astype(np.uint8) * 255
    top = float(image.max())
    if not np.isfinite(top) or float(image.min()) < 0:
        raise SlideReadError(f"pixel values must be finite and >= 0, got {image.min()}..{top}: {path}")
    if image.dtype.kind == "f":
        full = 1.0 if top <= 1 else 255.0 if top <= 255 else 65535.0
    else:
        full = next((f for f in (255.0, 4095.0, 65535.0) if top <= f), top)
    return np.asarray(np.rint(image.astype(np.float32) * (255.0 / full)).clip(0, 255), np.uint8)


def _on_white(rgb: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Lay RGB on white; an alpha channel with one value everywhere carries nothing and is dropped."""
    if alpha.min() == alpha.max():
        return rgb
    cover = alpha[..., None].astype(np.uint16)
    return np.asarray((rgb * cover + 255 * (255 - cover) + 127) // 255, np.uint8)


def write_labels(folder: Path, stem: str, labels: NDArray[np.integer[Any]]) -> Path:
    """Write instance ids, atomically: STEM.png as uint16, or STEM.tif as uint32 above 65535 ids, which PNG cannot hold.

    Args:
        folder: where to write; must exist.
        stem: file name without suffix.
        labels: (H, W), 0 = background.

    Returns:
        the file written.
    """
    is_small = int(labels.max(initial=0)) <= np.iinfo(np.uint16).max
    path = folder / (stem + (".png" if is_small else ".tif"))
    partial = path.with_name(path.name + ".partial")
    try:
        if is_small:
            partial.write_bytes(cv2.imencode(".png", labels.astype(np.uint16))[1].tobytes())
        else:
            tifffile.imwrite(partial, labels.astype(np.uint32), compression="zlib")
        os.replace(partial, path)
    except OSError as error:
        raise OutputError(f"cannot write labels, {error.strerror}: {path}") from None
    return path


def _one_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
