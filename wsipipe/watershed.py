"""Kernels that split a foreground mask into instances along the valleys of a height map, integers only.

Every step looks at a bounded neighbourhood or at whole basins, and every order is a total order that does not change
when the window moves; `instances` proves from this what a window can know about the whole map.
Arrays called `flat` are raveled (H + 2, W + 2) maps with a rim of background, so that neighbours need no bounds check.
"""

from math import comb

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from wsipipe.grid import Sides

UNIT = 256  # smoothed heights are uint16 in 1/256 of a height step
MAX_SMOOTH_PX = 8  # the largest binomial kernel whose sums fit 32 bits

_SELF, _OPEN = 2, 7  # step codes: stays (a summit), stays because its true step is unknown
_MAYBE = 2  # mask value of a pixel that may or may not be foreground


def binomial_weights(radius: int) -> NDArray[np.uint32]:
    """Return the row 2 * radius of Pascal's triangle: a bell of sigma sqrt(radius / 2), (2 * radius + 1,) uint32."""
    return np.array([comb(2 * radius, k) for k in range(2 * radius + 1)], np.uint32)


@njit(cache=True, nogil=True)  # type: ignore[misc]
def smooth(height: NDArray[np.uint8], weights: NDArray[np.uint32]) -> NDArray[np.uint16]:
    """Blur with a binomial kernel along y, then x; edge pixels repeat outwards.

    Args:
        height: (H, W) uint8.
        weights: `binomial_weights(radius)`.

    Returns:
        (H, W) uint16 in 1/UNIT height steps, each rounded by integer arithmetic alone.
    """
    rows, cols = height.shape
    radius = len(weights) // 2
    bits = np.uint32(2 * radius)
    up = np.uint32(max(0, 8 - 2 * radius))
    down = np.uint32(max(0, 2 * radius - 8))
    half = np.uint32((1 << (2 * radius)) >> 1)
    line = np.empty(cols + 2 * radius, np.uint32)
    total = np.empty(cols, np.uint32)
    out = np.empty((rows, cols), np.uint16)
    for y in range(rows):
        line[radius : radius + cols] = 0
        for k in range(2 * radius + 1):
            source = height[min(max(y + k - radius, 0), rows - 1)]
            weight = weights[k]
            for x in range(cols):
                line[radius + x] += weight * np.uint32(source[x])
        for x in range(radius, radius + cols):
            line[x] = (line[x] << up) >> down
        for k in range(radius):
            line[k] = line[radius]
            line[radius + cols + k] = line[radius + cols - 1]
        total[:] = half
        for k in range(2 * radius + 1):
            weight = weights[k]
            for x in range(cols):
                total[x] += weight * line[k + x]
        for x in range(cols):
            out[y, x] = np.uint16(min(total[x] >> bits, np.uint32(65535)))
    return out


def fill_holes(mask: NDArray[np.uint8], max_px: int, sides: Sides) -> NDArray[np.uint8]:
    """Turn small enclosed background into foreground.

    A hole is a 4-connected background region of <= max_px that does not touch the edge of the map. One that touches an
    open side of the window may be a hole or not: its pixels become 2 ("maybe").

    Args:
        mask: (H, W) uint8, 0 or 1.
        max_px: largest hole to fill.
        sides: which sides of the window are the edge of the map.

    Returns:
        (H, W) uint8, 0 = background, 1 = foreground, 2 = maybe. The input may be returned.
    """
    if max_px == 0 or mask.size == 0:
        return mask
    _, regions, stats, _ = cv2.connectedComponentsWithStats(1 - mask, connectivity=4, ltype=cv2.CV_32S)
    rows, cols = mask.shape
    at_side = np.stack(
        [
            stats[:, cv2.CC_STAT_LEFT] == 0,
            stats[:, cv2.CC_STAT_TOP] == 0,
            stats[:, cv2.CC_STAT_LEFT] + stats[:, cv2.CC_STAT_WIDTH] == cols,
            stats[:, cv2.CC_STAT_TOP] + stats[:, cv2.CC_STAT_HEIGHT] == rows,
        ]
    )
    is_edge = np.array([sides.left, sides.top, sides.right, sides.bottom])
    small = (stats[:, cv2.CC_STAT_AREA] <= max_px) & ~at_side[is_edge].any(axis=0)
    value = np.where(small, np.where(at_side[~is_edge].any(axis=0), _MAYBE, 1), 0).astype(np.uint8)
    value[0] = 1
    return _look_up(regions, value)


@njit(cache=True, nogil=True)  # type: ignore[misc]
def _look_up(regions: NDArray[np.int32], value: NDArray[np.uint8]) -> NDArray[np.uint8]:
    out = np.empty(regions.shape, np.uint8)
    for y in range(regions.shape[0]):
        for x in range(regions.shape[1]):
            out[y, x] = value[regions[y, x]]
    return out


@njit(cache=True, nogil=True)  # type: ignore[misc]
def relief(mask: NDArray[np.uint8], smoothed: NDArray[np.uint16]) -> NDArray[np.int32]:
    """Return flat heights, -1 on background and on the rim, int32."""
    rows, cols = mask.shape
    flat = np.full((rows + 2) * (cols + 2), -1, np.int32)
    for y in range(rows):
        base = (y + 1) * (cols + 2) + 1
        for x in range(cols):
            if mask[y, x]:
                flat[base + x] = smoothed[y, x]
    return flat


@njit(cache=True, nogil=True)  # type: ignore[misc]
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


@njit(cache=True, nogil=True)  # type: ignore[misc]
def _near_maybe(mask: NDArray[np.uint8], y: int, x: int) -> bool:
    rows, cols = mask.shape
    return bool(
        mask[y, x] == _MAYBE
        or (y > 0 and mask[y - 1, x] == _MAYBE)
        or (x > 0 and mask[y, x - 1] == _MAYBE)
        or (x + 1 < cols and mask[y, x + 1] == _MAYBE)
        or (y + 1 < rows and mask[y + 1, x] == _MAYBE)
    )


@njit(cache=True, nogil=True)  # type: ignore[misc]
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


@njit(cache=True, nogil=True)  # type: ignore[misc]
def _saddle(
    p: int,
    q: int,
    heights: NDArray[np.int32],
    basins: NDArray[np.int32],
    h: int,
    low: NDArray[np.int32],
    exact: NDArray[np.uint8],
) -> int:
    """Return the saddle between neighbours p and q, -1 if it can never matter.

    It cannot inside a basin, between two inexact ones, and h or more below both summits, since `low` only grows.
    """
    a, b = basins[p], basins[q]
    if b == 0 or a == b or not (exact[a] or exact[b]):
        return -1
    saddle = min(heights[p], heights[q])
    return saddle if min(low[a], low[b]) - saddle < h else -1


@njit(cache=True, nogil=True)  # type: ignore[misc]
def saddles(
    heights: NDArray[np.int32],
    basins: NDArray[np.int32],
    stride: int,
    h: int,
    low: NDArray[np.int32],
    exact: NDArray[np.uint8],
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """List the pixel pairs across which basins may merge, highest saddle first, ties in raster order.

    Returns:
        First pixel and second pixel of each pair as flat indices, int32 (E,) each.
    """
    starts = np.zeros(65538, np.int64)
    for p in range(len(heights)):
        if basins[p]:
            for q in (p + 1, p + stride):
                saddle = _saddle(p, q, heights, basins, h, low, exact)
                if saddle >= 0:
                    starts[65536 - saddle] += 1
    starts[1:] = np.cumsum(starts[:-1])
    starts[0] = 0
    first = np.empty(starts[-1], np.int32)
    second = np.empty(starts[-1], np.int32)
    for p in range(len(heights)):
        if basins[p]:
            for q in (p + 1, p + stride):
                saddle = _saddle(p, q, heights, basins, h, low, exact)
                if saddle >= 0:
                    at = starts[65536 - saddle]
                    first[at], second[at] = p, q
                    starts[65536 - saddle] += 1
    return first, second


@njit(cache=True, nogil=True)  # type: ignore[misc]
def _find(parent: NDArray[np.int32], a: int) -> int:
    while parent[a] != a:
        parent[a] = parent[parent[a]]
        a = parent[a]
    return a


@njit(cache=True, nogil=True)  # type: ignore[misc]
def merge(
    heights: NDArray[np.int32],
    basins: NDArray[np.int32],
    pairs: tuple[NDArray[np.int32], NDArray[np.int32]],
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
    for k in range(len(pairs[0])):
        p, q = pairs[0][k], pairs[1][k]
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


@njit(cache=True, nogil=True)  # type: ignore[misc]
def join_unsettled(basins: NDArray[np.int32], stride: int, parent: NDArray[np.int32], exact: NDArray[np.uint8]) -> None:
    """Unite adjacent inexact sets in place, so that each connected unsettled area becomes one region."""
    for p in range(len(basins)):
        if basins[p]:
            for q in (p + 1, p + stride):
                if basins[q] and basins[q] != basins[p]:
                    a, b = _find(parent, basins[p]), _find(parent, basins[q])
                    if a != b and not exact[a] and not exact[b]:
                        parent[b] = a


@njit(cache=True, nogil=True)  # type: ignore[misc]
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
