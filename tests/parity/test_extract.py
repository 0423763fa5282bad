"""Extraction by blocks, of any size and in any order, finds exactly the instances of one run over the whole map."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wsipipe.extract import Extracted, centre_pixels, extract_block
from wsipipe.grid import ALL_SIDES, Box, Sides
from wsipipe.instances import SplitRules, split_instances
from wsipipe.segmenter import InstanceWindow


class Splitter:
    """The part of a segmenter that extraction needs."""

    def __init__(self, rules: SplitRules) -> None:
        self.rules = rules

    def instances(self, maps: NDArray[np.uint8], *, mpp: float, sides: Sides) -> InstanceWindow:
        return split_instances(maps[0], maps[1], self.rules, sides)


def make_maps(rng: np.random.Generator, shape: tuple[int, int], n: int) -> NDArray[np.uint8]:
    """Draw n elliptic cones, every fourth a ring, every fifth flat, and some noise."""
    yy, xx = np.mgrid[: shape[0], : shape[1]]
    height = np.zeros(shape)
    for k in range(n):
        x, y = rng.random(2) * (shape[1], shape[0])
        a, b = rng.uniform(2, 9, 2)
        away = np.hypot((xx - x) / a, (yy - y) / b)
        cone = np.abs(away - 1) < 0.3 if k % 4 == 0 else np.clip(1.5 - away, 0, 0.5 if k % 5 == 0 else 1)
        height = np.maximum(height, cone)
    height += rng.choice([0, 0.1]) * rng.random(shape)
    return np.stack([255 * (height > 0.3), np.clip(255 * height, 0, 255)]).astype(np.uint8)


def extract_all(
    maps: NDArray[np.uint8], xs: list[int], ys: list[int], rules: SplitRules, halo: int, seed: int
) -> tuple[NDArray[np.int32], int]:
    """Extract all blocks between the cuts, in random order, and paint them on one map."""
    height, width = maps.shape[1:]
    cores = [Box(x0, y0, x1, y1) for y0, y1 in zip(ys, ys[1:]) for x0, x1 in zip(xs, xs[1:])]  # noqa: B905, RUF007
    painted = np.zeros((height, width), np.int32)
    n = 0
    for k in np.random.default_rng(seed).permutation(len(cores)):
        found = extract_block(
            lambda box: maps[:, box.y0 : box.y1, box.x0 : box.x1],
            cores[k],
            Splitter(rules),
            mpp=0.25,
            width=width,
            height=height,
            halo=halo,
        )
        assert_owned_in_raster_order(found)
        target = painted[found.window.slices(Box(0, 0, width, height))]
        assert not target[found.labels > 0].any(), "an instance is owned once"
        target[found.labels > 0] = found.labels[found.labels > 0] + n
        n += found.n
    return painted, n


def assert_owned_in_raster_order(found: Extracted) -> None:
    present, first = np.unique(found.labels, return_index=True)
    assert present[present > 0].tolist() == list(range(1, found.n + 1))
    assert (np.diff(first[present > 0]) > 0).all()
    assert len(found.class_id) == len(found.class_prob) == found.n + 1


def assert_same_instances(a: NDArray[np.int32], b: NDArray[np.int32]) -> None:
    pairs = np.unique(np.stack([a.ravel(), b.ravel()]), axis=1)
    assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]
    assert ((a == 0) == (b == 0)).all()


def cuts(data: st.DataObject, size: int) -> list[int]:
    return sorted({0, size, *data.draw(st.lists(st.integers(1, size - 1), max_size=4))})


@settings(max_examples=120)
@given(seed=st.integers(0, 2**32 - 1), halo=st.sampled_from([1, 2, 8, 32]), data=st.data())
def test_blocks_equal_one_window_over_the_whole_map(seed, halo, data):
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(2, 90)), int(rng.integers(2, 90)))
    maps = make_maps(rng, shape, int(rng.integers(0, 40)))
    rules = SplitRules(128, int(rng.choice([1, 10, 40])), int(rng.integers(0, 3)), int(rng.choice([1, 12])), 9)
    whole = split_instances(maps[0], maps[1], rules, ALL_SIDES)
    painted, n = extract_all(maps, cuts(data, shape[1]), cuts(data, shape[0]), rules, halo, seed)
    assert n == len(whole.certain) - 1
    assert_same_instances(painted, whole.labels)


def test_a_ring_around_a_block_is_owned_once():
    yy, xx = np.mgrid[:120, :120]
    ring = np.abs(np.hypot(xx - 60, yy - 60) - 50) < 4
    maps = np.stack([255 * ring, 255 * ring]).astype(np.uint8)
    painted, n = extract_all(maps, [0, 50, 70, 120], [0, 50, 70, 120], SplitRules(128, 10, 0, 1, 0), 4, 0)
    assert n == 1
    assert ((painted > 0) == ring).all()


def test_centre_pixels_hold_the_centroid_or_are_the_nearest_pixel():
    labels = np.zeros((9, 12), np.int32)
    labels[1:4, 1:4] = 1  # centre (2, 2)
    labels[1:3, 6:8] = 2  # centroid on the corner (7, 2), half-open: pixel (7, 2)
    labels[5:9, 2] = labels[5, 2:10] = labels[5:9, 9] = 3  # a bow open downwards
    x, y = centre_pixels(labels, 3)
    assert (x[1], y[1]) == (2, 2)
    assert (x[2], y[2]) == (7, 2)
    assert labels[y[3], x[3]] == 3
    assert (x[3], y[3]) == (6, 5)
