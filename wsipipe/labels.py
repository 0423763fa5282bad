"""labels.ome.zarr: every nucleus as pixels, an OME-Zarr 0.5 label image on the work grid.

Pixel values are the `label` of nuclei.parquet, 0 is background. Level k + 1 halves level k and keeps labels whole
numbers of nuclei, never means. All levels are cut into shards of one size: a shard is written whole, by one task, and a
shard without nuclei does not exist on disk.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numba import njit
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from wsipipe.frames import WorkFrame
from wsipipe.grid import Box
from wsipipe.nuclei import Runs
from wsipipe.provenance import Provenance

FORMAT_VERSION = 1
SHARD = 4096  # px; 64 MiB of labels, what one task holds
CHUNK = 512  # px; what a viewer reads at once
TOP_SIDE = 512  # the last level is the first whose larger side is at most this
ZSTD_LEVEL = (
    1  # benchmarks/labels.py: level 3 saves little. No shuffle: runs of equal labels compress better as they are
)


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of one level. box: its px on that level, cut at the edge."""

    level: int
    row: int
    col: int
    box: Box


def level_sizes(frame: WorkFrame) -> list[tuple[int, int]]:
    """Return (width, height) of every level, finest first; halves are rounded up."""
    sizes = [(frame.width, frame.height)]
    while max(sizes[-1]) > TOP_SIDE:
        width, height = sizes[-1]
        sizes.append((-(-width // 2), -(-height // 2)))
    return sizes


def list_shards(frame: WorkFrame, level: int, touched: Iterable[Box] | None = None) -> list[Shard]:
    """List the shards of a level in raster order.

    Args:
        frame: the work grid.
        level: 0 is the work grid itself.
        touched: only the shards that these boxes meet, work px (of level 0); None: all.
    """
    width, height = level_sizes(frame)[level]
    rows, cols = -(-height // SHARD), -(-width // SHARD)
    cells: Iterable[tuple[int, int]] = ((row, col) for row in range(rows) for col in range(cols))
    if touched is not None:
        cells = sorted({cell for box in touched for cell in _cells(box, SHARD << level, rows, cols)})
    whole = Box(0, 0, width, height)
    return [
        Shard(level, row, col, Box(col * SHARD, row * SHARD, (col + 1) * SHARD, (row + 1) * SHARD).intersect(whole))
        for row, col in cells
    ]


def _cells(box: Box, side: int, rows: int, cols: int) -> Iterable[tuple[int, int]]:
    if box.is_empty:
        return []
    row0, row1 = max(0, box.y0 // side), min(rows, -(-box.y1 // side))
    col0, col1 = max(0, box.x0 // side), min(cols, -(-box.x1 // side))
    return [(row, col) for row in range(row0, row1) for col in range(col0, col1)]


def create_labels(path: Path, provenance: Provenance) -> None:
    """Create the label image without any nucleus, replacing what is there.

    Args:
        path: the folder, named `*.ome.zarr`; write to a name beside the final one and rename it when all is written.
        provenance: its frame sets size and scale.
    """
    frame = provenance.frame
    attributes: dict[str, Any] = {
        "ome": {"version": "0.5", "multiscales": [_multiscale(frame)], "image-label": {"version": "0.5"}},
        "wsipipe": provenance.to_json(FORMAT_VERSION),
    }
    group = zarr.open_group(store=str(path), mode="w", zarr_format=3, attributes=attributes)
    for level, (width, height) in enumerate(level_sizes(frame)):
        group.create_array(
            name=str(level),
            shape=(height, width),
            dtype=np.uint32,
            chunks=(CHUNK, CHUNK),
            shards=(SHARD, SHARD),
            compressors=ZstdCodec(level=ZSTD_LEVEL),
            fill_value=0,
            dimension_names=("y", "x"),
        )


def _multiscale(frame: WorkFrame) -> dict[str, Any]:
    """Return the multiscales entry of OME-NGFF 0.5."""
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in ("y", "x")]
    datasets = [
        {"path": str(level), "coordinateTransformations": level_transform(frame, level)}
        for level in range(len(level_sizes(frame)))
    ]
    return {"name": "nuclei", "axes": axes, "datasets": datasets, "type": "label mode 2x2"}


def level_transform(frame: WorkFrame, level: int) -> list[dict[str, Any]]:
    """Return scale and translation of a level, micrometres, (y, x).

    OME-Zarr places index 0 at the centre of a pixel. Physical 0 is the centre of the slide's first level-0 pixel, so
    that the labels lie right over a slide converted to OME-Zarr: the first of pixels s wide is at (s - l0 mpp) / 2.
    """
    scale = [frame.mpp_y * 2**level, frame.mpp_x * 2**level]
    translation = [(scale[0] - frame.l0_mpp_y) / 2, (scale[1] - frame.l0_mpp_x) / 2]
    return [{"type": "scale", "scale": scale}, {"type": "translation", "translation": translation}]


def write_level0_shard(path: Path, shard: Shard, parts: Iterable[tuple[Runs, int]]) -> None:
    """Paint nuclei into one shard of level 0 and write it whole.

    Args:
        path: a label image made by `create_labels`.
        shard: of level 0.
        parts: for each block that meets the shard its runs, work px, and the number to add to their labels. Runs
            outside the shard are left out.
    """
    labels = np.zeros((shard.box.height, shard.box.width), dtype=np.uint32)
    for runs, offset in parts:
        _paint(labels, shard.box.x0, shard.box.y0, runs.row, runs.x0, runs.x1, runs.label, offset)
    _write(path, shard, labels)


def write_reduced_shard(path: Path, shard: Shard) -> None:
    """Make one shard of level >= 1 from the up to four shards below it, which must be complete, and write it whole."""
    _write(path, shard, reduced_shard(path, shard))


def reduced_shard(path: Path, shard: Shard) -> NDArray[np.uint32]:
    """Return what a shard of level >= 1 must hold, uint32 (box.height, box.width)."""
    labels = np.zeros((shard.box.height, shard.box.width), dtype=np.uint32)
    below = zarr.open_array(store=str(path / str(shard.level - 1)), mode="r")
    height, width = below.shape
    half = SHARD // 2  # one shard below at a time: a quarter of the memory of all four
    for y in range(shard.box.y0, shard.box.y1, half):
        for x in range(shard.box.x0, shard.box.x1, half):
            if not shard_path(path, shard.level - 1, 2 * y // SHARD, 2 * x // SHARD).exists():
                continue
            fine = below[2 * y : min(height, 2 * (y + half)), 2 * x : min(width, 2 * (x + half))]
            coarse = reduce_labels(np.asarray(fine, dtype=np.uint32))
            row, col = y - shard.box.y0, x - shard.box.x0
            labels[row : row + coarse.shape[0], col : col + coarse.shape[1]] = coarse
    return labels


def shard_path(path: Path, level: int, row: int, col: int) -> Path:
    """Return the file of a shard; it is missing where there is no nucleus."""
    return path / str(level) / "c" / str(row) / str(col)


def _write(path: Path, shard: Shard, labels: NDArray[np.uint32]) -> None:
    array = zarr.open_array(store=str(path / str(shard.level)), mode="r+")
    box = shard.box
    array[box.y0 : box.y1, box.x0 : box.x1] = labels


def read_labels(path: Path, box: Box, level: int = 0) -> NDArray[np.uint32]:
    """Read a box of a level, px of that level; outside the image 0.

    Returns:
        uint32 (box.height, box.width).
    """
    array = zarr.open_array(store=str(path / str(level)), mode="r")
    labels = np.zeros((box.height, box.width), dtype=np.uint32)
    inside = box.intersect(Box(0, 0, array.shape[1], array.shape[0]))
    if not inside.is_empty:
        labels[inside.slices(box)] = array[inside.y0 : inside.y1, inside.x0 : inside.x1]
    return labels


def reduce_labels(labels: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Halve a label image: each 2 x 2 px become the label that holds most of them.

    A pixel becomes nucleus when at least half of its px are; of two labels with equal shares the lower wins. Rounding
    halves up keeps nuclei that are two px wide, wherever they lie; taking every second pixel would lose half of the
    ones that are one px wide, and a plain majority all of them.

    Args:
        labels: (H, W), begins at an even row and column of its level; a last odd row or column has no partner.

    Returns:
        (ceil(H / 2), ceil(W / 2)).
    """
    height, width = labels.shape
    out = np.zeros((-(-height // 2), -(-width // 2)), dtype=np.uint32)
    _reduce(labels, out)
    return out


@njit(cache=True, nogil=True)
def _paint(out, x_origin, y_origin, rows, x0s, x1s, local, offset):  # type: ignore[no-untyped-def]
    height, width = out.shape
    for k in range(len(rows)):
        row = rows[k] - y_origin
        if 0 <= row < height:
            start, stop = max(0, x0s[k] - x_origin), min(width, x1s[k] - x_origin)
            value = np.uint32(local[k] + offset)
            for col in range(start, stop):
                out[row, col] = value


@njit(cache=True, nogil=True)
def _winner(a, b, c, d, present):  # type: ignore[no-untyped-def]
    """Return the label of 2 x 2 px of which `present` exist; those that do not are 0."""
    if a == b and b == c and c == d:
        return a
    best, best_count, covered = a, 0, 0
    for value in (a, b, c, d):
        if value == 0:
            continue
        covered += 1
        count = int(value == a) + int(value == b) + int(value == c) + int(value == d)
        if count > best_count or (count == best_count and value < best):
            best, best_count = value, count
    return best if 2 * covered >= present else np.uint32(0)


@njit(cache=True, nogil=True)
def _reduce(labels, out):  # type: ignore[no-untyped-def]
    height, width = labels.shape
    zero = np.uint32(0)
    for row in range(out.shape[0]):
        top, has_below = 2 * row, 2 * row + 1 < height
        for col in range(out.shape[1]):
            left, has_right = 2 * col, 2 * col + 1 < width
            a = labels[top, left]
            b = labels[top, left + 1] if has_right else zero
            c = labels[top + 1, left] if has_below else zero
            d = labels[top + 1, left + 1] if has_right and has_below else zero
            out[row, col] = _winner(a, b, c, d, (1 + int(has_right)) * (1 + int(has_below)))
