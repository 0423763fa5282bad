"""Splitting maps into instances: analytic cases, and what a window may call certain."""

import numpy as np
import pytest
from numpy.typing import NDArray

from wsipipe.grid import ALL_SIDES, Sides
from wsipipe.instances import SplitRules, component_window, split_instances, split_parts
from wsipipe.relief import UNIT, binomial_weights, fill_holes, smooth

NO_SIDES = Sides(left=False, top=False, right=False, bottom=False)
RULES = SplitRules(threshold=128, h=10, smooth_px=0, min_area_px=1, fill_holes_px=0)


def cones(*centres: tuple[float, float], shape: tuple[int, int] = (60, 100), radius: float = 12) -> NDArray[np.uint8]:
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    distance = np.min([np.hypot(xx - x, yy - y) for x, y in centres], axis=0)
    return (255 * np.clip(1 - distance / (2 * radius), 0, 1)).astype(np.uint8)


def split(height: NDArray[np.uint8], rules: SplitRules = RULES, sides: Sides = ALL_SIDES) -> NDArray[np.int32]:
    found = split_instances(np.where(height > 127, np.uint8(255), np.uint8(0)), height, rules, sides)
    return found.labels


def test_touching_cones_become_two_instances_cut_at_the_valley():
    labels = split(cones((30, 30), (48, 30)))
    assert labels.max() == 2
    assert set(labels[30, 28:38]) == {1}
    assert set(labels[30, 41:50]) == {2}


def test_a_saddle_shallower_than_h_does_not_split():
    height = cones((30, 30), (48, 30))
    dip = int(height[30, 30]) - int(height[30, 39])
    assert split(height, SplitRules(128, dip, 0, 1, 0)).max() == 2
    assert split(height, SplitRules(128, dip + 1, 0, 1, 0)).max() == 1


def test_a_saturated_plateau_is_one_instance():
    height = np.zeros((40, 40), np.uint8)
    height[5:30, 5:10] = height[25:30, 5:35] = height[5:30, 30:35] = 255  # a U has many corners
    assert split(height).max() == 1


def test_pixels_that_meet_at_a_corner_only_are_two_instances():
    height = np.zeros((6, 6), np.uint8)
    height[1:3, 1:3] = height[3:5, 3:5] = 200
    assert split(height).max() == 2


def test_small_instances_are_dropped_and_the_rest_numbered_in_raster_order():
    height = np.zeros((20, 20), np.uint8)
    height[2:4, 12:14] = height[1:8, 3:6] = height[12:18, 2:15] = 200
    labels = split(height, SplitRules(128, 10, 0, 5, 0))
    assert labels.max() == 2
    assert labels[1, 3] == 1
    assert labels[12, 2] == 2
    assert labels[2, 12] == 0


def test_holes_are_filled_up_to_their_limit_but_not_bays_of_the_map_edge():
    mask = np.ones((12, 12), np.uint8)
    mask[3, 3] = mask[6:8, 6:9] = mask[0, 5] = 0
    filled = fill_holes(mask, 5, ALL_SIDES)
    assert filled[3, 3] == 1
    assert not filled[6:8, 6:9].any()
    assert filled[0, 5] == 0


def test_background_at_an_open_side_may_be_a_hole():
    mask = np.ones((12, 12), np.uint8)
    mask[0, 5] = 0
    assert fill_holes(mask, 5, NO_SIDES)[0, 5] == 2
    assert fill_holes(mask, 0, NO_SIDES)[0, 5] == 0


@pytest.mark.parametrize("radius", [0, 1, 2, 4, 5, 8])
def test_smoothing_is_the_rounded_binomial_blur(radius):
    height = np.random.default_rng(radius).integers(0, 256, (23, 31)).astype(np.uint8)
    weights = binomial_weights(radius).astype(float) / 4.0**radius
    padded = np.pad(height.astype(float), radius, mode="edge")
    expected = np.apply_along_axis(lambda v: np.convolve(v, weights, "valid"), 0, padded)
    expected = np.apply_along_axis(lambda v: np.convolve(v, weights, "valid"), 1, expected) * UNIT
    assert np.abs(smooth(height, binomial_weights(radius)) - expected).max() <= 1.5


def test_smoothing_keeps_a_saturated_map_saturated():
    for radius in range(9):
        full = np.full((9, 9), 255, np.uint8)
        assert (smooth(full, binomial_weights(radius)) == 255 * UNIT).all()


def test_with_all_sides_closed_everything_is_certain():
    height = cones((30, 30), (48, 30), (1, 1))
    found = split_instances(height, height, SplitRules(128, 10, 2, 20, 20), ALL_SIDES)
    assert found.certain.all()
    assert len(found.class_id) == len(found.class_prob) == found.labels.max() + 1
    assert np.isnan(found.class_prob).all()


def test_an_instance_far_from_open_sides_is_certain_and_one_at_a_side_is_not():
    height = cones((10, 30), (50, 30), shape=(60, 100), radius=10)
    height[:, :6] = np.maximum(height[:, :6], 150)
    found = split_instances(height, height, SplitRules(128, 10, 2, 1, 0), NO_SIDES)
    assert found.certain[found.labels[30, 50]]
    assert not found.certain[found.labels[30, 2]]


def test_uncertainty_stays_near_the_border_of_a_dense_field():
    centres = [(x + 6 * (row % 2), y) for row, y in enumerate(range(6, 200, 14)) for x in range(6, 200, 14)]
    height = cones(*centres, shape=(200, 200), radius=9)
    foreground = np.where(height > 60, np.uint8(255), np.uint8(0))
    found = split_instances(foreground, height, SplitRules(128, 10, 2, 20, 0), NO_SIDES)
    inner = found.labels[45:-45, 45:-45]
    assert found.certain[inner].all()
    assert len(np.unique(inner)) > 50


@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (0, 7), (5, 1)])
@pytest.mark.parametrize("value", [0, 255])
def test_any_window_size_works(shape, value):
    map_ = np.full(shape, value, np.uint8)
    for sides in (ALL_SIDES, NO_SIDES):
        found = split_instances(map_, map_, SplitRules(128, 10, 2, 1, 3), sides)
        assert found.labels.shape == shape
        assert len(found.certain) == found.labels.max(initial=0) + 1


def test_bad_rules_and_maps_are_refused():
    with pytest.raises(ValueError, match="threshold and h"):
        SplitRules(0, 10, 2, 1, 3)
    with pytest.raises(ValueError, match="smooth_px"):
        SplitRules(128, 10, 9, 1, 3)
    with pytest.raises(ValueError, match="areas"):
        SplitRules(128, 10, 2, -1, 3)
    with pytest.raises(ValueError, match="uint8 of one shape"):
        split_instances(np.zeros((3, 3), np.uint8), np.zeros((3, 4), np.uint8), RULES, ALL_SIDES)


def test_component_labels_are_certain_where_their_component_is_whole():
    foreground = np.zeros((10, 12), bool)
    foreground[0:4, 1:5] = foreground[6:9, 6:10] = True
    labels = np.zeros((10, 12), np.int32)
    labels[1:4, 1:5] = 7
    labels[6:9, 6:8] = 3
    labels[6:9, 8:10] = 9
    found = component_window(labels, foreground, NO_SIDES)
    assert found.certain[found.labels[7, 6]]
    assert found.certain[found.labels[7, 9]]
    assert found.labels[7, 6] != found.labels[7, 9]
    assert not found.certain[found.labels[2, 2]]
    assert found.labels[0, 1] > 0, "unlabelled foreground of a cut component is unknown, not background"
    assert component_window(labels, foreground, ALL_SIDES).labels[0, 1] == 0
    assert component_window(labels, foreground, ALL_SIDES).certain.all()


def test_labels_in_parts_become_several_labels():
    labels = np.array([[5, 0, 5, 5], [0, 5, 0, 5], [2, 2, 0, 0]], np.int32)
    parts, first = split_parts(labels)
    assert parts.tolist() == [[1, 0, 2, 2], [0, 3, 0, 2], [4, 4, 0, 0]]
    assert first.tolist() == [0, 2, 5, 8]
