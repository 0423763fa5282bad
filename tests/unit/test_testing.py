import time

import numpy as np
import pytest
from hypothesis import given

from wsipipe.grid import Box, TileGrid
from wsipipe.segmenter import Segmenter
from wsipipe.testing import SegmenterContract, ToySegmenter, label_maps, tile_grids, windows


class TestToySegmenter(SegmenterContract):
    def make(self) -> Segmenter:
        return ToySegmenter()


def test_the_toy_fails_at_the_tile_that_was_asked_for():
    toy = ToySegmenter(tile=32, fail_at=3)
    images = np.zeros((2, 3, 32, 32), np.uint8)
    toy.maps(images)
    with pytest.raises(RuntimeError, match="tile 3"):
        toy.maps(images)


def test_the_toy_sleeps_for_each_tile():
    start = time.perf_counter()
    ToySegmenter(tile=8, sleep_s=0.02).maps(np.zeros((3, 3, 8, 8), np.uint8))
    assert time.perf_counter() - start >= 0.06


class Forgetful(ToySegmenter):
    """Its maps depend on the order in which they were asked for."""

    def maps(self, images):
        maps = super().maps(images)
        maps[:, :, 0, 0] = self.n_tiles
        return maps


class Overconfident(ToySegmenter):
    """It calls every label certain."""

    def instances(self, maps, *, mpp, sides):
        found = super().instances(maps, mpp=mpp, sides=sides)
        found.certain[:] = True
        return found


def test_the_contract_catches_maps_that_depend_on_the_batch():
    class Contract(SegmenterContract):
        def make(self):
            return Forgetful()

    with pytest.raises(AssertionError):
        Contract().test_an_image_does_not_depend_on_its_batch()


def test_the_contract_catches_false_certainty():
    class Contract(SegmenterContract):
        def make(self):
            return Overconfident()

    with pytest.raises(AssertionError):
        Contract().test_what_is_certain_in_a_window_is_so_on_the_whole_map()


@given(label_maps(max_side=12, max_label=3), tile_grids(), windows(30, 20))
def test_strategies_draw_what_they_promise(labels, grid, window):
    assert labels.dtype == np.int32
    assert 1 <= min(labels.shape) <= max(labels.shape) <= 12
    assert 0 <= labels.min() <= labels.max() <= 3
    assert isinstance(grid, TileGrid)
    assert grid.core >= 8
    assert not window.is_empty
    assert Box(0, 0, 30, 20).contains(window)
