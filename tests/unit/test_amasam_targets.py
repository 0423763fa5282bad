"""Targets against analytic shapes and SciPy's distance transform."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import distance_transform_edt

from amasam.targets import MAP_NAMES, boundary_map, make_targets, offset_maps, squared_distance


def disk(radius: int = 10, size: int = 41) -> np.ndarray:
    rows, cols = np.indices((size, size)) - size // 2
    return (rows**2 + cols**2 <= radius**2).astype(np.int32)


def brute_squared(labels: np.ndarray) -> np.ndarray:
    """By looking at every pixel of another label."""
    out = np.zeros(labels.shape)
    rows, cols = np.indices(labels.shape)
    for label in np.unique(labels[labels > 0]):
        others = np.argwhere(labels != label)
        near = np.min([(rows - r) ** 2 + (cols - c) ** 2 for r, c in others], axis=0)
        out[labels == label] = near[labels == label]
    return out


@settings(max_examples=60)
@given(arrays(np.int32, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 3)))
def test_distance_is_to_the_nearest_pixel_of_any_other_label(labels: np.ndarray) -> None:
    if len(np.unique(labels)) > 1:
        np.testing.assert_array_equal(squared_distance(labels), brute_squared(labels))


def test_distance_of_one_label_is_scipys() -> None:
    labels = disk()
    np.testing.assert_allclose(np.sqrt(squared_distance(labels)), distance_transform_edt(labels), rtol=1e-6)


def test_every_nucleus_peaks_at_one_whatever_its_size() -> None:
    labels = np.zeros((60, 60), np.int32)
    labels[2:8, 2:8], labels[20:50, 20:50], labels[55, 55] = 1, 2, 3
    distance = make_targets(labels, ["distance"]).maps[0]
    assert [distance[labels == label].max() for label in (1, 2, 3)] == [1, 1, 1]
    assert distance[labels == 0].max() == 0
    assert distance[20, 20] == pytest.approx(1 / 15, abs=1e-3)


def test_touching_nuclei_are_parted_by_low_distance_and_boundary() -> None:
    labels = np.zeros((20, 30), np.int32)
    labels[5:15, 5:15], labels[5:15, 15:25] = 1, 2
    distance, boundary = make_targets(labels, ["distance", "boundary"]).maps
    assert distance[10, 14] == distance[10, 15] == pytest.approx(0.2, abs=1e-3)
    assert boundary[10, 10:20].tolist() == [0, 0, 0, 0, 1, 1, 0, 0, 0, 0]


def test_boundary_is_an_inner_rim_one_pixel_wide_along_straight_edges() -> None:
    labels = np.zeros((12, 12), np.int32)
    labels[2:10, 2:10] = 7
    assert boundary_map(squared_distance(labels)).sum() == 8 * 8 - 6 * 6


def test_a_margin_keeps_the_distances_of_nuclei_cut_by_the_patch() -> None:
    whole = make_targets(disk(), ["distance", "boundary"])
    cut = make_targets(disk(), ["distance", "boundary"], margin=15)
    np.testing.assert_array_equal(cut.maps, whole.maps[:, 15:-15, 15:-15])
    np.testing.assert_array_equal(cut.foreground, whole.foreground[15:-15, 15:-15])


def test_the_windows_edge_is_no_boundary() -> None:
    labels = disk()[20:]  # the lower half, middle row on the edge
    distance, boundary = make_targets(labels, ["distance", "boundary"]).maps
    assert distance[0].argmax() == 20
    assert boundary[0, 12:29].max() == 0
    full = make_targets(np.ones((9, 9), np.int32), ["distance", "boundary"]).maps
    assert (full[0] == 1).all()
    assert (full[1] == 0).all()


def test_offsets_run_from_minus_one_to_one_across_a_nucleus() -> None:
    labels = np.zeros((20, 20), np.int32)
    labels[5:10, 4:15] = 3
    horizontal, vertical = offset_maps(labels)
    np.testing.assert_allclose(horizontal[7, 4:15], np.linspace(-1, 1, 11), atol=1e-6)
    np.testing.assert_allclose(vertical[5:10, 8], np.linspace(-1, 1, 5), atol=1e-6)
    assert np.abs(offset_maps(labels)[:, labels == 0]).max() == 0


@pytest.mark.parametrize("names", [(), ("boundary",), MAP_NAMES])
def test_maps_come_in_the_order_asked_for_also_without_any_nucleus(names: tuple[str, ...]) -> None:
    targets = make_targets(np.zeros((8, 6), np.int32), names)
    assert targets.maps.shape == (len(names), 8, 6)
    assert (targets.maps.dtype, targets.foreground.dtype) == (np.float16, np.uint8)
    assert not targets.maps.any()
    assert not targets.foreground.any()
    swapped = make_targets(disk(), ("boundary", "distance")).maps
    np.testing.assert_array_equal(swapped[::-1], make_targets(disk(), ("distance", "boundary")).maps)
