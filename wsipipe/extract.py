"""Find the instances that a block owns, exactly as one run over the whole map would.

Every instance has a centre pixel: the pixel that holds the centroid of its pixels, or, where a crescent or a ring
leaves that pixel out, the instance's pixel nearest to it. A block owns the instances whose centre pixel lies in its
core. The centre is always a pixel *of the instance*, so a block owns nothing that has no pixel in its core; cores that
partition the map therefore own each instance once, and a core without foreground owns none. (The bare centroid would
not do: a ring around a block would be owned by a block that cannot see it.)

So a window is large enough as soon as no uncertain label has a pixel in the core: by the promise of
`InstanceWindow` all labels with a pixel in the core are then labels of the whole map, and nothing is missing there.
Until then the halo doubles; a window that covers the whole map has only certain labels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from wsipipe.grid import Box, grow, sides_of
from wsipipe.segmenter import InstanceWindow, Segmenter


@dataclass(frozen=True, slots=True)
class Extracted:
    """The n instances that one block owns.

    Attributes:
        window: smallest box, work px, that holds them; the first pixel of the core when there are none.
        labels: int32 (window.height, window.width), 0 = not owned, 1..n in raster order of their first pixel.
        class_id: int16 (n + 1,) as in `InstanceWindow`.
        class_prob: float32 (n + 1,) as in `InstanceWindow`.
    """

    window: Box
    labels: NDArray[np.int32]
    class_id: NDArray[np.int16]
    class_prob: NDArray[np.float32]

    @property
    def n(self) -> int:
        """Number of instances."""
        return len(self.class_id) - 1


def extract_block(
    read_maps: Callable[[Box], NDArray[np.uint8]],
    block_core: Box,
    segmenter: Segmenter,
    *,
    mpp: float,
    width: int,
    height: int,
    halo: int,
) -> Extracted:
    """Find the instances whose centre pixel lies in the core of a block.

    Args:
        read_maps: returns the stitched maps over a box inside the map, (C, H, W).
        block_core: work px, inside the map.
        segmenter: its `instances` is called.
        mpp: micrometres per work px.
        width: of the whole map, work px.
        height: of the whole map, work px.
        halo: first context on each side, work px; doubled as often as needed.

    Returns:
        The same instances as a single window over the whole map would give this core; independent of halo, of other
        blocks and of their order.
    """
    whole = Box(0, 0, width, height)
    if block_core.is_empty or not whole.contains(block_core):
        raise ValueError(f"block core must be a part of the {width} x {height} px map, got {block_core}")
    halo = max(1, halo)
    while True:
        window = grow(block_core, halo, width=width, height=height)
        sides = sides_of(window, width=width, height=height)
        found = segmenter.instances(read_maps(window), mpp=mpp, sides=sides)
        if window == whole or _core_is_certain(found, block_core.slices(window)):
            return _owned(found, block_core, window)
        halo *= 2


def _core_is_certain(found: InstanceWindow, core: tuple[slice, slice]) -> bool:
    return bool(found.certain.all() or found.certain[found.labels[core]].all())


def _owned(found: InstanceWindow, core: Box, window: Box) -> Extracted:
    x, y = centre_pixels(found.labels, len(found.certain) - 1)
    x += window.x0
    y += window.y0
    is_owned = (core.x0 <= x) & (x < core.x1) & (core.y0 <= y) & (y < core.y1)
    is_owned[0] = False
    keep = np.flatnonzero(is_owned)
    labels, bounds = _select(found.labels, is_owned)
    if len(keep) == 0:
        window, labels = Box(core.x0, core.y0, core.x0 + 1, core.y0 + 1), np.zeros((1, 1), np.int32)
    else:
        x0, y0, x1, y1 = (int(v) for v in bounds)
        window, labels = (
            Box(window.x0 + x0, window.y0 + y0, window.x0 + x1, window.y0 + y1),
            np.ascontiguousarray(labels[y0:y1, x0:x1]),
        )
    order = np.concatenate([[0], keep])
    return Extracted(window, labels, found.class_id[order], found.class_prob[order])


@njit(cache=True, nogil=True)
def centre_pixels(labels: NDArray[np.int32], n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the centre pixel of each label, by integers only.

    Args:
        labels: (H, W) int32, 0..n.
        n: number of labels.

    Returns:
        Column and row, int64 (n + 1,) each: of the pixel that holds the centroid (half-open) if it has that label,
        else of the label's pixel nearest to that pixel, the first in raster order among equals; -1 for absent labels.
    """
    rows, cols = labels.shape
    count = np.zeros(n + 1, np.int64)
    x = np.zeros(n + 1, np.int64)
    y = np.zeros(n + 1, np.int64)
    for r in range(rows):
        for c in range(cols):
            label = labels[r, c]
            if label:
                count[label] += 1
                x[label] += c
                y[label] += r
    nearest = np.full(n + 1, -1, np.int64)
    n_outside = 0
    for label in range(n + 1):
        if count[label] == 0:
            x[label] = y[label] = -1
            continue
        # Pixel centres lie at + 1/2: floor(sum / count + 1/2).
        x[label] = (2 * x[label] + count[label]) // (2 * count[label])
        y[label] = (2 * y[label] + count[label]) // (2 * count[label])
        if labels[y[label], x[label]] != label:
            nearest[label] = np.iinfo(np.int64).max
            n_outside += 1
    if n_outside:
        _pull_inside(labels, nearest, x, y)
    return x, y


@njit(cache=True, nogil=True)
def _pull_inside(
    labels: NDArray[np.int32], nearest: NDArray[np.int64], x: NDArray[np.int64], y: NDArray[np.int64]
) -> None:
    """Move (x, y) in place to the nearest pixel of the label, for labels where `nearest` is >= 0."""
    to_x, to_y = x.copy(), y.copy()
    for r in range(labels.shape[0]):
        for c in range(labels.shape[1]):
            label = labels[r, c]
            if label and nearest[label] >= 0:
                distance = (c - x[label]) ** 2 + (r - y[label]) ** 2
                if distance < nearest[label]:
                    nearest[label] = distance
                    to_x[label], to_y[label] = c, r
    x[:] = to_x
    y[:] = to_y


@njit(cache=True, nogil=True)
def _select(labels: NDArray[np.int32], keep: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Renumber the kept labels 1.. in the order of their ids, zero the rest; also their box (x0, y0, x1, y1)."""
    new = np.zeros(len(keep), np.int32)
    n = 0
    for label in range(1, len(keep)):
        if keep[label]:
            n += 1
            new[label] = n
    rows, cols = labels.shape
    out = np.zeros((rows, cols), np.int32)
    bounds = np.array([cols, rows, 0, 0], np.int64)
    for r in range(rows):
        for c in range(cols):
            label = new[labels[r, c]]
            if label:
                out[r, c] = label
                bounds[0] = min(bounds[0], c)
                bounds[1] = min(bounds[1], r)
                bounds[2] = max(bounds[2], c + 1)
                bounds[3] = max(bounds[3], r + 1)
    return out, bounds
