"""Scores of one image: hand-worked cases, empty cases, and a version that counts pixel by pixel."""

import itertools

import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from amasam.metrics import aji_plus, best_pairs, border_distances, component_truth, pixel_scores, score_image
from wsipipe.score import overlap

NAN = float("nan")


def squares(*corners: tuple[int, int], side: int = 4, size: int = 24) -> np.ndarray:
    labels = np.zeros((size, size), np.int32)
    for label, (row, col) in enumerate(corners, start=1):
        labels[row : row + side, col : col + side] = label
    return labels


def brute_instance_scores(truth: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """AJI, AJI+, DQ, SQ, PQ from one mask per instance; AJI+ tries every one-to-one pairing."""
    true = [truth == i for i in np.unique(truth) if i]
    found = [labels == i for i in np.unique(labels) if i]
    if not true and not found:
        return dict.fromkeys(("aji", "aji_plus", "dq", "sq", "pq"), NAN)
    iou = np.array([[(t & p).sum() / (t | p).sum() for p in found] for t in true]).reshape(len(true), len(found))
    shared, union, used = 0, 0, set()
    for t, row in zip(true, iou, strict=True):
        if len(row) and row.max() > 0:
            best = int(row.argmax())
            used.add(best)
            shared, union = shared + (t & found[best]).sum(), union + (t | found[best]).sum()
        else:
            union += t.sum()
    union += sum(p.sum() for j, p in enumerate(found) if j not in used)
    hits = iou[iou > 0.5]
    dq, sq = 2 * len(hits) / (len(true) + len(found)), float(hits.mean()) if len(hits) else 0.0
    plus = brute_aji_plus(true, found, iou)
    return {"aji": shared / union, "aji_plus": plus, "dq": dq, "sq": sq, "pq": dq * sq}


def brute_aji_plus(true: list, found: list, iou: np.ndarray) -> float:
    small, large = sorted((len(true), len(found)))
    best_total, best_pairing = -1.0, []
    for chosen in itertools.permutations(range(large), small):
        pairing = [(i, j) if len(true) <= len(found) else (j, i) for i, j in enumerate(chosen)]
        total = sum(iou[pair] for pair in pairing)
        if total > best_total:
            best_total, best_pairing = total, [pair for pair in pairing if iou[pair] > 0]
    shared = sum((true[i] & found[j]).sum() for i, j in best_pairing)
    area = sum(t.sum() for t in true) + sum(p.sum() for p in found)
    return shared / (area - shared)


def brute_border_distances(truth: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    points = [np.argwhere(side & ~binary_erosion(side)) for side in (truth, mask)]
    far = np.sqrt(((points[0][:, None] - points[1][None]) ** 2).sum(axis=2))
    directed = far.min(axis=1), far.min(axis=0)
    return max(d.max() for d in directed), max(np.percentile(d, 95) for d in directed)


@pytest.mark.parametrize("seed", range(12))
def test_instance_scores_agree_with_counting_every_mask(seed: int) -> None:
    rng = np.random.default_rng(seed)
    maps = [np.zeros((20, 20), np.int32), np.zeros((20, 20), np.int32)]
    for labels in maps:
        for label in range(1, rng.integers(1, 7)):
            row, col, height, width = rng.integers((0, 0, 2, 2), (16, 16, 9, 9))
            labels[row : row + height, col : col + width] = label * 7
    scored = score_image(maps[0], maps[1])
    for name, value in brute_instance_scores(maps[0], maps[1]).items():
        assert getattr(scored, name) == pytest.approx(value, nan_ok=True), name


@pytest.mark.parametrize("seed", range(5))
def test_border_distances_agree_with_all_pairs_of_border_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, mask = (rng.random((25, 31)) < share for share in (0.1, 0.05))
    assert border_distances(truth, mask) == pytest.approx(brute_border_distances(truth, mask), rel=1e-5)


def test_a_perfect_result_scores_one_and_no_distance() -> None:
    truth = squares((1, 1), (10, 12))
    scored = score_image(truth, truth)
    assert (scored.dsc, scored.iou, scored.aji, scored.aji_plus, scored.pq) == (1, 1, 1, 1, 1)
    assert (scored.hd, scored.hd95, scored.hd_1024) == (0, 0, 0)


def test_permuted_ids_change_nothing() -> None:
    truth, labels = squares((1, 1), (10, 12), (18, 2)), squares((2, 1), (10, 13), (17, 2))
    renamed = np.array([0, 30, 7, 900], np.int32)
    assert score_image(renamed[truth], labels) == score_image(truth, labels)
    assert score_image(truth, renamed[labels]) == score_image(truth, labels)


def test_one_shifted_square_by_hand() -> None:
    """4 x 4 squares, one px apart: 12 px shared, 20 in the union."""
    scored = score_image(squares((5, 5)), squares((5, 6)))
    assert (scored.dsc, scored.iou) == (24 / 32, 12 / 20)
    assert (scored.aji, scored.aji_plus, scored.dq, scored.sq, scored.pq) == (0.6, 0.6, 1.0, 0.6, 0.6)
    assert (scored.hd, scored.hd95) == (1.0, 1.0)


def test_two_nuclei_found_as_one_by_hand() -> None:
    """Two touching 4 x 4 squares under one id: each truth has IoU 16 / 32, which is not above 0.5."""
    truth = squares((5, 5), (5, 9))
    merged = (truth > 0).astype(np.int32)
    scored = score_image(truth, merged)
    assert scored.dsc == 1
    assert scored.aji == 32 / 64  # the one found nucleus serves both: 16 + 16 shared, 32 + 32 in the unions
    assert scored.aji_plus == 16 / 48  # it serves one; the other adds its 16 px
    assert (scored.dq, scored.sq, scored.pq) == (0, 0, 0)


def test_one_nucleus_found_as_two_by_hand() -> None:
    """A 4 x 4 square found as 4 x 3 and 4 x 1."""
    truth = squares((5, 5))
    split = truth.copy()
    split[5:9, 8] = 2
    scored = score_image(truth, split)
    assert scored.aji == scored.aji_plus == 12 / 20  # union 16 and the unused 4
    assert (scored.dq, scored.sq) == (2 / 3, 0.75)


def test_assignment_prefers_the_larger_total_over_the_best_single_pair() -> None:
    """A shares 6 px with x and 4 with y, B shares 4 with x only; A-x is the best pair, A-y and B-x the best two."""
    truth, labels = np.zeros((1, 40), np.int32), np.zeros((1, 40), np.int32)
    truth[0, :10], truth[0, 10:16] = 1, 2
    labels[0, 4:14], labels[0, :4] = 1, 2
    pairs = overlap(truth, labels)
    chosen = best_pairs(pairs)
    kept = {(int(pairs.truth_id[pairs.truth_index[i]]), int(pairs.found_id[pairs.found_index[i]])) for i in chosen}
    assert kept == {(1, 2), (2, 1)}  # 4/10 + 4/12 = 0.733 against 6/14 + 0 = 0.429
    assert aji_plus(pairs) == 8 / (16 + 14 - 8)


def test_without_any_nucleus_instances_are_undefined_and_pixels_are_right() -> None:
    nothing = np.zeros((9, 9), np.int32)
    scored = score_image(nothing, nothing)
    assert (scored.dsc, scored.iou, scored.precision, scored.recall, scored.hd, scored.hd95) == (1, 1, 1, 1, 0, 0)
    assert all(np.isnan([scored.aji, scored.aji_plus, scored.dq, scored.sq, scored.pq]))


@pytest.mark.parametrize("swap", [False, True])
def test_with_one_side_empty_all_is_zero_and_distances_are_undefined(swap: bool) -> None:
    sides = [squares((1, 1)), np.zeros((24, 24), np.int32)]
    scored = score_image(*(sides[::-1] if swap else sides))
    assert (scored.dsc, scored.iou, scored.precision, scored.recall) == (0, 0, 0, 0)
    assert (scored.aji, scored.aji_plus, scored.dq, scored.sq, scored.pq) == (0, 0, 0, 0, 0)
    assert np.isnan([scored.hd, scored.hd95, scored.hd_1024]).all()
    assert scored.diagonal == pytest.approx(24 * 2**0.5)


def test_precision_and_recall_tell_too_much_from_too_little() -> None:
    small, large = squares((5, 5)) > 0, squares((5, 5), side=8) > 0
    assert pixel_scores(small, large) == (2 * 16 / 80, 16 / 64, 16 / 64, 1.0)
    assert pixel_scores(large, small) == (2 * 16 / 80, 16 / 64, 1.0, 16 / 64)


def test_the_foreground_map_counts_for_pixels_where_it_is_given() -> None:
    truth = squares((5, 5))
    scored = score_image(truth, np.zeros_like(truth), foreground=truth > 0)
    assert (scored.dsc, scored.hd, scored.aji) == (1, 0, 0)


def test_distance_on_the_common_grid_grows_with_the_enlargement() -> None:
    scored = score_image(squares((5, 5), size=32), squares((5, 7), size=32))
    assert (scored.hd, scored.hd_1024) == (2, 64)


def test_component_truth_merges_what_touches_even_at_a_corner() -> None:
    truth = squares((2, 2), (6, 6), (15, 15))
    assert component_truth(truth).max() == 2
