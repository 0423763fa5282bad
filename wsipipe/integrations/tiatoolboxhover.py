"""HoVer-Net's post-processing in a window of stitched maps, with a proof of what the rest of the map cannot change.

TIAToolbox post-processes a tile as a whole: gradients of the distance maps are stretched so that the tile's own least
and greatest value become 0 and 1, and markers found on them grow by a watershed. The same nucleus then comes out
differently in another tile, so no way of cutting a slide into tiles could give what one run over the whole slide
gives. Here the steps are TIAToolbox's with its parameters, but for two things that make each step local:
- The maps are stretched by fixed limits: -1..1, the range that HoVer-Net is trained to, for the distances, and
  GRADIENT_LIMITS for their gradients. TIAToolbox's own limits are close to these wherever a tile holds many nuclei.
- Each connected region of foreground is treated on its own. TIAToolbox differs only where one region encloses another.

A pixel's gradient depends on pixels up to half the filter away, the rest on its own region only. So a region that
keeps that distance from every open side is what it is on the whole map (`instances.component_window`). All arithmetic
is on integers, or exact in floating point, so that not even the last bit depends on the window.
"""

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage import segmentation

from wsipipe.grid import Sides
from wsipipe.instances import component_window
from wsipipe.segmenter import InstanceWindow

FOREGROUND = 128  # round(255 p) >= 128 is p >= 0.5
MIN_REGION_PX = 10  # as TIAToolbox, at every scale
EDGE_LEVEL = 0.4  # energy from which on a pixel is no marker
OPENING = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
ENERGY_STEPS = 4096  # the energy is rounded to multiples of 1 / 4096: sums of it are exact in float32
# Filter side -> least and greatest gradient, as a share of the response to a sharp step from 1 to -1 between two
# touching nuclei. Medians over the 30 training images of MoNuSeg (1000 px, or 500 px for the smaller filter), with
# HoVer-Net's training targets as maps.
GRADIENT_LIMITS = {21: (-0.80, 0.52), 11: (-0.77, 0.58)}


@dataclass(frozen=True, slots=True)
class HoverRules:
    """How HoVer-Net's maps become nuclei.

    Attributes:
        ksize: side of the gradient filter, px: 21 at 0.25 um per px, 11 at 0.5.
        min_marker_px: smaller markers are dropped.
        n_types: nucleus types with background, 0 = the network has none.
    """

    ksize: int
    min_marker_px: int
    n_types: int

    @classmethod
    def at_scale(cls, scale: float, n_types: int) -> "HoverRules":
        """Return TIAToolbox's rules; scale: px per 0.25 um, 1 for HoVer-Net and 0.5 for HoVer-Net+."""
        return cls(int(20 * scale) + 1, math.ceil(10 * scale**2), n_types)


def hover_instances(maps: NDArray[np.uint8], rules: HoverRules, sides: Sides) -> InstanceWindow:
    """Find nuclei and their types.

    Args:
        maps: uint8 (3 or 4, H, W): nucleus probability times 255; horizontal and vertical distance to the nucleus's
            centre, -1..1 as 0..255; the type of each pixel, if there are types.
        rules: parameters.
        sides: which sides of the window are the edge of the whole map.

    Returns:
        Labels 1..n in raster order. A nucleus's type is that of most of its pixels, background only if there is no
        other (then it is unclassified), and the probability is the share of its pixels with that type.
    """
    foreground = maps[0] >= FOREGROUND
    labels = np.zeros(foreground.shape, np.int32)
    if foreground.any():
        energy = edge_energy(maps[1], maps[2], rules.ksize)
        labels = _split_regions(_without_small(foreground), energy, rules)
    found = component_window(labels, foreground, sides, reach=rules.ksize // 2 + 1)
    return _with_types(found, maps[3], rules.n_types) if rules.n_types else found


def edge_energy(horizontal: NDArray[np.uint8], vertical: NDArray[np.uint8], ksize: int) -> NDArray[np.float32]:
    """Return (H, W) float32 in 0..1, 1 where the distances fall as steeply as between two touching nuclei."""
    energy = _steepness(horizontal, (1, 0), ksize)
    np.maximum(energy, _steepness(vertical, (0, 1), ksize), out=energy)
    return energy


def _steepness(distance: NDArray[np.uint8], axis: tuple[int, int], ksize: int) -> NDArray[np.float32]:
    along, across = cv2.getDerivKernels(1, 0, ksize, ktype=cv2.CV_64F)
    step = 255 * np.abs(np.cumsum(along)).max() * across.sum()
    least, greatest = (limit * step for limit in GRADIENT_LIMITS[ksize])
    gradient = cv2.Sobel(distance, cv2.CV_64F, *axis, ksize=ksize)  # sums of integers below 2^53: exact
    gradient -= greatest
    gradient *= ENERGY_STEPS / (least - greatest)
    return (np.clip(np.rint(gradient), 0, ENERGY_STEPS) / ENERGY_STEPS).astype(np.float32)


def _without_small(foreground: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Drop 4-connected parts below MIN_REGION_PX."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(foreground.view(np.uint8), connectivity=4, ltype=cv2.CV_32S)
    is_kept = stats[:, cv2.CC_STAT_AREA] >= MIN_REGION_PX
    is_kept[0] = False
    return np.asarray(is_kept[parts], np.bool_)


def _split_regions(mask: NDArray[np.bool_], energy: NDArray[np.float32], rules: HoverRules) -> NDArray[np.int32]:
    """Split each 8-connected region of the mask by itself; (H, W) int32, 0 where a region has no marker."""
    inner = np.where(mask, 1 - energy, np.float32(0))
    heights = np.asarray(-cv2.GaussianBlur(inner, (3, 3), 0), np.float32)
    n, regions, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    labels = np.zeros(mask.shape, np.int32)
    n_labels = 0
    for region in range(1, n):
        x, y, width, height = (int(v) for v in stats[region, : cv2.CC_STAT_AREA])
        # one px more around it: what a hole is, and where an opening may reach, shows there
        box = np.s_[max(0, y - 1) : y + height + 1, max(0, x - 1) : x + width + 1]
        inside = regions[box] == region
        parts = _split_region(inside, energy[box], heights[box], rules)
        labels[box][inside] = (parts + np.where(parts > 0, n_labels, 0))[inside]
        n_labels += int(parts.max())
    return labels


def _split_region(
    inside: NDArray[np.bool_], energy: NDArray[np.float32], heights: NDArray[np.float32], rules: HoverRules
) -> NDArray[np.int32]:
    marker = ndimage.binary_fill_holes(inside & (energy < EDGE_LEVEL)).astype(np.uint8)
    marker = cv2.morphologyEx(marker, cv2.MORPH_OPEN, OPENING)
    _, markers, stats, _ = cv2.connectedComponentsWithStats(marker, connectivity=4, ltype=cv2.CV_32S)
    is_kept = stats[:, cv2.CC_STAT_AREA] >= rules.min_marker_px
    markers = np.where(is_kept[markers], markers, 0)
    flood: Any = segmentation.watershed
    return np.asarray(flood(heights, markers=markers, mask=inside), np.int32)


def _with_types(found: InstanceWindow, types: NDArray[np.uint8], n_types: int) -> InstanceWindow:
    n = len(found.certain)
    pairs = found.labels.astype(np.int64) * n_types + np.minimum(types, n_types - 1)
    counts = np.bincount(pairs.ravel(), minlength=n * n_types).reshape(n, n_types)
    area = counts.sum(axis=1)
    best = 1 + counts[:, 1:].argmax(axis=1)  # the lowest of equals, as TIAToolbox
    share = counts[np.arange(n), best] / np.maximum(area, 1)
    class_id = np.where(share > 0, best, 0).astype(np.int16)
    class_id[0] = 0
    class_prob = np.where(class_id > 0, share, np.nan).astype(np.float32)
    return InstanceWindow(found.labels, found.certain, class_id, class_prob)
