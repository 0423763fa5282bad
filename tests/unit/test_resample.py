import math

import numpy as np
import pytest

from wsipipe.resample import WEIGHT_BITS, Axis, Taps, axis_taps, resample


def whole(source: np.ndarray, step_x: float, step_y: float) -> np.ndarray:
    height, width = source.shape[:2]
    cols = axis_taps(Axis(step_x, width), 0, math.ceil(width / step_x - 1e-6))
    rows = axis_taps(Axis(step_y, height), 0, math.ceil(height / step_y - 1e-6))
    (top, bottom), (left, right) = rows.span, cols.span
    return resample(source[top:bottom, left:right], rows, cols)


def area_means(line: np.ndarray, step: float) -> np.ndarray:
    """Integrate a step function over [i step, (i + 1) step), cut at its end: the definition, in float64."""
    total = np.concatenate([[0.0], np.cumsum(line, dtype=np.float64)])
    edges = np.minimum(np.arange(math.ceil(len(line) / step - 1e-6) + 1) * step, len(line))
    return np.diff(np.interp(edges, np.arange(len(line) + 1), total)) / np.diff(edges)


@pytest.mark.parametrize("step", [1.0, 1.0037, 1.5, 2.0, 2.5, 3.996, 4.0003, 7.3, 32.2])
def test_reduction_is_the_exact_area_average(step):
    line = np.random.default_rng(0).integers(0, 256, 197, dtype=np.uint8)
    got = whole(np.repeat(line[None, :, None], 3, axis=2), step, 1.0)[0, :, 1]
    assert np.abs(got - area_means(line, step)).max() < 0.51  # half for rounding, the rest for whole weights


def test_both_axes_have_their_own_step():
    source = np.random.default_rng(1).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    expected = source.reshape(15, 2, 10, 4, 3).mean(axis=(1, 3))
    assert np.abs(whole(source, 4.0, 2.0) - expected).max() < 0.51


def test_step_one_is_a_copy():
    source = np.random.default_rng(2).integers(0, 256, (20, 31, 3), dtype=np.uint8)
    np.testing.assert_array_equal(whole(source, 1.0, 1.0), source)
    assert Axis(1.0, 5).is_copy
    assert not Axis(1.0003, 5).is_copy


def test_enlargement_aligns_px_centres_and_repeats_the_edge():
    line = np.array([10, 110, 210], np.uint8)
    got = whole(np.repeat(line[None, :, None], 3, axis=2), 0.5, 1.0)[0, :, 0]
    # centres of the new px lie at -0.25, 0.25, 0.75, 1.25, 1.75, 2.25 source px
    assert got.tolist() == [10, 35, 85, 135, 185, 210]


@pytest.mark.parametrize("value", [0, 1, 127, 255])
@pytest.mark.parametrize("step", [0.37, 0.9, 1.7, 16.08, 300.0])
def test_a_flat_colour_stays_what_it_is(value, step):
    assert (whole(np.full((40, 50, 3), value, np.uint8), step, step) == value).all()


@pytest.mark.parametrize("step", [0.5, 1.0, 1.333, 4.0003, 33.3])
def test_weights_sum_to_one_exactly(step):
    taps = axis_taps(Axis(step, 100), 0, math.ceil(100 / step) + 2)
    assert (taps.weight.sum(axis=1) == 1 << WEIGHT_BITS).all()
    assert (taps.weight >= 0).all()


def test_px_past_the_end_repeat_the_last_one():
    taps = axis_taps(Axis(4.0, 10), 2, 5)  # px 2 covers 8..12, of which 8 and 9 exist; 3 and 4 lie outside
    assert taps.span == (8, 10)
    source = np.array([100, 200], np.uint8)[None, :, None].repeat(3, axis=2)
    one = Taps(np.zeros(1, np.int64), np.array([[1 << WEIGHT_BITS]], np.int32))
    assert resample(source, one, taps)[0, :, 0].tolist() == [150, 200, 200]


def test_a_source_of_another_size_is_refused():
    taps = axis_taps(Axis(2.0, 10), 0, 5)
    with pytest.raises(ValueError, match=r"\(10, 10, 3\)"):
        resample(np.zeros((9, 10, 3), np.uint8), taps, taps)
