"""How good a segmentation is: pixels, borders, instances (spec section 8), per image and over images.

Label overlaps, AJI and PQ come from `wsipipe.score`, which runs use too; here are the measures that only an evaluation
needs. All values are fractions (0..1), distances px; NaN means: not defined for this image, so left out and counted.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from wsipipe.score import Overlap, overlap, scores

Mask = NDArray[np.bool_]
Labels = NDArray[np.int32]

HD_GRID = 1024  # side of the grid on which the paper measured Hausdorff distances


@dataclass(frozen=True, slots=True)
class ImageMetrics:
    """Scores of one image.

    Attributes:
        dsc, iou, precision, recall: of foreground pixels.
        hd, hd95: Hausdorff distance of the borders, largest and 95th percentile, px; NaN where one side is empty.
        hd_1024: hd with the longer side resized to HD_GRID.
        aji, aji_plus, dq, sq, pq: of instances; NaN where both sides are empty.
        diagonal: of the image, px: the distance to assume where hd is NaN.
        n_truth, n_found: instances.
    """

    dsc: float
    iou: float
    precision: float
    recall: float
    hd: float
    hd95: float
    hd_1024: float
    aji: float
    aji_plus: float
    dq: float
    sq: float
    pq: float
    diagonal: float
    n_truth: int
    n_found: int


def score_image(truth: Labels, labels: Labels, foreground: Mask | None = None) -> ImageMetrics:
    """Score one image.

    Args:
        truth: int32 (H, W), 0 = background, at the image's native size.
        labels: int32 (H, W), what was found.
        foreground: bool (H, W), the thresholded foreground map where that is not just `labels > 0`.

    Returns:
        All scores.
    """
    true_mask, mask = truth > 0, (labels > 0) if foreground is None else foreground
    pairs = overlap(truth, labels)
    instances = scores(pairs)
    dsc, iou, precision, recall = pixel_scores(true_mask, mask)
    hd, hd95 = border_distances(true_mask, mask)
    factor = HD_GRID / max(truth.shape)
    return ImageMetrics(
        dsc=dsc,
        iou=iou,
        precision=precision,
        recall=recall,
        hd=hd,
        hd95=hd95,
        hd_1024=border_distances(_resized(true_mask, factor), _resized(mask, factor))[0],
        aji=instances.aji,
        aji_plus=aji_plus(pairs),
        dq=instances.dq,
        sq=instances.sq,
        pq=instances.pq,
        diagonal=float(np.hypot(*truth.shape)),
        n_truth=instances.n_truth,
        n_found=instances.n_found,
    )


def pixel_scores(truth: Mask, mask: Mask) -> tuple[float, float, float, float]:
    """DSC, IoU, precision and recall of two masks: all 1 where both are empty, all 0 where one is."""
    both, true, found = int(np.sum(truth & mask)), int(np.sum(truth)), int(np.sum(mask))
    if true == found == 0:
        return 1.0, 1.0, 1.0, 1.0
    return 2 * both / (true + found), both / (true + found - both), both / max(1, found), both / max(1, true)


def border_distances(truth: Mask, mask: Mask) -> tuple[float, float]:
    """Hausdorff distance between the border pixels of two masks, and its 95th-percentile form, px.

    A border pixel is a foreground pixel with a background pixel, or the image's edge, at one of its four sides. The
    percentile is taken of each directed set of distances, then the larger one counts.

    Returns:
        (0, 0) where both masks are empty, (NaN, NaN) where one is.
    """
    borders = [_border(side) for side in (truth, mask)]
    empty = [not border.any() for border in borders]
    if any(empty):
        value = 0.0 if all(empty) else float("nan")
        return value, value
    to_mask, to_truth = (_distance_to(border)[other] for border, other in zip(borders[::-1], borders, strict=True))
    hd95 = max(float(np.percentile(to_mask, 95)), float(np.percentile(to_truth, 95)))
    return max(float(to_mask.max()), float(to_truth.max())), hd95


def aji_plus(pairs: Overlap) -> float:
    """AJI with one-to-one pairs of maximum total IoU; every instance left alone adds its area to the union.

    Returns:
        NaN where both sides are empty, 0 where one is.
    """
    total = int(pairs.truth_area.sum() + pairs.found_area.sum())
    shared = int(pairs.area[best_pairs(pairs)].sum())
    return shared / (total - shared) if total else float("nan")


def best_pairs(pairs: Overlap) -> NDArray[np.int64]:
    """Indices into `pairs.area` of the one-to-one pairs of maximum total IoU.

    Overlapping instances form small clusters that do not touch each other, so each is assigned on its own.
    """
    if not len(pairs.area):
        return np.empty(0, np.int64)
    n_truth, n_found = len(pairs.truth_id), len(pairs.found_id)
    size = n_truth + n_found
    edges = coo_array((np.ones(len(pairs.area)), (pairs.truth_index, n_truth + pairs.found_index)), shape=(size, size))
    cluster = connected_components(edges, directed=False)[1][pairs.truth_index]
    order = np.argsort(cluster, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(cluster[order])) + 1)
    return np.sort(np.concatenate([part if len(part) == 1 else _assign(pairs, part) for part in parts]))


def component_truth(truth: Labels) -> Labels:
    """8-connected components of the true foreground: the truth that the paper's instance numbers may rest on."""
    return np.asarray(cv2.connectedComponents((truth > 0).astype(np.uint8), connectivity=8)[1], np.int32)


def _assign(pairs: Overlap, part: NDArray[np.int64]) -> NDArray[np.int64]:
    """Maximum-IoU assignment among some pairs."""
    rows, row_at = np.unique(pairs.truth_index[part], return_inverse=True)
    cols, col_at = np.unique(pairs.found_index[part], return_inverse=True)
    iou, which = np.zeros((len(rows), len(cols))), np.full((len(rows), len(cols)), -1, np.int64)
    iou[row_at, col_at], which[row_at, col_at] = pairs.iou[part], part
    chosen = which[linear_sum_assignment(iou, maximize=True)]
    return np.asarray(chosen[chosen >= 0])


def _border(mask: Mask) -> Mask:
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    inner = cv2.erode(mask.astype(np.uint8), cross, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray(mask & (np.asarray(inner) == 0))


def _distance_to(border: Mask) -> NDArray[np.float32]:
    """Exact Euclidean distance of every pixel to the nearest border pixel."""
    far = cv2.distanceTransform((~border).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(far, np.float32)


def _resized(mask: Mask, factor: float) -> Mask:
    size = (round(mask.shape[1] * factor), round(mask.shape[0] * factor))
    grid = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT)
    return np.asarray(np.asarray(grid) > 0)
