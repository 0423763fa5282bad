"""Compare two label maps: which instances overlap, and the scores that follow (AJI, PQ, F1 at IoU 0.5, Dice).

Everything comes from one sparse histogram of (truth, found) label pairs, so a map costs O(pixels), and the histograms
of the windows of a large map add up to that of the whole map (`combine`).

Definitions: AJI by Kumar et al., IEEE TMI 36(7), 2017; PQ = DQ x SQ by Kirillov et al., CVPR 2019, with the strict
IoU > 0.5 that makes a match unique. Where one side is empty the scores are 0; where both are, AJI, DQ, SQ and PQ are
NaN (such a map is left out of a mean) and precision, recall, F1 and Dice are 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

MATCH_IOU = 0.5


@dataclass(frozen=True, slots=True)
class Overlap:
    """The sparse histogram of two label maps of one shape; background (0) is in no list.

    Attributes:
        truth_id, found_id: uint32 (T,), (F,): the labels that occur, ascending.
        truth_area, found_area: int64 (T,), (F,): their pixel counts.
        truth_index, found_index: int64 (K,): positions in truth_id and found_id of the pairs that share pixels,
            ordered by (truth, found).
        area: int64 (K,): how many pixels each pair shares, > 0.
    """

    truth_id: NDArray[np.uint32]
    found_id: NDArray[np.uint32]
    truth_area: NDArray[np.int64]
    found_area: NDArray[np.int64]
    truth_index: NDArray[np.int64]
    found_index: NDArray[np.int64]
    area: NDArray[np.int64]

    @property
    def iou(self) -> NDArray[np.float64]:
        """Intersection over union of each pair, (K,)."""
        return self.area / (self.truth_area[self.truth_index] + self.found_area[self.found_index] - self.area)


@dataclass(frozen=True, slots=True)
class Scores:
    """How well found instances agree with the truth.

    Attributes:
        n_truth, n_found: instances on each side.
        precision, recall, f1: of instances, matched where IoU > 0.5. f1 equals DQ but for the empty case.
        dq, sq, pq: detection, segmentation and panoptic quality.
        aji: aggregated Jaccard index.
        dsc: Dice coefficient of the foreground pixels.
        count_error: (n_found - n_truth) / n_truth; 0 when both are 0, NaN when only the truth is empty.
    """

    n_truth: int
    n_found: int
    precision: float
    recall: float
    f1: float
    dq: float
    sq: float
    pq: float
    aji: float
    dsc: float
    count_error: float


@njit("int64(uint32[::1], uint32[::1], uint64[::1], int64[::1])", cache=True, nogil=True)
def _pair_runs(
    truth: NDArray[np.uint32], found: NDArray[np.uint32], key: NDArray[np.uint64], n: NDArray[np.int64]
) -> int:
    """List runs of equal (truth, found) pairs, key = truth << 32 | found, but for (0, 0); returns how many."""
    runs = 0
    last = np.uint64(0)
    for i in range(truth.size):
        pair = np.uint64(truth[i]) << np.uint64(32) | np.uint64(found[i])
        if pair == 0:
            last = pair
            continue
        if pair != last:
            key[runs] = pair
            n[runs] = 0
            last = pair
            runs += 1
        n[runs - 1] += 1
    return runs


def overlap(truth: NDArray[np.integer], labels: NDArray[np.integer]) -> Overlap:
    """Count the pixels that each true and each found instance share.

    Args:
        truth: (H, W) labels, 0 = background, ids up to 2**32 - 1 and in any order.
        labels: the same for what was found.
    """
    if truth.shape != labels.shape:
        raise ValueError(f"truth and labels must have one shape, got {truth.shape} and {labels.shape}")
    rows = max(1, (1 << 20) // max(1, truth.shape[-1]))
    parts = [_histogram(truth[row : row + rows], labels[row : row + rows]) for row in range(0, len(truth), rows)]
    return _assemble(parts)


def combine(parts: Sequence[Overlap]) -> Overlap:
    """Add the overlaps of windows that do not overlap each other: the overlap of the map they make up."""
    return _assemble([_disassemble(part) for part in parts])


def match(truth: NDArray[np.integer], labels: NDArray[np.integer]) -> Scores:
    """Score found labels against the truth; see `overlap` for the arguments."""
    return scores(overlap(truth, labels))


def scores(pairs: Overlap) -> Scores:
    """Compute the scores of a whole map from its overlap."""
    n_truth, n_found = len(pairs.truth_id), len(pairs.found_id)
    iou = pairs.iou
    matched = iou[iou > MATCH_IOU]
    both_empty = n_truth == n_found == 0
    nothing = np.nan if both_empty else 0.0
    dq = _ratio(2 * len(matched), n_truth + n_found, nothing)
    sq = _ratio(float(matched.sum()), len(matched), nothing)
    return Scores(
        n_truth=n_truth,
        n_found=n_found,
        precision=_ratio(len(matched), n_found, float(both_empty)),
        recall=_ratio(len(matched), n_truth, float(both_empty)),
        f1=1.0 if both_empty else dq,
        dq=dq,
        sq=sq,
        pq=dq * sq,
        aji=_aji(pairs, nothing),
        dsc=_ratio(2 * int(pairs.area.sum()), int(pairs.truth_area.sum() + pairs.found_area.sum()), 1.0),
        count_error=_ratio(n_found - n_truth, n_truth, 0.0 if both_empty else np.nan),
    )


def _ratio(part: float, whole: float, without: float) -> float:
    return part / whole if whole else without


def _aji(pairs: Overlap, nothing: float) -> float:
    """Aggregate the best pair of each true instance (ties: the smaller found id); a found one may serve twice."""
    order = np.lexsort((pairs.found_index, -pairs.iou, pairs.truth_index))
    _, first = np.unique(pairs.truth_index[order], return_index=True)
    best = order[first]
    found = pairs.found_index[best]
    shared = int(pairs.area[best].sum())
    union = int(pairs.truth_area.sum()) + int(pairs.found_area[found].sum()) - shared
    unchosen = np.ones(len(pairs.found_id), bool)
    unchosen[found] = False
    union += int(pairs.found_area[unchosen].sum())
    return _ratio(shared, union, nothing)


_Histogram = tuple[NDArray[np.uint64], NDArray[np.int64]]


def _histogram(truth: NDArray[np.integer], labels: NDArray[np.integer]) -> _Histogram:
    """Count each (truth, found) pair but (0, 0): distinct ascending keys and their pixel counts."""
    key, n = np.empty(truth.size, np.uint64), np.empty(truth.size, np.int64)
    flat_truth, flat_labels = (np.ascontiguousarray(side, np.uint32).ravel() for side in (truth, labels))
    runs = _pair_runs(flat_truth, flat_labels, key, n)
    return _add_up(key[:runs], n[:runs])


def _add_up(key: NDArray[np.uint64], n: NDArray[np.int64]) -> _Histogram:
    order = np.argsort(key, kind="stable")
    key, n = key[order], n[order]
    first = np.flatnonzero(np.concatenate((np.ones(min(1, len(key)), bool), key[1:] != key[:-1])))
    return key[first], np.add.reduceat(n, first) if len(first) else n


def _assemble(parts: Sequence[_Histogram]) -> Overlap:
    empty: _Histogram = (np.empty(0, np.uint64), np.empty(0, np.int64))
    key, n = _add_up(*(np.concatenate(column) for column in zip(empty, *parts, strict=True)))
    truth, found = (key >> np.uint64(32)).astype(np.uint32), key.astype(np.uint32)
    truth_id, truth_at = np.unique(truth, return_inverse=True)
    found_id, found_at = np.unique(found, return_inverse=True)
    truth_area, found_area = np.zeros(len(truth_id), np.int64), np.zeros(len(found_id), np.int64)
    np.add.at(truth_area, truth_at, n)
    np.add.at(found_area, found_at, n)
    # id 0 is the first of each list if it is there at all
    skip_truth, skip_found = int(0 in truth_id[:1]), int(0 in found_id[:1])
    both = (truth > 0) & (found > 0)
    return Overlap(
        truth_id[skip_truth:],
        found_id[skip_found:],
        truth_area[skip_truth:],
        found_area[skip_found:],
        truth_at[both].astype(np.int64) - skip_truth,
        found_at[both].astype(np.int64) - skip_found,
        n[both],
    )


def _disassemble(pairs: Overlap) -> _Histogram:
    """Turn an overlap back into its histogram: pairs, and what of each instance lies on the other's background."""
    truth_left, found_left = pairs.truth_area.copy(), pairs.found_area.copy()
    np.subtract.at(truth_left, pairs.truth_index, pairs.area)
    np.subtract.at(found_left, pairs.found_index, pairs.area)
    truth, found = pairs.truth_id.astype(np.uint64) << np.uint64(32), pairs.found_id.astype(np.uint64)
    key = np.concatenate((truth[pairs.truth_index] | found[pairs.found_index], truth, found))
    n = np.concatenate((pairs.area, truth_left, found_left))
    return key[n > 0], n[n > 0]
