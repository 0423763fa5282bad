"""From maps to instances: units, heights, windows."""

import numpy as np
import pytest

from amasam.postprocess import PostConfig, find_instances, height_map
from wsipipe.errors import ModelError
from wsipipe.grid import ALL_SIDES, Sides

NAMES = ("foreground", "distance", "boundary")


def two_discs(mpp: float = 0.25) -> np.ndarray:
    """Maps of two overlapping discs of 4 um radius, 6 um apart; uint8 (3, H, W)."""
    side = round(20 / mpp)
    y, x = (np.indices((side, side)) + 0.5) * mpp
    distance = np.maximum(*(1 - np.hypot(x - cx, y - 10) / 4 for cx in (7, 13)))
    inside = distance > 0
    edge = inside & (distance < 0.15)
    return (np.stack([inside, np.clip(distance, 0, 1), edge]) * 255).astype(np.uint8)


@pytest.mark.parametrize("height", ["distance", "distance_boundary"])
@pytest.mark.parametrize("mpp", [0.25, 0.5])
def test_touching_discs_are_two_at_any_mpp(height: str, mpp: float) -> None:
    found = find_instances(two_discs(mpp), NAMES, PostConfig(height=height), mpp=mpp)
    areas = np.bincount(found.labels.ravel())[1:] * mpp**2
    assert len(areas) == 2
    assert areas == pytest.approx([46, 46], abs=4)  # discs of 50 um2 less half of their lens


def test_without_a_height_map_touching_discs_are_one() -> None:
    found = find_instances(two_discs(), NAMES, PostConfig(height="foreground"), mpp=0.25)
    assert found.labels.max() == 1


def test_a_valley_shallower_than_h_splits_nothing() -> None:
    assert find_instances(two_discs(), NAMES, PostConfig(h=0.9), mpp=0.25).labels.max() == 1


def test_instances_below_the_least_area_are_dropped() -> None:
    assert find_instances(two_discs(), NAMES, PostConfig(min_area_um2=60), mpp=0.25).labels.max() == 0


def test_boundaries_lower_the_height_in_exact_integers() -> None:
    maps = np.array([[[255]], [[200]], [[51]]], np.uint8)
    assert height_map(maps, NAMES, "distance_boundary").tolist() == [[160]]  # 200 * (1 - 0.2)
    assert height_map(maps, NAMES, "distance").tolist() == [[200]]


def test_a_missing_map_is_named() -> None:
    with pytest.raises(ModelError, match="needs the map 'boundary'"):
        height_map(np.zeros((2, 1, 1), np.uint8), NAMES[:2], "distance_boundary")


def test_certain_labels_of_a_window_are_those_of_the_whole_map() -> None:
    maps = np.tile(two_discs(), (1, 2, 2))
    whole = find_instances(maps, NAMES, PostConfig(), mpp=0.25).labels
    part = find_instances(maps[:, :, :110], NAMES, PostConfig(), mpp=0.25, sides=Sides(True, True, False, True))
    for label in np.flatnonzero(part.certain)[1:]:
        pixels = part.labels == label
        (truth,) = np.unique(whole[:, :110][pixels])
        assert np.array_equal(whole == truth, np.pad(pixels, ((0, 0), (0, whole.shape[1] - 110))))
    assert part.certain.sum() >= 5


@pytest.mark.parametrize("wrong", [{"threshold": 0.0}, {"h": 1.5}, {"smooth_um": -1.0}])
def test_impossible_parameters_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        PostConfig(**wrong)


def test_empty_maps_have_no_instances() -> None:
    found = find_instances(np.zeros((3, 5, 7), np.uint8), NAMES, PostConfig(), mpp=0.25, sides=ALL_SIDES)
    assert found.labels.shape == (5, 7)
    assert not found.labels.any()
