"""The block tasks of one slide: infer a block's maps, then cut its nuclei out of the stitched maps."""

from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsipipe.blockfile import write_block
from wsipipe.events import Sink, StageStarted, TilesDone
from wsipipe.extract import extract_block
from wsipipe.grid import Block, Box, Tile, grow
from wsipipe.infer import Inference, choose_batch_size
from wsipipe.journal import SlideFolder
from wsipipe.maps import MapStore
from wsipipe.measure import Classes, measure
from wsipipe.nuclei import BlockNuclei
from wsipipe.options import RunOptions
from wsipipe.outlines import trace
from wsipipe.quality import cell_grid, measure_cells, write_cells
from wsipipe.runs import pixel_runs
from wsipipe.segmenter import Segmenter
from wsipipe.simplify import simplify
from wsipipe.slide import Slide
from wsipipe.slideplan import SlidePlan, read_tile
from wsipipe.stain import StainVectors

EXTRACT_HALO_UM = 32.0  # context around a block when its nuclei are cut out: about four nucleus diameters


@dataclass(frozen=True, slots=True)
class SlideWork:
    """What the block tasks of one slide share."""

    plan: SlidePlan
    slide: Slide
    folder: SlideFolder
    segmenter: Segmenter
    stain: StainVectors
    store: MapStore

    @property
    def halo(self) -> int:
        """First context around a block when its nuclei are cut out, work px."""
        return max(1, round(EXTRACT_HALO_UM / self.plan.frame.mpp))

    def read_tile(self, tile: Tile) -> NDArray[np.uint8]:
        """Read a tile with its halo, uint8 (S, S, 3)."""
        return read_tile(self.slide, self.plan.frame, tile)


def extract_to_file(work: SlideWork, block: Block, read_maps: Callable[[Box], NDArray[np.uint8]]) -> None:
    """Find, outline and measure the nuclei that a block owns; write its cells of quality, then its block file.

    Args:
        work: the slide.
        block: the block.
        read_maps: window -> uint8 (C, H, W) stitched maps.
    """
    frame, grid = work.plan.frame, work.plan.grid
    found = extract_block(
        read_maps,
        block.core,
        work.segmenter,
        mpp=frame.mpp,
        width=grid.width,
        height=grid.height,
        halo=work.halo,
    )
    origin = (found.window.x0, found.window.y0)
    outlines = simplify(trace(found.labels, found.n, origin=origin))
    window = _around(found.window, *(tile.core for tile in block.tiles))
    rgb = work.slide.read(window, frame)
    table = measure(
        found.labels,
        rgb[found.window.slices(window)],
        outlines,
        Classes(work.segmenter.class_names, found.class_id, found.class_prob),
        frame=frame,
        stain=work.stain,
        origin=origin,
    )
    cells = measure_cells(rgb, block.tiles, window, cell_grid(grid, frame.mpp), frame)
    write_cells(work.folder.cells_path(block.index), cells)
    nuclei = BlockNuclei(found.window, pixel_runs(found.labels, origin=origin), outlines, table)
    write_block(work.folder.block_path(block.index), nuclei)


def _around(*boxes: Box) -> Box:
    """Return the smallest box that holds all boxes."""
    return Box(min(b.x0 for b in boxes), min(b.y0 for b in boxes), max(b.x1 for b in boxes), max(b.y1 for b in boxes))


class _NotInferredError(Exception):
    """An extraction window reached a block whose maps are not there yet."""


class ExtractionQueue:
    """Extracts blocks in threads, each as soon as the maps around it are there; 0 threads: in the caller's.

    The queue is bounded: `submit_ready` waits when extraction falls behind, so that memory stays flat.
    """

    def __init__(self, work: SlideWork, inferred: set[int], threads: int) -> None:
        """Take over the blocks that have no block file yet; inferred is shared with the caller, who adds to it."""
        self._work = work
        self._inferred = inferred
        self._tissue = {block.index for block in work.plan.blocks}
        self._waiting = {b.index: b for b in work.plan.blocks if not work.folder.is_extracted(b.index)}
        self._late: list[Block] = []
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="extract") if threads else None
        self._pending: dict[Future[bool], Block] = {}
        self._limit = 2 * threads

    def __enter__(self) -> "ExtractionQueue":
        """Return itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Stop the threads; blocks not begun are dropped."""
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def submit_ready(self) -> None:
        """Start every block whose surroundings are inferred."""
        for block in [b for b in self._waiting.values() if self._is_covered(self._first_window(b))]:
            del self._waiting[block.index]
            self._start(block)

    def finish(self) -> None:
        """Do all that is left; call when every block is inferred."""
        self.submit_ready()
        while self._pending:
            self._collect()
        late, self._late = self._late, []
        for block in late:
            self._start(block)
        while self._pending:
            self._collect()

    def _first_window(self, block: Block) -> Box:
        grid = self._work.plan.grid
        return grow(block.core, self._work.halo, width=grid.width, height=grid.height)

    def _is_covered(self, window: Box) -> bool:
        """Whether all blocks with tissue that a window meets are inferred."""
        met = self._work.plan.grid.block_indices(window)
        return all(index in self._inferred or index not in self._tissue for index in met)

    def _start(self, block: Block) -> None:
        if self._pool is None:
            if not self._extract(block):
                self._late.append(block)
            return
        while len(self._pending) >= self._limit:
            self._collect()
        self._pending[self._pool.submit(self._extract, block)] = block

    def _collect(self) -> None:
        done, _ = wait(self._pending, return_when=FIRST_COMPLETED)
        for future in done:
            block = self._pending.pop(future)
            if not future.result():
                self._late.append(block)

    def _extract(self, block: Block) -> bool:
        """Extract one block; False if its window grew into maps that are not there yet."""
        try:
            extract_to_file(self._work, block, self._read_maps)
        except _NotInferredError:
            return False
        return True

    def _read_maps(self, window: Box) -> NDArray[np.uint8]:
        if not self._is_covered(window):
            raise _NotInferredError
        return self._work.store.read(window)


def infer_and_extract(work: SlideWork, options: RunOptions, emit: Sink) -> None:
    """Bring every block of the slide to its block file; inference and extraction run side by side."""
    blocks = work.plan.blocks
    inferred = {block.index for block in blocks if work.folder.is_inferred(block.index)}
    todo = [block for block in blocks if block.index not in inferred]
    total = work.plan.n_tiles
    done = total - sum(len(block.tiles) for block in todo)
    with ExtractionQueue(work, inferred, 0 if options.workers == 0 else options.threads) as queue:
        if todo:
            batch = options.batch_size or choose_batch_size(work.segmenter, options.device)
            with Inference(work.segmenter, batch_size=batch, readers=options.threads) as inference:
                for block, stats in inference.run(todo, work.read_tile, work.store):
                    work.folder.mark_inferred(block.index)
                    inferred.add(block.index)
                    done += stats.tiles
                    emit(TilesDone(work.plan.job.id, done, total))
                    queue.submit_ready()
        emit(StageStarted(work.plan.job.id, "cutting out the last nuclei"))
        queue.finish()
