import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wsipipe.score import Overlap, combine, match, overlap

label_maps = st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(
    lambda shape: st.tuples(
        arrays(np.int32, shape, elements=st.integers(0, 4)), arrays(np.int32, shape, elements=st.integers(0, 4))
    )
)


def blank(height=10, width=20):
    return np.zeros((height, width), np.int32)


def two_squares():
    labels = blank()
    labels[1:5, 1:5] = 1
    labels[1:5, 8:12] = 2
    return labels


def brute_force(truth, found):
    """The definitions word for word, with a mask per object."""
    ts, ps = ([side == i for i in np.unique(side) if i] for side in (truth, found))
    if not ts and not ps:
        return math.nan, math.nan, math.nan
    iou = np.array([[(t & p).sum() / (t | p).sum() for p in ps] for t in ts]).reshape(len(ts), len(ps))
    shared = union = 0
    chosen = set()
    for i, t in enumerate(ts):
        if len(ps) and iou[i].max() > 0:
            j = int(iou[i].argmax())
            chosen.add(j)
            shared += (t & ps[j]).sum()
            union += (t | ps[j]).sum()
        else:
            union += t.sum()
    union += sum(p.sum() for j, p in enumerate(ps) if j not in chosen)
    hits = iou[iou > 0.5]
    dq = len(hits) / (len(hits) + (len(ps) - len(hits)) / 2 + (len(ts) - len(hits)) / 2)
    return shared / union, dq, hits.mean() if len(hits) else 0.0


def test_a_perfect_map_scores_one_whatever_its_ids():
    found = two_squares()
    found[found == 1] = 4_000_000
    result = match(two_squares(), found)
    assert (result.n_truth, result.n_found, result.count_error) == (2, 2, 0)
    assert {result.precision, result.recall, result.f1, result.dq, result.sq, result.pq, result.aji, result.dsc} == {1}


def test_a_shift_by_one_px_has_the_iou_worked_out_by_hand():
    result = match(two_squares(), np.roll(two_squares(), 1, axis=1))
    # 4 x 4 squares that share 4 x 3: IoU = 12 / 20
    assert result.sq == result.aji == pytest.approx(0.6)
    assert result.dsc == pytest.approx(0.75)
    assert (result.dq, result.pq) == (1, pytest.approx(0.6))


def test_a_merged_pair_matches_nothing():
    truth = blank()
    truth[1:5, 1:5] = 1
    truth[1:5, 5:9] = 2
    result = match(truth, (truth > 0).astype(np.int32))
    # each true half has IoU 16 / 32 with the merged one: not > 0.5; AJI takes it for both: 32 / (32 + 32)
    assert (result.f1, result.pq, result.aji, result.dsc, result.count_error) == (0, 0, 0.5, 1, -0.5)


def test_a_split_object_keeps_its_larger_part():
    truth = blank()
    truth[0:10, 0:10] = 1
    found = truth.copy()
    found[0:4] *= 2
    result = match(truth, found)
    # the part of 60 px is matched, the part of 40 px is one too many: AJI = 60 / (100 + 40)
    assert (result.precision, result.recall, result.sq) == (0.5, 1, 0.6)
    assert result.aji == pytest.approx(60 / 140)


def test_an_iou_of_exactly_one_half_is_no_match():
    truth, found = blank(), blank()
    truth[0, 0:4] = 1
    found[0, 0:2] = 1
    assert match(truth, found).dq == 0


@pytest.mark.parametrize("swap", [False, True])
def test_one_empty_side_scores_zero(swap):
    pair = (blank(), two_squares())
    result = match(*(pair[::-1] if swap else pair))
    assert {result.precision, result.recall, result.f1, result.dq, result.sq, result.pq, result.aji, result.dsc} == {0}
    assert result.count_error == -1 if swap else math.isnan(result.count_error)


def test_two_empty_maps_are_left_out_of_instance_means():
    result = match(blank(), blank())
    assert all(math.isnan(value) for value in (result.aji, result.dq, result.sq, result.pq))
    assert (result.precision, result.recall, result.f1, result.dsc, result.count_error) == (1, 1, 1, 1, 0)


def test_maps_of_different_shape_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        overlap(blank(), blank(3, 3))


def test_ids_up_to_the_last_uint32_are_kept():
    truth = two_squares().astype(np.uint32)
    truth[truth == 2] = 2**32 - 1
    result = overlap(truth, truth)
    assert result.truth_id.tolist() == result.found_id.tolist() == [1, 2**32 - 1]
    assert result.area.tolist() == [16, 16]


def test_symmetric_scores_do_not_care_which_side_is_the_truth():
    truth, found = two_squares(), np.roll(two_squares(), 2, axis=0)
    found[9, 15:19] = 7
    one, other = match(truth, found), match(found, truth)
    assert (one.dq, one.sq, one.dsc) == (other.dq, other.sq, other.dsc)
    assert (one.precision, one.recall) == (other.recall, other.precision)


@given(label_maps)
def test_scores_equal_the_brute_force_version(pair):
    result = match(*pair)
    np.testing.assert_allclose((result.aji, result.dq, result.sq), brute_force(*pair), rtol=1e-12)


@given(label_maps, st.integers(0, 12))
def test_overlaps_of_windows_add_up_to_that_of_the_map(pair, cut):
    truth, found = pair
    parts = combine([overlap(truth[:, :cut], found[:, :cut]), overlap(truth[:, cut:], found[:, cut:])])
    whole = overlap(truth, found)
    for name in Overlap.__slots__:
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))
