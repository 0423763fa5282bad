"""From stitched maps to instances in a window, with a proof of which ones the rest of the map cannot change.

The rule, on the whole map: small holes of the foreground are filled; the height map is blurred; every foreground pixel
steps to its greatest 4-neighbour in the total order (height, row, col), so pixels that end at one summit form a basin;
then pixel pairs between basins are visited from the highest saddle down (ties in raster order), and two sets of basins
become one when the lower of their summits stands less than h above the saddle. A set is an instance.

What a window knows. Call a pixel *open* when its true step might differ: it lies within smooth_px of an open side, or
beside background that may turn out to be a hole. A walk that stops at the first open pixel collects pixels that truly
belong together, and the height where it stops bounds their true summit from below (`low`). A basin is *exact* when it
neither holds nor touches an open pixel: its walks are true, no other pixel can walk into it (it would have to be an
open neighbour), and the heights of all its neighbours are true, so all its pixel pairs are known, in their true order.
Merging keeps two invariants at every saddle: each set is part of one true set, and an exact set *is* a true set, with
its true summit. For a pair at saddle s:
- exact with exact: the true decision is computed.
- exact a with inexact b: both low >= s + h: truly rejected, since summits are never below low. low[a] < s + h: truly
  merged, since the lower summit is at most low[a]; the union is inexact. Otherwise it depends on what lies outside: a
  becomes inexact.
- inexact with inexact: left alone; true sets only grow, so the invariants stay.
A true set changes only through its own pairs, all of which an exact set sees. So at the end an exact set is an
instance of the whole map, pixel for pixel. Hence what `InstanceWindow` promises: a certain label is a label of the
whole map, and a pixel without label has none there. The areas in between are returned as one uncertain label each.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from wsipipe import relief, watershed
from wsipipe.grid import Sides
from wsipipe.segmenter import InstanceWindow


@dataclass(frozen=True, slots=True)
class SplitRules:
    """How foreground and height become instances.

    Attributes:
        threshold: foreground >= threshold is foreground, 1..255.
        h: two summits are two instances when both stand at least h above the saddle between them, 1..255 height steps.
        smooth_px: radius of the binomial blur of the height map (sigma = sqrt(smooth_px / 2) px), 0..8.
        min_area_px: smaller instances are dropped.
        fill_holes_px: enclosed background of at most this size is filled, 0 = none.
    """

    threshold: int
    h: int
    smooth_px: int
    min_area_px: int
    fill_holes_px: int

    def __post_init__(self) -> None:
        """Refuse rules that are not defined."""
        if not (1 <= self.threshold <= 255 and 1 <= self.h <= 255):
            raise ValueError(f"threshold and h must be 1..255, got {self.threshold} and {self.h}")
        if not 0 <= self.smooth_px <= relief.MAX_SMOOTH_PX:
            raise ValueError(f"smooth_px must be 0..{relief.MAX_SMOOTH_PX}, got {self.smooth_px}")
        if self.min_area_px < 0 or self.fill_holes_px < 0:
            raise ValueError(f"areas must be >= 0 px, got {self.min_area_px} and {self.fill_holes_px}")


def split_instances(
    foreground: NDArray[np.uint8], height: NDArray[np.uint8], rules: SplitRules, sides: Sides
) -> InstanceWindow:
    """Split the foreground of a window into instances; labels that are certain are those of the whole map.

    Args:
        foreground: (H, W) uint8, e.g. probability times 255.
        height: (H, W) uint8, high inside nuclei and low between them, e.g. a distance.
        rules: parameters.
        sides: which sides of the window are the edge of the whole map.

    Returns:
        Labels 1..n in raster order of their first pixel, 4-connected, unclassified. Uncertain labels are areas that
        reach or depend on an open side; with all sides closed every label is certain.
    """
    if foreground.shape != height.shape or foreground.dtype != np.uint8 or height.dtype != np.uint8:
        raise ValueError(
            f"foreground and height must be uint8 of one shape, got {foreground.dtype} {foreground.shape} "
            f"and {height.dtype} {height.shape}"
        )
    rows, cols = foreground.shape
    mask = (foreground >= rules.threshold).view(np.uint8)
    if not mask.any() and mask.size > rules.fill_holes_px:
        return _unclassified(np.zeros((rows, cols), np.int32), np.ones(1, np.bool_))
    mask = relief.fill_holes(mask, rules.fill_holes_px, sides)
    smoothed = relief.smooth(np.ascontiguousarray(height), relief.binomial_weights(rules.smooth_px))
    heights = relief.relief(mask, smoothed)
    steps, n_stay = watershed.climb(mask, heights, _known_box((rows, cols), rules.smooth_px + 1, sides))
    basins, low, exact = watershed.gather(heights, steps, cols + 2, n_stay)
    h = rules.h * relief.UNIT
    pairs = watershed.saddles(heights, basins, cols + 2, h, low, exact)
    parent = watershed.merge(heights, basins, pairs, h, low, exact)
    watershed.join_unsettled(basins, cols + 2, parent, exact)
    labels, certain = watershed.number(basins, (rows, cols), parent, exact, rules.min_area_px)
    return _unclassified(labels, certain)


def component_window(
    labels: NDArray[np.int32], foreground: NDArray[np.bool_], sides: Sides, *, reach: int = 0
) -> InstanceWindow:
    """Wrap the labels of a post-processing that treats each connected component of the foreground on its own.

    A component that touches no open side is whole, so its labels are those of the whole map; a component that does is
    uncertain, including its pixels that got no label. Components are taken 8-connected. Labels in several 4-connected
    parts become several labels.

    Args:
        labels: (H, W) int32, 0 = background, 0 outside the foreground.
        foreground: (H, W) bool.
        sides: which sides of the window are the edge of the whole map.
        reach: px around a component that its labels depend on, too; one that comes nearer to an open side is uncertain.

    Returns:
        Labels renumbered 1..n in raster order of their first pixel, unclassified.
    """
    if labels.shape != foreground.shape:
        raise ValueError(f"labels and foreground must have one shape, got {labels.shape} and {foreground.shape}")
    n, regions = cv2.connectedComponents(foreground.astype(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    is_open = np.zeros(n, np.bool_)
    for at_edge, line in (
        (sides.left, regions[:, : reach + 1]),
        (sides.top, regions[: reach + 1]),
        (sides.right, regions[:, -reach - 1 :]),
        (sides.bottom, regions[-reach - 1 :]),
    ):
        if not at_edge:
            is_open[line] = True
    is_open[0] = False
    unsettled = is_open[regions]
    filled = np.where(unsettled & (labels == 0), np.int32(-1), labels).astype(np.int32)
    parts, first = split_parts(filled)
    return _unclassified(parts, np.concatenate([[True], ~unsettled.ravel()[first]]))


@njit(cache=True, nogil=True)
def split_parts(labels: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Give each 4-connected part of equal non-zero labels its own label, 1..n in raster order of the first pixel.

    Returns:
        (H, W) int32, and the raveled index of each part's first pixel, int64 (n,).
    """
    rows, cols = labels.shape
    flat = labels.ravel()
    out = np.zeros(rows * cols, np.int32)
    stack = np.empty(rows * cols, np.int64)
    first = np.empty(rows * cols, np.int64)
    n = 0
    for start in range(rows * cols):
        if flat[start] == 0 or out[start]:
            continue
        first[n] = start
        n += 1
        out[start] = n
        stack[0], depth = start, 1
        while depth:
            depth -= 1
            p = stack[depth]
            x = p % cols
            for q, inside in (
                (p - cols, p >= cols),
                (p - 1, x > 0),
                (p + 1, x + 1 < cols),
                (p + cols, p + cols < len(flat)),
            ):
                if inside and out[q] == 0 and flat[q] == flat[start]:
                    out[q] = n
                    stack[depth] = q
                    depth += 1
    return out.reshape(rows, cols), first[:n].copy()


def _known_box(shape: tuple[int, int], reach: int, sides: Sides) -> tuple[int, int, int, int]:
    """Return (x0, y0, x1, y1) of the pixels at least `reach` px away from every open side."""
    rows, cols = shape
    return (
        0 if sides.left else reach,
        0 if sides.top else reach,
        cols if sides.right else cols - reach,
        rows if sides.bottom else rows - reach,
    )


def _unclassified(labels: NDArray[np.int32], certain: NDArray[np.bool_]) -> InstanceWindow:
    return InstanceWindow(
        labels, certain, np.zeros(len(certain), np.int16), np.full(len(certain), np.nan, dtype=np.float32)
    )
