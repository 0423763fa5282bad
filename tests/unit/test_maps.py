import numpy as np
import pytest

from wsipipe.errors import OutputError
from wsipipe.grid import Box, TileGrid
from wsipipe.maps import MapStore

GRID = TileGrid(150, 100, side=60, halo=5)


def test_windows_read_what_cores_wrote_and_zero_elsewhere(tmp_path):
    store = MapStore.create(tmp_path / "maps.zarr", GRID, 2)
    truth = np.random.default_rng(1).integers(0, 255, (2, 100, 150), dtype=np.uint8)
    truth[:, :50, :50] = 0
    for row in range(GRID.rows):
        for col in range(GRID.cols):
            core = GRID.tile(row, col).core
            if (row, col) != (0, 0):
                store.write(core, truth[(slice(None), *core.slices(GRID.whole))])
    for window in (GRID.whole, Box(40, 30, 120, 77), Box(0, 0, 1, 1), Box(149, 99, 150, 100)):
        assert (store.read(window) == truth[(slice(None), *window.slices(GRID.whole))]).all()


def test_a_store_is_reopened_with_its_contents(tmp_path):
    MapStore.create(tmp_path / "m", GRID, 1).write(GRID.tile(0, 0).core, np.full((1, 50, 50), 7, np.uint8))
    again = MapStore.create(tmp_path / "m", GRID, 1)
    assert again.read(Box(0, 0, 50, 50)).min() == 7


def test_a_store_of_another_shape_is_refused(tmp_path):
    MapStore.create(tmp_path / "m", GRID, 1)
    with pytest.raises(OutputError, match="must have shape"):
        MapStore.create(tmp_path / "m", GRID, 3)


def test_maps_of_the_wrong_size_are_refused(tmp_path):
    store = MapStore.create(tmp_path / "m", GRID, 1)
    with pytest.raises(ValueError, match="must have shape"):
        store.write(GRID.tile(0, 0).core, np.zeros((1, 60, 60), np.uint8))
