import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsipipe.grid import Box, Sides, TileGrid, grow, plan_blocks, sides_of

grids = st.builds(
    TileGrid,
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    side=st.integers(24, 60),
    halo=st.integers(0, 11),
    block_tiles=st.integers(1, 4),
)


def all_tissue(grid: TileGrid) -> np.ndarray:
    return np.ones((grid.rows, grid.cols), bool)


@given(grids)
def test_each_pixel_has_one_owning_tile(grid):
    owners = np.zeros((grid.height, grid.width), int)
    for row in range(grid.rows):
        for col in range(grid.cols):
            owners[grid.tile(row, col).core.slices(grid.whole)] += 1
    assert (owners == 1).all()


@given(grids)
def test_each_pixel_has_one_owning_block_and_a_block_covers_its_tiles(grid):
    owners = np.zeros((grid.height, grid.width), int)
    for block in plan_blocks(grid, all_tissue(grid)):
        owners[block.core.slices(grid.whole)] += 1
        assert all(block.core.contains(tile.core) for tile in block.tiles)
    assert (owners == 1).all()


@given(grids, st.data())
def test_block_indices_of_a_window_are_the_blocks_that_meet_it(grid, data):
    x0 = data.draw(st.integers(-5, grid.width))
    y0 = data.draw(st.integers(-5, grid.height))
    window = Box(x0, y0, x0 + data.draw(st.integers(1, 200)), y0 + data.draw(st.integers(1, 200)))
    blocks = plan_blocks(grid, all_tissue(grid))
    meeting = [block.index for block in blocks if not block.core.intersect(window).is_empty]
    assert list(grid.block_indices(window)) == meeting


def test_a_tile_reads_its_core_with_a_full_halo_even_beyond_the_edge():
    grid = TileGrid(100, 80, side=40, halo=5)
    tile = grid.tile(0, 0)
    assert tile.core == Box(0, 0, 30, 30)
    assert tile.read == Box(-5, -5, 35, 35)
    assert grid.tile(2, 3).core == Box(90, 60, 100, 80)
    assert (grid.tile(2, 3).read.width, grid.tile(2, 3).read.height) == (40, 40)


def test_blocks_without_tissue_are_left_out_but_keep_their_number():
    grid = TileGrid(100, 100, side=40, halo=5, block_tiles=1)
    tissue = all_tissue(grid)
    tissue[0, 0] = False
    assert [block.index for block in plan_blocks(grid, tissue)] == list(range(1, 16))


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="has_tissue must be"):
        plan_blocks(TileGrid(100, 100), np.ones((2, 2), bool))


@pytest.mark.parametrize("values", [(0, 5, 10, 1), (5, 5, 10, 5), (5, 5, 10, -1)])
def test_a_grid_without_cores_is_refused(values):
    width, height, side, halo = values
    with pytest.raises(ValueError, match="must be"):
        TileGrid(width, height, side=side, halo=halo)


def test_growing_stops_at_the_edge_and_sides_tell_so():
    window = grow(Box(10, 0, 20, 20), 5, width=22, height=100)
    assert window == Box(5, 0, 22, 25)
    assert sides_of(window, width=22, height=100) == Sides(left=False, top=True, right=True, bottom=False)
