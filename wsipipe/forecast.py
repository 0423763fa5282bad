"""What a run will take, before it runs: measured model speed on this machine, known costs of the other stages."""

import time
from dataclasses import dataclass

import numpy as np

from wsipipe.faults import explain
from wsipipe.options import RunOptions
from wsipipe.segmenter import Segmenter
from wsipipe.slide import open_slide
from wsipipe.slidelist import Refusal, SlideJob, SlideList
from wsipipe.slideplan import SlidePlan, plan_slide, read_tile

# Measured by benchmarks/stages.py on drawn slides with about 500 nuclei per tile; see docs/performance.md.
HOST_S_PER_TILE = 0.15  # CPU seconds for reading, cutting out, measuring and writing one 1024 px tile
BASE_BYTES = 900 * 2**20  # resident memory with PyTorch and a small model loaded
BLOCK_BYTES_PER_PX = 40  # maps, labels, colours and kernels' work space of one block in one thread
NUCLEI_PER_MM2 = 4000.0  # a middling H&E density, for the disk estimate only
BYTES_PER_NUCLEUS = 700  # GeoJSON (shape detail, gzipped) + parquet + labels
MAP_BYTES_PER_PX = 0.5  # compressed maps while the slide is unfinished


@dataclass(frozen=True, slots=True)
class Forecast:
    """One slide's expectation, or why it would fail.

    Attributes:
        problem: one line; empty if the slide can run. The numbers are 0 then.
        memory, disk: bytes; disk counts what stays.
        seconds: wall time on this machine.
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
    seconds: float = 0.0
    memory: int = 0
    disk: int = 0


def forecast_slides(slides: SlideList, segmenter: Segmenter, options: RunOptions) -> list[Forecast]:
    """Look at every slide without segmenting it.

    Opens each, finds its tissue and reads one tile of it, so that a slide that fails here would fail in a run.
    """
    seconds_per_tile = measure_model(segmenter, options.batch_size or 1)
    found = [_refused(refusal) for refusal in slides.refusals if refusal.fatal]
    return found + [_forecast(job, segmenter, options, seconds_per_tile) for job in slides.jobs]


def measure_model(segmenter: Segmenter, batch: int) -> float:
    """Return wall seconds per tile of the model on this machine, second of two calls."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (batch, 3, segmenter.tile, segmenter.tile), dtype=np.uint8)
    seconds = 0.0
    for _ in range(2):
        started = time.perf_counter()
        output = segmenter.maps(images)
        if hasattr(output, "cpu"):
            output.cpu()
        seconds = time.perf_counter() - started
    return seconds / batch


def _refused(refusal: Refusal) -> Forecast:
    return Forecast(refusal.path, refusal.id, refusal.reason)


def _forecast(job: SlideJob, segmenter: Segmenter, options: RunOptions, seconds_per_tile: float) -> Forecast:
    try:
        with open_slide(job.path, mpp=job.mpp) as slide:
            plan = plan_slide(slide, job, segmenter, options)
            if plan.blocks:
                tiles = [tile for block in plan.blocks for tile in block.tiles]
                read_tile(slide, plan.frame, tiles[len(tiles) // 2])
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
                seconds=plan.n_tiles * (seconds_per_tile + HOST_S_PER_TILE / options.threads),
                memory=_memory(plan, options),
                disk=round(plan.tissue_mm2 * NUCLEI_PER_MM2 * BYTES_PER_NUCLEUS + 2**20),
            )
    except Exception as error:
        return Forecast(str(job.path), job.id, explain(error))


def _memory(plan: SlidePlan, options: RunOptions) -> int:
    side = min(plan.grid.block_tiles * plan.grid.core, max(plan.grid.width, plan.grid.height))
    return BASE_BYTES + options.threads * BLOCK_BYTES_PER_PX * side * side
