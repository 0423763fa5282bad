import threading
import time
from dataclasses import dataclass, field

import numpy as np
import pytest

from wsipipe.errors import ModelError, SlideReadError
from wsipipe.grid import TileGrid, plan_blocks
from wsipipe.infer import Inference, ModelLane, choose_batch_size
from wsipipe.maps import MapStore

GRID = TileGrid(200, 150, side=40, halo=5, block_tiles=2)
BLOCKS = plan_blocks(GRID, np.ones((GRID.rows, GRID.cols), bool))


def read_tile(tile):
    """A picture whose value at work px (x, y) is x + 2 y, modulo 251."""
    x = np.arange(tile.read.x0, tile.read.x1)
    y = np.arange(tile.read.y0, tile.read.y1)[:, None]
    grey = ((x + 2 * y) % 251).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def truth():
    return ((np.arange(GRID.width) + 2 * np.arange(GRID.height)[:, None]) % 251).astype(np.uint8)


@dataclass
class Echo:
    """Returns the red channel and its inverse."""

    name: str = "echo"
    tile: int = 40
    halo: int = 5
    map_names: tuple[str, ...] = ("red", "not red")
    fits: int = 99
    sleep_s: float = 0.0
    batches: list[int] = field(default_factory=list)

    def maps(self, images):
        self.batches.append(len(images))
        if len(images) > self.fits:
            raise type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory")
        time.sleep(self.sleep_s * len(images))
        return np.stack([images[:, 0], 255 - images[:, 0]], axis=1)


def run(segmenter, tmp_path, *, batch_size, blocks=BLOCKS, read=read_tile):
    store = MapStore.create(tmp_path / "maps.zarr", GRID, 2)
    with Inference(ModelLane(segmenter, batch_size=batch_size), readers=2) as inference:
        done = list(inference.run(blocks, read, store))
    return store.read(GRID.whole), done


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_stitched_maps_equal_the_whole_whatever_the_batch(tmp_path, batch_size):
    maps, done = run(Echo(), tmp_path, batch_size=batch_size)
    assert (maps[0] == truth()).all()
    assert (maps[1] == 255 - truth()).all()
    assert [block.index for block, _ in done] == [block.index for block in BLOCKS]


def test_batches_never_span_blocks(tmp_path):
    segmenter = Echo()
    run(segmenter, tmp_path, batch_size=3)
    expected = [size for block in BLOCKS for size in _cut(len(block.tiles), 3)]
    assert segmenter.batches == expected


def _cut(n, size):
    return [min(size, n - start) for start in range(0, n, size)]


def test_a_block_is_yielded_only_when_its_maps_are_stored(tmp_path):
    store = MapStore.create(tmp_path / "maps.zarr", GRID, 2)
    with Inference(ModelLane(Echo(), batch_size=2), readers=2) as inference:
        for block, _ in inference.run(BLOCKS, read_tile, store):
            assert (store.read(block.core)[0] == truth()[block.core.slices(GRID.whole)]).all()


def test_out_of_memory_halves_the_batch_and_goes_on(tmp_path):
    segmenter = Echo(fits=1)
    maps, done = run(segmenter, tmp_path, batch_size=4)
    assert (maps[0] == truth()).all()
    assert segmenter.batches[:4] == [4, 2, 1, 1]
    assert done[-1][1].batch_size == 1
    assert segmenter.batches[-1] == 1


def test_a_model_that_fits_no_tile_is_one_clear_error(tmp_path):
    with pytest.raises(ModelError, match="one tile of model echo does not fit"):
        run(Echo(fits=0), tmp_path, batch_size=2)


@pytest.mark.parametrize(
    "broken",
    [
        lambda images: images[:, :1],
        lambda images: images[:, :2].astype(float),
        lambda images: images[:1, :2, 1:],
    ],
)
def test_maps_of_the_wrong_kind_name_the_tile(tmp_path, broken):
    segmenter = Echo()
    segmenter.maps = broken
    with pytest.raises(ModelError, match=r"echo failed on tile row 0 col 0.* must be \(2, 2, 40, 40\) uint8"):
        run(segmenter, tmp_path, batch_size=2)


def test_a_read_error_surfaces_and_stops_the_threads(tmp_path):
    def broken(tile):
        raise SlideReadError("cannot read")

    before = threading.active_count()
    with pytest.raises(SlideReadError):
        run(Echo(), tmp_path, batch_size=2, read=broken)
    assert threading.active_count() <= before + 1


def test_no_block_is_no_work(tmp_path):
    maps, done = run(Echo(), tmp_path, batch_size=2, blocks=[])
    assert not maps.any()
    assert done == []


def test_reading_hides_behind_the_model(tmp_path):
    def slow_read(tile):
        time.sleep(0.004)
        return read_tile(tile)

    store = MapStore.create(tmp_path / "maps.zarr", GRID, 2)
    with Inference(ModelLane(Echo(sleep_s=0.01), batch_size=1), readers=2) as inference:
        stats = [stats for _, stats in inference.run(BLOCKS, slow_read, store)]
    assert sum(s.wait_s for s in stats) < 0.5 * sum(s.model_s for s in stats)


def test_a_cpu_takes_tiles_one_by_one():
    assert choose_batch_size(Echo(), "cpu") == 1
