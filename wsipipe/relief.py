"""Foreground and blurred heights that watersheds run on: integers only, and local.

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
MAYBE = 2  # mask value of a pixel that may or may not be foreground


def binomial_weights(radius: int) -> NDArray[np.uint32]:
    """Return the row 2 * radius of Pascal's triangle: a bell of sigma sqrt(radius / 2), (2 * radius + 1,) uint32."""
    return np.array([comb(2 * radius, k) for k in range(2 * radius + 1)], np.uint32)


@njit(cache=True, nogil=True)
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
    value = np.where(small, np.where(at_side[~is_edge].any(axis=0), MAYBE, 1), 0).astype(np.uint8)
    value[0] = 1
    return _look_up(np.asarray(regions, np.int32), value)


@njit(cache=True, nogil=True)
def _look_up(regions: NDArray[np.int32], value: NDArray[np.uint8]) -> NDArray[np.uint8]:
    out = np.empty(regions.shape, np.uint8)
    for y in range(regions.shape[0]):
        for x in range(regions.shape[1]):
            out[y, x] = value[regions[y, x]]
    return out


@njit(cache=True, nogil=True)
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
