import numpy as np
import pytest
from scipy import ndimage
from support_hover import hover_maps
from support_nuclei import draw_labels

from wsipipe.grid import ALL_SIDES, Box, sides_of
from wsipipe.integrations.tiatoolboxhover import HoverRules, edge_energy, hover_instances

RULES = HoverRules.at_scale(1, 4)


def touching(n: int = 60, side: int = 200) -> np.ndarray:
    """Cells of a grid that touch along straight lines, with gaps here and there; labels 1..n."""
    labels = np.zeros((side, side), np.int32)
    k = 0
    for row in range(0, side - 24, 26):
        for col in range(0, side - 24, 24):
            k += 1
            labels[row : row + 24, col : col + 24 - (k % 3 == 0)] = k
    return labels


def test_rules_are_tiatoolboxs_at_both_scales():
    assert HoverRules.at_scale(1, 6) == HoverRules(ksize=21, min_marker_px=10, n_types=6)
    assert HoverRules.at_scale(0.5, 3) == HoverRules(ksize=11, min_marker_px=3, n_types=3)


def test_nuclei_that_touch_are_told_apart_where_the_distances_fall():
    truth = touching()
    found = hover_instances(hover_maps(truth), HoverRules.at_scale(1, 0), ALL_SIDES)
    assert len(found.certain) - 1 == truth.max()
    for label in range(1, truth.max() + 1):
        mask = truth == label
        counts = np.bincount(found.labels[mask])
        assert counts.argmax() > 0
        assert counts.max() > 0.9 * mask.sum()


def test_energy_is_high_between_touching_nuclei_and_low_inside():
    truth = touching()
    _, horizontal, vertical = hover_maps(truth)
    energy = edge_energy(horizontal, vertical, 21)
    assert energy[10, 22:26].max() > 0.9
    assert energy[10:14, 10:14].max() < 0.4


def test_a_nucleus_gets_the_type_of_most_of_its_pixels_and_their_share():
    truth = np.zeros((60, 120), np.int32)
    truth[20:40, 10:30], truth[20:40, 50:70], truth[20:40, 90:110] = 1, 2, 3
    types = np.zeros_like(truth)
    types[20:40, 10:25], types[20:40, 25:30] = 2, 1  # 3/4 of it
    types[20:25, 50:70] = 3  # 1/4, the rest is background
    maps = np.concatenate([hover_maps(truth), types[None].astype(np.uint8)])
    found = hover_instances(maps, RULES, ALL_SIDES)
    assert found.class_id.tolist() == [0, 2, 3, 0]
    assert found.class_prob[1:3] == pytest.approx([0.75, 0.25], abs=0.02)
    assert np.isnan(found.class_prob[[0, 3]]).all()


def test_specks_below_ten_pixels_are_no_nuclei():
    maps = np.zeros((3, 40, 40), np.uint8)
    maps[0, 5:8, 5:8] = maps[0, 20:30, 20:30] = 255
    maps[1:] = 128
    assert len(hover_instances(maps, HoverRules.at_scale(1, 0), ALL_SIDES).certain) == 2


def test_no_foreground_is_no_nucleus():
    found = hover_instances(np.zeros((4, 30, 20), np.uint8), RULES, ALL_SIDES)
    assert found.labels.shape == (30, 20)
    assert len(found.certain) == len(found.class_id) == 1


def test_one_region_around_another_does_not_join_it():
    maps = np.full((3, 80, 80), 128, np.uint8)
    ring = np.hypot(*(np.mgrid[:80, :80] - 40)) < 38
    ring &= np.hypot(*(np.mgrid[:80, :80] - 40)) > 22
    maps[0] = np.where(ring | (np.hypot(*(np.mgrid[:80, :80] - 40)) < 10), 255, 0)
    found = hover_instances(maps, HoverRules.at_scale(1, 0), ALL_SIDES)
    assert found.labels[40, 40] > 0
    assert found.labels[40, 10] > 0
    assert found.labels[40, 40] != found.labels[40, 10]


@pytest.mark.parametrize("seed", range(6))
def test_what_is_certain_in_a_window_is_so_on_the_whole_map(seed):
    rng = np.random.default_rng(seed)
    truth = touching() if seed % 2 else draw_labels(220, 200, 120, seed)
    types = rng.integers(0, 4, truth.shape).astype(np.uint8)
    noisy = hover_maps(truth).astype(np.int16) + rng.integers(-30, 31, (3, *truth.shape))
    maps = np.concatenate([np.clip(noisy, 0, 255).astype(np.uint8), types[None]])
    whole = hover_instances(maps, RULES, ALL_SIDES)
    height, width = truth.shape
    some = False
    for _ in range(6):
        y0, x0 = (int(rng.integers(0, size // 2)) for size in (height, width))
        box = Box(
            x0, y0, min(width, x0 + int(rng.integers(60, width))), min(height, y0 + int(rng.integers(60, height)))
        )
        window = np.ascontiguousarray(maps[:, box.y0 : box.y1, box.x0 : box.x1])
        found = hover_instances(window, RULES, sides_of(box, width=width, height=height))
        there = whole.labels[box.y0 : box.y1, box.x0 : box.x1]
        assert not there[found.labels == 0].any()
        for label in np.flatnonzero(found.certain)[1:]:
            some = True
            ids = np.unique(there[found.labels == label])
            assert len(ids) == 1
            assert (whole.labels == ids[0]).sum() == (found.labels == label).sum()
            assert whole.class_id[ids[0]] == found.class_id[label]
            assert whole.class_prob[ids[0]] == pytest.approx(found.class_prob[label], nan_ok=True)
    assert some


def test_labels_are_connected_and_in_raster_order():
    found = hover_instances(hover_maps(draw_labels(300, 300, 150, 3)), HoverRules.at_scale(1, 0), ALL_SIDES)
    ids, first = np.unique(found.labels, return_index=True)
    assert (np.diff(first[ids > 0]) > 0).all()
    for label, box in enumerate(ndimage.find_objects(found.labels), 1):
        assert ndimage.label(found.labels[box] == label)[1] == 1
