"""What a run will take, before it runs: time, memory and disk of every slide."""

from dataclasses import dataclass

from wsipipe.faults import explain
from wsipipe.journal import SlideFolder
from wsipipe.machine import device_name, rss_bytes
from wsipipe.memory import EXTRACT_BYTES_PER_PX, block_window_px, fixed_bytes, share_memory
from wsipipe.options import RunOptions
from wsipipe.segmenter import Segmenter, facts_of
from wsipipe.slide import open_slide
from wsipipe.slidelist import Refusal, SlideJob, SlideList
from wsipipe.slideplan import SlidePlan, plan_slide, read_tile
from wsipipe.speed import Speed, expected_speed

NUCLEI_PER_MM2 = 4000.0  # a middling H&E density, for the disk estimate only
BYTES_PER_NUCLEUS = 700  # GeoJSON (shape detail, gzipped) + parquet + labels
MAP_BYTES_PER_PX = 0.5  # all maps of a work px, compressed, while the slide is unfinished


@dataclass(frozen=True, slots=True)
class Forecast:
    """One slide's expectation, or why it would fail.

    Attributes:
        problem: one line; empty if the slide can run. The numbers are 0 otherwise.
        is_done: an earlier run finished the slide with the same options, so that it takes no time.
        memory, disk: bytes; disk counts the results and the maps that lie beside them while the slide is unfinished.
        seconds_low, seconds_high: wall time on this machine, at best and at worst; basis: what they rest on.
    """

    path: str
    id: str
    problem: str
    vendor: str = ""
    mpp: float = 0.0
    mpp_source: str = ""
    width: int = 0
    height: int = 0
    tissue_mm2: float = 0.0
    tiles: int = 0
    is_done: bool = False
    seconds_low: float = 0.0
    seconds_high: float = 0.0
    basis: str = ""
    memory: int = 0
    disk: int = 0


def forecast_slides(slides: SlideList, segmenter: Segmenter, options: RunOptions) -> list[Forecast]:
    """Look at every slide without segmenting it.

    Opens each, finds its tissue and reads one tile of it, so that a slide that fails here would fail in a run. A folder
    of the output that holds results of other parameters is such a failure.

    Raises:
        UsageError: the model does not fit the memory that the options name.
    """
    base, facts = rss_bytes(), facts_of(segmenter)
    budget = share_memory(options.memory, base=base, threads=options.threads, model=facts)
    device = device_name(options.device)
    batch = options.batch_size or 1
    found = [_refused(refusal) for refusal in slides.refusals if refusal.fatal]
    need = _Need(
        expected_speed(options.out, segmenter, device, batch=batch, slots=budget.cpu_slots),
        fixed_bytes(base, facts),
        budget.cpu_slots * EXTRACT_BYTES_PER_PX,
        block_window_px(facts),
    )
    return found + [_forecast(job, segmenter, options, need) for job in slides.jobs]


@dataclass(frozen=True, slots=True)
class _Need:
    """What this machine's model takes: time, bytes for the run and per px of a window, px of a window."""

    speed: Speed
    fixed_bytes: int
    bytes_per_px: int
    window_px: int

    def memory(self, plan: SlidePlan) -> int:
        return self.fixed_bytes + self.bytes_per_px * min(self.window_px, plan.grid.width * plan.grid.height)


def _refused(refusal: Refusal) -> Forecast:
    return Forecast(refusal.path, refusal.id, refusal.reason)


def _forecast(job: SlideJob, segmenter: Segmenter, options: RunOptions, need: _Need) -> Forecast:
    try:
        with open_slide(job.path, mpp=job.mpp) as slide:
            plan = plan_slide(slide, job, segmenter, options)
            is_done = False
            if not options.overwrite:
                folder = SlideFolder(options.out / job.id)
                folder.check(plan.key)
                is_done = folder.is_done()
            if plan.blocks:
                tiles = [tile for block in plan.blocks for tile in block.tiles]
                read_tile(slide, plan.frame, tiles[len(tiles) // 2])
            low, high = (0.0, 0.0) if is_done else need.speed.seconds(plan.n_tiles)
            return Forecast(
                path=str(job.path),
                id=job.id,
                problem="",
                vendor=slide.vendor,
                mpp=slide.mpp.x,
                mpp_source=slide.mpp.source,
                width=slide.width,
                height=slide.height,
                tissue_mm2=plan.tissue_mm2,
                tiles=plan.n_tiles,
                is_done=is_done,
                seconds_low=low,
                seconds_high=high,
                basis=need.speed.basis,
                memory=need.memory(plan),
                disk=_disk(plan),
            )
    except Exception as error:
        return Forecast(str(job.path), job.id, explain(error).removesuffix(f": {job.path}"))


def _disk(plan: SlidePlan) -> int:
    results = plan.tissue_mm2 * NUCLEI_PER_MM2 * BYTES_PER_NUCLEUS + 2**20
    return round(results + plan.n_tiles * plan.grid.core**2 * MAP_BYTES_PER_PX)
