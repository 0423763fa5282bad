"""Labels to polygons along pixel edges, and the way of those polygons to the slide's frame.

A traced outline runs on the edges between pixels ("cracks"), so its area is the pixel count and neighbours share edges.
Where two pixels of a 4-connected label meet only at a corner, the outline passes between the two background pixels:
they belong to different background regions (the label's own 4-connected path between the two pixels separates them),
so each ring stays simple and rings meet in single points at most. That makes every traced polygon valid.
"""

from pathlib import Path

import numpy as np
import shapely
from numba import njit
from numpy.typing import NDArray

from wsipipe.frames import WorkFrame
from wsipipe.nuclei import Outlines
from wsipipe.simplify import simplify

__all__ = ["simplify", "to_l0", "to_shapely", "trace"]

L0_DECIMALS = 2  # QuPath keeps polygons on a 0.01 px grid


def trace(labels: NDArray[np.int32], n: int, *, origin: tuple[int, int]) -> Outlines:
    """Trace the exact pixel-edge outline of each label, holes included.

    Args:
        labels: (H, W) int32, 0 = background, 1..n, each label present and one 4-connected region.
        n: number of labels.
        origin: (x, y) of labels[0, 0] in work px.

    Returns:
        n polygons in work px, whole numbers; polygon i is label i + 1. Rings start at their first pixel edge in raster
        order and hold corners only; holes follow in raster order of theirs.
    """
    corners, ring_ends, ring_labels = _trace_rings(np.ascontiguousarray(labels), n)
    order = np.argsort(ring_labels, kind="stable")
    polygon_starts = np.searchsorted(ring_labels[order], np.arange(1, n + 2)).astype(np.int64)
    if (np.diff(polygon_starts) == 0).any():
        missing = int(np.flatnonzero(np.diff(polygon_starts) == 0)[0]) + 1
        raise ValueError(f"each label of 1..{n} must have pixels, label {missing} has none")
    coords, ring_starts = _reorder(corners, ring_ends, order, origin[0], origin[1])
    return Outlines(coords, ring_starts, polygon_starts)


def to_l0(outlines: Outlines, frame: WorkFrame) -> Outlines:
    """Move outlines from work px to level-0 px, rounded to 0.01 px.

    Outlines of `trace` and `simplify` stay valid: the former because equal coordinates stay equal and different ones
    keep their order, the latter because their parts keep a distance that no rounding bridges. In the last column and
    row of the work grid they may reach beyond the slide by less than 1 work px, as the grid does.
    """
    scale = np.array([frame.scale_x, frame.scale_y])
    return Outlines(np.round(outlines.coords * scale, L0_DECIMALS), outlines.ring_starts, outlines.polygon_starts)


def to_shapely(outlines: Outlines) -> NDArray[np.object_]:
    """Return one shapely Polygon per outline, in the same frame; object (N,)."""
    offsets = (outlines.ring_starts, outlines.polygon_starts)
    return np.asarray(shapely.from_ragged_array(shapely.GeometryType.POLYGON, outlines.coords, offsets), dtype=object)


def is_compiled() -> bool:
    """Whether an earlier run has compiled the kernels here; else the first block takes a minute longer."""
    stats = getattr(_trace_rings, "stats", None)
    return stats is None or any(Path(stats.cache_path).glob("outlines.*.nbi"))


@njit(cache=True, nogil=True)
def _trace_rings(labels: NDArray[np.int32], n: int) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int32]]:
    """Trace all rings of all labels in raster order of their first upper pixel edge.

    Returns:
        corners: int32 (V, 2) x, y, every ring closed; ring_ends: int64 (R,); ring_labels: int32 (R,).
    """
    rows, cols = labels.shape
    stride = cols + 2
    flat = np.zeros((rows + 2) * stride, np.int32)  # a rim of background spares bounds checks
    for r in range(rows):
        flat[(r + 1) * stride + 1 : (r + 1) * stride + 1 + cols] = labels[r]
    seen = np.zeros(len(flat), np.bool_)  # the pixel's upper edge lies on a traced ring
    corners = np.empty((64 * n + 64, 2), np.int32)
    ring_ends = np.empty(n + 16, np.int64)
    ring_labels = np.empty(n + 16, np.int32)
    n_corners = n_rings = 0
    for p in range(stride, len(flat)):
        label = flat[p]
        if label == 0 or flat[p - stride] == label or seen[p]:
            continue
        corners, n_corners = _follow(flat, seen, stride, p, corners, n_corners)
        if n_rings == len(ring_ends):
            ring_ends = np.concatenate((ring_ends, np.empty_like(ring_ends)))
            ring_labels = np.concatenate((ring_labels, np.empty_like(ring_labels)))
        ring_ends[n_rings] = n_corners
        ring_labels[n_rings] = label
        n_rings += 1
    return corners[:n_corners], ring_ends[:n_rings].copy(), ring_labels[:n_rings].copy()


@njit(cache=True, nogil=True)
def _follow(
    flat: NDArray[np.int32],
    seen: NDArray[np.bool_],
    stride: int,
    start: int,
    corners: NDArray[np.int32],
    n_corners: int,
) -> tuple[NDArray[np.int32], int]:
    """Walk one ring with the label to the right, from the upper left corner of pixel `start` eastwards.

    A corner of the pixel grid is named by the flat index p of the pixel to its lower right. Directions are 0 east,
    1 south, 2 west, 3 north; ahead[d] leads from p to the pixel ahead on the right, ahead[d - 1] to that on the left.
    """
    ahead = (0, -1, -stride - 1, -stride)
    move = (1, stride, -1, -stride)
    label = flat[start]
    first = n_corners
    p, d = start, 0
    x, y = start % stride - 1, start // stride - 1
    while True:
        if n_corners + 2 > len(corners):
            corners = np.concatenate((corners, np.empty_like(corners)))
        corners[n_corners, 0] = x
        corners[n_corners, 1] = y
        n_corners += 1
        while True:
            if d == 0:
                seen[p] = True
            p += move[d]
            x += (d == 0) - (d == 2)
            y += (d == 1) - (d == 3)
            left = (d + 3) & 3
            if flat[p + ahead[left]] == label:
                d = left
                break
            if flat[p + ahead[d]] != label:
                d = (d + 1) & 3
                break
        if p == start:
            break
    corners[n_corners] = corners[first]
    return corners, n_corners + 1


@njit(cache=True, nogil=True)
def _reorder(
    corners: NDArray[np.int32], ring_ends: NDArray[np.int64], order: NDArray[np.int64], x0: int, y0: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Lay rings out in the given order, moved by (x0, y0)."""
    coords = np.empty((len(corners), 2), np.float64)
    ring_starts = np.zeros(len(order) + 1, np.int64)
    at = 0
    for k in range(len(order)):
        ring = order[k]
        begin = ring_ends[ring - 1] if ring else 0
        for v in range(begin, ring_ends[ring]):
            coords[at, 0] = corners[v, 0] + x0
            coords[at, 1] = corners[v, 1] + y0
            at += 1
        ring_starts[k + 1] = at
    return coords, ring_starts
