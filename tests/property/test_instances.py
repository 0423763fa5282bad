"""A label that a window calls certain is a label of the whole map, on maps made to break that."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wsipipe.grid import ALL_SIDES, Box, sides_of
from wsipipe.instances import SplitRules, component_window, split_instances, split_parts

rules = st.builds(
    SplitRules,
    threshold=st.just(128),
    h=st.sampled_from([1, 2, 8, 30, 120]),
    smooth_px=st.integers(0, 3),
    min_area_px=st.sampled_from([0, 1, 5, 20]),
    fill_holes_px=st.sampled_from([0, 1, 3, 10, 60]),
)


def noise(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Few levels, many levels, plateaus, saturation."""
    top = int(rng.choice([2, 4, 40, 256, 500]))
    return np.minimum(rng.integers(0, top, shape), 255).astype(np.uint8)


def drawn(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Draw overlapping cones, some with flat tops, some joined by thin bridges."""
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    height = np.zeros(shape)
    for _ in range(int(rng.integers(1, 25))):
        x, y = rng.random(2) * (shape[1], shape[0])
        radius = rng.uniform(2, 8)
        height = np.maximum(height, np.clip(rng.uniform(1, 2) * (1.5 - np.hypot(xx - x, yy - y) / radius), 0, 1))
    height[int(rng.integers(shape[0])), :] = np.maximum(height[0], rng.choice([0.0, 0.6]))
    return (255 * height).astype(np.uint8)


def make_maps(seed: int, is_drawn: bool) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 45)), int(rng.integers(1, 45)))
    height = (drawn if is_drawn else noise)(rng, shape)
    foreground = height if is_drawn and rng.random() < 0.5 else (255 * (rng.random(shape) < rng.uniform(0.3, 1)))
    return np.ascontiguousarray(foreground).astype(np.uint8), height


def draw_window(data: st.DataObject, shape: tuple[int, int]) -> Box:
    y0 = data.draw(st.integers(0, shape[0] - 1))
    x0 = data.draw(st.integers(0, shape[1] - 1))
    y1 = data.draw(st.integers(y0 + 1, shape[0]))
    x1 = data.draw(st.integers(x0 + 1, shape[1]))
    return Box(x0, y0, x1, y1)


def assert_sound(whole: NDArray[np.int32], labels: NDArray[np.int32], certain: NDArray[np.bool_], box: Box) -> None:
    inside = whole[box.y0 : box.y1, box.x0 : box.x1]
    assert not inside[labels == 0].any(), "a pixel without label has none in the whole map"
    for label in range(1, len(certain)):
        if certain[label]:
            theirs = np.unique(inside[labels == label])
            assert len(theirs) == 1
            assert theirs[0] > 0
            assert (whole == theirs[0]).sum() == (labels == label).sum()


@settings(max_examples=400)
@given(seed=st.integers(0, 2**32 - 1), is_drawn=st.booleans(), rules=rules, data=st.data())
def test_certain_labels_of_a_window_are_labels_of_the_whole_map(seed, is_drawn, rules, data):
    foreground, height = make_maps(seed, is_drawn)
    whole = split_instances(foreground, height, rules, ALL_SIDES)
    assert whole.certain.all()
    box = draw_window(data, foreground.shape)
    cut = np.s_[box.y0 : box.y1, box.x0 : box.x1]
    sides = sides_of(box, width=foreground.shape[1], height=foreground.shape[0])
    found = split_instances(foreground[cut], height[cut], rules, sides)
    assert_sound(whole.labels, found.labels, found.certain, box)


@settings(max_examples=100)
@given(seed=st.integers(0, 2**32 - 1), is_drawn=st.booleans(), rules=rules)
def test_labels_are_connected_numbered_in_raster_order_and_large_enough(seed, is_drawn, rules):
    foreground, height = make_maps(seed, is_drawn)
    labels = split_instances(foreground, height, rules, ALL_SIDES).labels
    parts, _ = split_parts(labels)
    assert (parts == labels).all()
    assert (np.bincount(labels.ravel())[1:] >= rules.min_area_px).all()


@settings(max_examples=100)
@given(seed=st.integers(0, 2**32 - 1), data=st.data())
def test_component_windows_are_sound(seed, data):
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 25)), int(rng.integers(1, 25)))
    foreground = rng.random(shape) < rng.uniform(0.2, 0.7)

    def post_process(part: NDArray[np.bool_]) -> NDArray[np.int32]:
        """Label 4-connected parts, drop single pixels: local to components, as `component_window` asks."""
        labels, _ = split_parts(part.astype(np.int32))
        return np.where(np.bincount(labels.ravel())[labels] > 1, labels, 0).astype(np.int32)

    whole = component_window(post_process(foreground), foreground, ALL_SIDES)
    box = draw_window(data, shape)
    part = foreground[box.y0 : box.y1, box.x0 : box.x1]
    found = component_window(post_process(part), part, sides_of(box, width=shape[1], height=shape[0]))
    assert_sound(whole.labels, found.labels, found.certain, box)
