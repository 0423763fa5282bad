"""Instances of plain images, of any size, with any segmenter; the command that judges models goes through here."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from amasam.imagefile import list_images, read_rgb, write_labels
from wsipipe.errors import UsageError, WsipipeError
from wsipipe.frames import SNAP
from wsipipe.grid import ALL_SIDES, Box, TileGrid
from wsipipe.segmenter import Segmenter

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Failure:
    """An image that could not be done, and why, in one line."""

    path: Path
    reason: str


def predict_folder(
    segmenter: Segmenter,
    images: Path,
    out: Path,
    *,
    mpp: float | None = None,
    on_image: Callable[[Path], None] = lambda path: None,
) -> list[Failure]:
    """Write the instance ids of every image of a folder as OUT/<stem>.png; one bad image does not stop the others.

    Args:
        segmenter: a loaded model.
        images: folder of image files.
        out: folder, made if missing.
        mpp: micrometres per px of the images; None = the model's own.
        on_image: called with each image when it is done or has failed.

    Returns:
        the images that failed.

    Raises:
        UsageError: no such folder, no images in it, or an impossible mpp.
    """
    if not images.is_dir():
        raise UsageError(f"--images must be a folder, got {images}")
    paths = list_images(images)
    if not paths:
        raise UsageError(f"no images (png, tif, jpg, bmp, webp, jp2) in {images}")
    if mpp is not None and not 0.01 <= mpp <= 10:
        raise UsageError(f"--mpp must be micrometres per pixel, 0.01..10, got {mpp}")
    out.mkdir(parents=True, exist_ok=True)
    failures: list[Failure] = []
    done: dict[str, Path] = {}
    for path in paths:
        try:
            if path.stem in done:
                raise UsageError(f"same stem as {done[path.stem].name}, its labels would overwrite them: {path}")
            write_labels(out, path.stem, predict_image(segmenter, read_rgb(path), mpp=mpp))
            done[path.stem] = path
        except (WsipipeError, MemoryError, cv2.error, RuntimeError) as error:
            log.debug("image failed: %s", path, exc_info=True)
            failures.append(Failure(path, str(error).splitlines()[0] if str(error) else type(error).__name__))
        on_image(path)
    return failures


def predict_image(segmenter: Segmenter, image: NDArray[np.uint8], *, mpp: float | None = None) -> NDArray[np.int32]:
    """Find the nuclei of one image.

    Args:
        segmenter: a loaded model.
        image: uint8 (H, W, 3) RGB.
        mpp: of the image; resampled when more than 5 % from the model's. None = the model's own.

    Returns:
        int32 (H, W) instance ids 1..n at the image's own size, 0 = background.
    """
    work = to_work(segmenter, image, mpp)
    is_resampled = work is not image
    fitted = segmenter.fitted(_sample_tiles(work, segmenter.tile))
    work_mpp = segmenter.mpp if is_resampled or mpp is None else mpp
    labels = fitted.instances(predict_maps(fitted, work), mpp=work_mpp, sides=ALL_SIDES).labels
    return compact_labels(nearest(labels, *image.shape[:2])) if is_resampled else labels


def to_work(segmenter: Segmenter, image: NDArray[np.uint8], mpp: float | None) -> NDArray[np.uint8]:
    """Resample an image to the model's mpp; the very same array where it is within SNAP of it already, or mpp is None.

    Args:
        segmenter: whose mpp is wanted.
        image: uint8 (H, W, 3) RGB.
        mpp: of the image.
    """
    scale = 1.0 if mpp is None else mpp / segmenter.mpp
    if abs(scale - 1) <= SNAP:
        return image
    return _resize(image, max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale)))


def predict_maps(segmenter: Segmenter, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Compute the maps of an image at the model's mpp: one tile where it fits, else tile cores side by side.

    Args:
        segmenter: a loaded model, fitted to the image.
        image: uint8 (H, W, 3) RGB.

    Returns:
        uint8 (C, H, W). Beyond its edges the image is continued by reflection.
    """
    height, width = image.shape[:2]
    side = next((s for s in tile_sides(segmenter) if s >= max(height, width)), None)
    if side is not None:
        y0, x0 = (side - height) // 2, (side - width) // 2
        pixels = np.moveaxis(reflect_read(image, Box(-x0, -y0, side - x0, side - y0)), 2, 0)
        return np.ascontiguousarray(_maps(segmenter, pixels[None])[0, :, y0 : y0 + height, x0 : x0 + width])
    grid = TileGrid(width, height, segmenter.tile, segmenter.halo)
    out = np.zeros((len(segmenter.map_names), height, width), np.uint8)
    for row in range(grid.rows):
        for col in range(grid.cols):
            tile = grid.tile(row, col)
            pixels = np.moveaxis(reflect_read(image, tile.read), 2, 0)
            out[(slice(None), *tile.core.slices(grid.whole))] = _maps(segmenter, pixels[None])[0][
                (slice(None), *tile.core.slices(tile.read))
            ]
    return out


def tile_sides(segmenter: Segmenter) -> Sequence[int]:
    """Return the input sides that a model takes, rising: its `sides` if it has several, else its tile."""
    return tuple(getattr(segmenter, "sides", (segmenter.tile,)))


def reflect_read(image: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """Cut a box that may reach beyond the image by any length, which is continued by reflection (edge not repeated)."""
    rows = _reflect(np.arange(box.y0, box.y1), image.shape[0])
    cols = _reflect(np.arange(box.x0, box.x1), image.shape[1])
    return np.ascontiguousarray(image[rows[:, None], cols[None, :]])


def _reflect(index: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    if size == 1:
        return np.zeros_like(index)
    folded = np.abs(index) % (2 * (size - 1))
    return np.asarray(np.minimum(folded, 2 * (size - 1) - folded), np.int64)


def _maps(segmenter: Segmenter, tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
    maps = segmenter.maps(np.ascontiguousarray(tiles))
    return np.asarray(maps if isinstance(maps, np.ndarray) else maps.cpu().numpy())


def _sample_tiles(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return the image's tiles for models that adapt to a slide's stain, without their overlap, at most 16."""
    height, width = image.shape[:2]
    corners = [(y, x) for y in range(0, height, side) for x in range(0, width, side)]
    chosen = corners[:: max(1, -(-len(corners) // 16))]
    tiles = [reflect_read(image, Box(x, y, x + side, y + side)) for y, x in chosen]
    return np.ascontiguousarray(np.moveaxis(np.stack(tiles), 3, 1))


def nearest(labels: NDArray[np.int32], height: int, width: int) -> NDArray[np.int32]:
    """Resample labels to (height, width), each pixel taking the id under its centre."""
    rows = ((np.arange(height) + 0.5) * labels.shape[0] / height).astype(np.int64)
    cols = ((np.arange(width) + 0.5) * labels.shape[1] / width).astype(np.int64)
    return np.ascontiguousarray(labels[rows[:, None], cols[None, :]])


def compact_labels(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Renumber ids to 1..n without gaps, keeping their order."""
    present = np.bincount(labels.ravel()) > 0
    present[0] = False
    new_ids = np.cumsum(present, dtype=np.int32) * present
    return np.asarray(new_ids, np.int32)[labels]


def _resize(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resample an image: area average when it shrinks, cubic when it grows."""
    method = cv2.INTER_AREA if height < image.shape[0] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), np.uint8)
