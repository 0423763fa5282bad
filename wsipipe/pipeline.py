"""One slide from file to finished folder: joins the stages and keeps the journal."""

from dataclasses import dataclass
from pathlib import Path

from wsipipe.assemble import assemble
from wsipipe.blockwork import SlideWork, infer_and_extract
from wsipipe.clock import StageClock
from wsipipe.events import Sink, SlidePlanned, StageStarted
from wsipipe.journal import SlideFolder
from wsipipe.maps import MapStore
from wsipipe.options import RunOptions
from wsipipe.runrecord import RunRecord, read_record
from wsipipe.segmenter import Segmenter
from wsipipe.slide import Slide, open_slide
from wsipipe.slidelist import SlideJob
from wsipipe.slideplan import SlidePlan, plan_slide, sample_tiles
from wsipipe.stain import QUPATH_HE, estimate_macenko


@dataclass(frozen=True, slots=True)
class SlideResult:
    """A finished slide. skipped: an earlier run had finished it."""

    folder: Path
    record: RunRecord
    skipped: bool


def segment_slide(job: SlideJob, segmenter: Segmenter, options: RunOptions, emit: Sink) -> SlideResult:
    """Do everything for one slide, continuing what an earlier run left unfinished.

    Raises:
        WsipipeError: the slide cannot be done; the text is one line for the user.
        OSError: the disk is full or gone; what is finished stays.
    """
    clock = StageClock()
    with open_slide(job.path, mpp=job.mpp) as slide:
        with clock.timed("plan"):
            plan = plan_slide(slide, job, segmenter, options)
        folder = SlideFolder(options.out / job.id)
        if folder.open(plan.key, overwrite=options.overwrite):
            return SlideResult(folder.path, read_record(folder.record_path), skipped=True)
        emit(_planned_event(plan, slide, folder))
        with clock.timed("fit"):
            work = _prepare(plan, slide, folder, segmenter, options)
        with clock.timed("infer_extract"):
            infer_and_extract(work, options, emit)
        emit(StageStarted(job.id, "writing outputs"))
        record = assemble(work, options, clock)
        folder.finish()
    return SlideResult(folder.path, record, skipped=False)


def _planned_event(plan: SlidePlan, slide: Slide, folder: SlideFolder) -> SlidePlanned:
    done = sum(len(block.tiles) for block in plan.blocks if folder.is_inferred(block.index))
    return SlidePlanned(
        slide=plan.job.id,
        path=plan.job.path,
        mpp=slide.mpp.mean,
        mpp_source=slide.mpp.source,
        work_mpp=plan.frame.mpp,
        tissue_mm2=plan.tissue_mm2,
        tiles=plan.n_tiles,
        done_tiles=done,
        blocks=len(plan.blocks),
    )


def _prepare(
    plan: SlidePlan, slide: Slide, folder: SlideFolder, segmenter: Segmenter, options: RunOptions
) -> SlideWork:
    sample = sample_tiles(plan, slide)
    stain = QUPATH_HE
    if options.stain == "macenko":
        stain = estimate_macenko(sample.transpose(0, 2, 3, 1).reshape(-1, 3))  # (N, 3, S, S) -> (N * S * S, 3)
    store = MapStore.create(folder.maps_path, plan.grid, len(segmenter.map_names))
    return SlideWork(plan, slide, folder, segmenter.fitted(sample), stain, store)
