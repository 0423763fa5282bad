"""Kernels that split foreground into instances along the valleys of a height map.

Every step looks at a bounded neighbourhood or at whole basins, and every order is a total order that does not change
when the window moves; `instances` proves from this what a window can know about the whole map. `flat` arrays are those
of `relief`.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from wsipipe.relief import MAYBE

_SELF, _OPEN = 2, 7  # step codes: stays (a summit), stays because its true step is unknown


@njit(cache=True, nogil=True)
def climb(
    mask: NDArray[np.uint8], heights: NDArray[np.int32], known: tuple[int, int, int, int]
) -> tuple[NDArray[np.uint8], int]:
    """For each foreground pixel, find the step to its greatest 4-neighbour by (height, row, col), if greater than it.

    Args:
        mask: (H, W) uint8 from `fill_holes`.
        heights: flat, from `relief`.
        known: (x0, y0, x1, y1), the pixels outside this box do not know their true step.

    Returns:
        Flat uint8 codes 0 up, 1 left, 2 stays, 3 right, 4 down, 7 stays because its true step is unknown;
        and the number of pixels that stay.
    """
    rows, cols = mask.shape
    stride = cols + 2
    steps = np.zeros(len(heights), np.uint8)
    n_stay = 0
    for y in range(rows):
        for x in range(cols):
            if mask[y, x] == 0:
                continue
            p = (y + 1) * stride + x + 1
            # The code breaks ties as (row, col) does, so the maximum is unique.
            best = max(heights[p - stride] * 8, heights[p - 1] * 8 + 1)
            best = max(best, heights[p] * 8 + _SELF)
            best = max(best, max(heights[p + 1] * 8 + 3, heights[p + stride] * 8 + 4))
            code = best & 7
            if x < known[0] or y < known[1] or x >= known[2] or y >= known[3] or _near_maybe(mask, y, x):
                code = _OPEN
            steps[p] = code
            n_stay += code in (_SELF, _OPEN)
    return steps, n_stay


@njit(cache=True, nogil=True)
def _near_maybe(mask: NDArray[np.uint8], y: int, x: int) -> bool:
    rows, cols = mask.shape
    return bool(
        mask[y, x] == MAYBE
        or (y > 0 and mask[y - 1, x] == MAYBE)
        or (x > 0 and mask[y, x - 1] == MAYBE)
        or (x + 1 < cols and mask[y, x + 1] == MAYBE)
        or (y + 1 < rows and mask[y + 1, x] == MAYBE)
    )


@njit(cache=True, nogil=True)
def gather(
    heights: NDArray[np.int32], steps: NDArray[np.uint8], stride: int, n_stay: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.uint8]]:
    """Follow the steps: pixels that end at the same pixel form a basin.

    Args:
        heights: flat, from `relief`.
        steps: flat, from `climb`.
        stride: W + 2.
        n_stay: from `climb`.

    Returns:
        basins: flat int32, 0 = background, ids in raster order of the end pixel.
        low: int32 (n + 1,), height of the end pixel, a lower bound of the true basin's summit.
        exact: uint8 (n + 1,), 1 where the basin is provably the true one, whole, and so are its neighbours' heights.
    """
    offsets = np.array([-stride, -1, 0, 1, stride, 0, 0, 0], np.int64)
    basins = np.zeros(len(heights), np.int32)
    low = np.zeros(n_stay + 1, np.int32)
    exact = np.ones(n_stay + 1, np.uint8)
    n = 0
    for p in range(len(heights)):
        if heights[p] >= 0 and steps[p] in (_SELF, _OPEN):
            n += 1
            basins[p] = n
            low[n] = heights[p]
    for p in range(len(heights)):
        if heights[p] < 0 or basins[p]:
            continue
        end = p
        while basins[end] == 0:
            end += offsets[steps[end]]
        basin = basins[end]
        q = p
        while basins[q] == 0:
            basins[q] = basin
            q += offsets[steps[q]]
    for p in range(len(heights)):
        if heights[p] >= 0 and steps[p] == _OPEN:
            for k in range(5):
                exact[basins[p + offsets[k]]] = 0
    exact[0] = 1
    return basins, low, exact


@njit(cache=True, nogil=True)
def _saddle(
    p: int,
    q: int,
    heights: NDArray[np.int32],
    basins: NDArray[np.int32],
    h: int,
    low: NDArray[np.int32],
    exact: NDArray[np.uint8],
) -> int:
    """Return the saddle between neighbours p and q of two basins, -1 if it can never matter.

    It cannot between two inexact basins, and h or more below both summits, since `low` only grows.
    """
    a, b = basins[p], basins[q]
    if not (exact[a] or exact[b]):
        return -1
    saddle = min(heights[p], heights[q])
    return saddle if min(low[a], low[b]) - saddle < h else -1


@njit(cache=True, nogil=True)
def saddles(
    heights: NDArray[np.int32],
    basins: NDArray[np.int32],
    stride: int,
    h: int,
    low: NDArray[np.int32],
    exact: NDArray[np.uint8],
) -> NDArray[np.int32]:
    """List the pixel pairs across which basins may merge, highest saddle first, ties in raster order.

    Returns:
        int32 (E, 2), first and second pixel of each pair as flat indices.
    """
    # A counting sort: one pass counts the pairs of each saddle, the next one places them.
    slots = np.zeros(65537, np.int64)
    _place(heights, basins, stride, h, low, exact, slots, np.empty((0, 2), np.int32))
    n = 0
    for slot in range(len(slots)):
        n, slots[slot] = n + slots[slot], n
    pairs = np.empty((n, 2), np.int32)
    _place(heights, basins, stride, h, low, exact, slots, pairs)
    return pairs


@njit(cache=True, nogil=True)
def _place(
    heights: NDArray[np.int32],
    basins: NDArray[np.int32],
    stride: int,
    h: int,
    low: NDArray[np.int32],
    exact: NDArray[np.uint8],
    slots: NDArray[np.int64],
    pairs: NDArray[np.int32],
) -> None:
    """Write each pair to the slot of its saddle, if pairs has room at all, and move the slot on."""
    for p in range(len(heights)):
        if basins[p] == 0:
            continue
        for q in (p + 1, p + stride):
            if basins[q] == 0 or basins[q] == basins[p]:
                continue
            saddle = _saddle(p, q, heights, basins, h, low, exact)
            if saddle < 0:
                continue
            if len(pairs):
                pairs[slots[65536 - saddle], 0] = p
                pairs[slots[65536 - saddle], 1] = q
            slots[65536 - saddle] += 1


@njit(cache=True, nogil=True)
def _find(parent: NDArray[np.int32], a: int) -> int:
    while parent[a] != a:
        parent[a] = parent[parent[a]]
        a = parent[a]
    return a


@njit(cache=True, nogil=True)
def merge(
    heights: NDArray[np.int32],
    basins: NDArray[np.int32],
    pairs: NDArray[np.int32],
    h: int,
    low: NDArray[np.int32],
    exact: NDArray[np.uint8],
) -> NDArray[np.int32]:
    """Merge basins over the listed saddles while the lower summit stands less than h above the saddle.

    `low` and `exact` are updated in place and hold for the representative of each merged set.

    Returns:
        parent: int32 (n + 1,), a union-find forest over basins.
    """
    parent = np.arange(len(low)).astype(np.int32)
    for k in range(len(pairs)):
        p, q = pairs[k, 0], pairs[k, 1]
        a, b = _find(parent, basins[p]), _find(parent, basins[q])
        if a == b or not (exact[a] or exact[b]):
            continue
        if not exact[a]:
            a, b = b, a
        saddle = min(heights[p], heights[q])
        if low[a] - saddle >= h and low[b] - saddle >= h:
            continue
        if exact[b] or low[a] - saddle < h:
            parent[b] = a
            low[a] = max(low[a], low[b])
            exact[a] = exact[b]
        else:
            exact[a] = 0
    return parent


@njit(cache=True, nogil=True)
def join_unsettled(basins: NDArray[np.int32], stride: int, parent: NDArray[np.int32], exact: NDArray[np.uint8]) -> None:
    """Unite adjacent inexact sets in place, so that each connected unsettled area becomes one region."""
    for p in range(len(basins)):
        if basins[p]:
            for q in (p + 1, p + stride):
                if basins[q] and basins[q] != basins[p]:
                    a, b = _find(parent, basins[p]), _find(parent, basins[q])
                    if a != b and not exact[a] and not exact[b]:
                        parent[b] = a


@njit(cache=True, nogil=True)
def number(
    basins: NDArray[np.int32],
    shape: tuple[int, int],
    parent: NDArray[np.int32],
    exact: NDArray[np.uint8],
    min_area_px: int,
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Drop exact regions smaller than min_area_px and number the rest in raster order of their first pixel.

    Returns:
        labels: (H, W) int32.
        certain: bool (n + 1,).
    """
    area = np.zeros(len(parent), np.int64)
    for p in range(len(basins)):
        area[basins[p]] += 1
    total = np.zeros(len(parent), np.int64)
    for b in range(1, len(parent)):
        parent[b] = _find(parent, b)
        total[parent[b]] += area[b]
    label_of = np.zeros(len(parent), np.int32)
    certain = np.ones(len(parent), np.bool_)
    labels = np.zeros(shape, np.int32)
    n = 0
    for y in range(shape[0]):
        base = (y + 1) * (shape[1] + 2) + 1
        for x in range(shape[1]):
            basin = basins[base + x]
            if basin == 0:
                continue
            root = parent[basin]
            if label_of[root] == 0:
                if exact[root] and total[root] < min_area_px:
                    label_of[root] = -1
                else:
                    n += 1
                    label_of[root] = n
                    certain[n] = exact[root] == 1
            if label_of[root] > 0:
                labels[y, x] = label_of[root]
    return labels, certain[: n + 1].copy()
