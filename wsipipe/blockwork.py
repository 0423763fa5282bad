"""The block tasks of one slide: plan it, infer a block's maps, cut a block's nuclei out of the stitched maps.

Each takes a reference to the slide, works on files, and is whole or undone: a task that is killed is simply run again.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.typing import NDArray

from wsipipe import replacement
from wsipipe.blockfile import write_block
from wsipipe.errors import ModelError
from wsipipe.events import SlidePlanned
from wsipipe.extract import extract_block
from wsipipe.grid import Block, Box, grow
from wsipipe.infer import BlockStats
from wsipipe.journal import SlideFolder
from wsipipe.machine import peak_vram_bytes
from wsipipe.maps import MapStore
from wsipipe.measure import Classes, measure
from wsipipe.nuclei import BlockNuclei
from wsipipe.options import RunOptions
from wsipipe.outlines import trace
from wsipipe.quality import cell_grid, measure_cells, write_cells
from wsipipe.runrecord import RunRecord, read_record
from wsipipe.runs import pixel_runs
from wsipipe.simplify import simplify
from wsipipe.slide import Slide, open_slide
from wsipipe.slidelist import SlideJob
from wsipipe.slideplan import SlidePlan, fit_to_slide, key_without_tissue, plan_slide, save_plan
from wsipipe.slidework import BENCH, SlideRef, SlideWork, first_halo


@dataclass(frozen=True, slots=True)
class BlockToDo:
    """One block as the scheduler sees it.

    Attributes:
        index: as in `Block`.
        tiles: how many.
        needs: blocks with tissue, itself among them, whose maps its first window shows.
        is_inferred, is_extracted: found finished.
    """

    index: int
    tiles: int
    needs: tuple[int, ...]
    is_inferred: bool
    is_extracted: bool


@dataclass(frozen=True, slots=True)
class Planned:
    """A slide that is ready for its block tasks; ref: knows the folder in which its results are made."""

    ref: SlideRef
    event: SlidePlanned
    blocks: tuple[BlockToDo, ...]


def plan_to_folder(ref: SlideRef, job: SlideJob, options: RunOptions) -> Planned | RunRecord:
    """Open a slide, decide what is to be done and prepare its folder; the record if it is finished already.

    Raises:
        SlideError: the slide cannot be done.
        OutputError: its folder cannot be used.
    """
    home = SlideFolder(ref.home)
    slide = open_slide(job.path, mpp=job.mpp)
    is_kept = False
    try:
        if _is_done(home, slide, ref, options):
            return read_record(home.record_path)
        plan = plan_slide(slide, job, ref.facts, options)
        folder = replacement.folder_for(home.path, plan.key, overwrite=options.overwrite)
        if folder.open(plan.key, overwrite=options.overwrite):
            folder.finish()
            replacement.put_in_place(folder.path, home.path)
            return read_record(home.record_path)
        if options.overwrite:
            replacement.mark(folder)
        ref = replace(ref, folder=folder.path)
        MapStore.create(folder.maps_path, plan.grid, len(ref.facts.map_names))
        save_plan(folder.plan_path, fit_to_slide(folder.plan_path, plan, slide, options.stain_norm))
        tissue = frozenset(block.index for block in plan.blocks)
        blocks = tuple(_to_do(plan, block, tissue, folder) for block in plan.blocks)
        event = _planned_event(plan, slide, blocks)
        BENCH.keep(ref, slide)
        is_kept = True
        return Planned(ref, event, blocks)
    finally:
        if not is_kept:
            slide.close()


def _is_done(folder: SlideFolder, slide: Slide, ref: SlideRef, options: RunOptions) -> bool:
    """Whether an earlier run finished the slide; known without a look at its pixels where the mask is ours."""
    has_known_mask = options.tissue in ("auto", "none") and not options.overwrite
    if has_known_mask and folder.is_done_with(key_without_tissue(slide, ref.facts, options)):
        folder.finish()
        return True
    return False


def _to_do(plan: SlidePlan, block: Block, tissue: frozenset[int], folder: SlideFolder) -> BlockToDo:
    window = grow(block.core, first_halo(plan.frame), width=plan.grid.width, height=plan.grid.height)
    needs = tuple(index for index in plan.grid.block_indices(window) if index in tissue)
    if folder.is_extracted(block.index) and not _is_whole(folder, block.index):
        folder.drop_block(block.index)
    is_inferred = folder.is_inferred(block.index)
    return BlockToDo(block.index, len(block.tiles), needs, is_inferred, folder.is_extracted(block.index))


def _is_whole(folder: SlideFolder, index: int) -> bool:
    """Whether a block file of an earlier run passes its checksums."""
    try:
        with ZipFile(folder.block_path(index)) as archive:
            return archive.testzip() is None and folder.cells_path(index).is_file()
    except (BadZipFile, OSError):
        return False


def _planned_event(plan: SlidePlan, slide: Slide, blocks: tuple[BlockToDo, ...]) -> SlidePlanned:
    return SlidePlanned(
        slide=plan.job.id,
        path=plan.job.path,
        mpp=slide.mpp.mean,
        mpp_source=slide.mpp.source,
        work_mpp=plan.frame.mpp,
        tissue_mm2=plan.tissue_mm2,
        tiles=plan.n_tiles,
        done_tiles=sum(block.tiles for block in blocks if block.is_inferred),
        blocks=len(blocks),
        stated_mpp=slide.mpp.stated,
    )


def infer(ref: SlideRef, index: int) -> BlockStats:
    """Bring the maps of one block to the store."""
    with BENCH.opened(ref) as work:
        block = work.block(index)
        ((_, stats),) = work.inference.run([block], work.read_tile, work.store)
        work.store.flush(tile.core for tile in block.tiles)
        work.folder.mark_inferred(index)
        return replace(stats, peak_vram=peak_vram_bytes(work.inference.lane.device))


class _NotInferredError(Exception):
    """An extraction window reached a block whose maps are not there yet."""


def extract(ref: SlideRef, index: int, is_complete: bool) -> bool:
    """Write the block file of one block.

    Args:
        ref: the slide.
        index: of the block.
        is_complete: all maps of the slide are there.

    Returns:
        False if its window grew into maps that are not there yet; nothing is written then.

    Raises:
        ModelError: the model's instances run on beyond the largest window that fits the memory.
    """
    with BENCH.room(ref.budget), BENCH.opened(ref) as work:

        def read_maps(window: Box) -> NDArray[np.uint8]:
            if not is_complete and not _is_covered(work, window):
                raise _NotInferredError
            _check_size(work, index, window)
            return work.store.read(window)

        try:
            extract_to_file(work, work.block(index), read_maps)
        except _NotInferredError:
            return False
    return True


def _is_covered(work: SlideWork, window: Box) -> bool:
    met = work.plan.grid.block_indices(window)
    return all(work.folder.is_inferred(index) for index in met if work.has_block(index))


def _check_size(work: SlideWork, index: int, window: Box) -> None:
    if window.width * window.height > work.ref.budget.window_px:
        raise ModelError(
            f"model {work.facts.name} finds nuclei around block {index} that do not end within {window.width} x "
            f"{window.height} px; the model does not fit this slide, or pass a larger --memory"
        )


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
