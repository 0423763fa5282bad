"""From block files to a slide's outputs: ids, neighbours and outliers over the whole slide, then every writer.

Each step is a function of the block files alone and writes whole files: an interrupted assembly is simply done again.
"""

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from wsipipe.blockfile import read_block_outlines, read_block_table
from wsipipe.clock import StageClock
from wsipipe.drawing import draw_overview
from wsipipe.geojson import GeoJsonWriter
from wsipipe.labelwork import LABELS_NAME, provenance_of
from wsipipe.measure import BLOCK_SCHEMA, neighbours, outliers
from wsipipe.options import RunOptions
from wsipipe.outlines import to_l0
from wsipipe.plausibility import plausibility_flags
from wsipipe.quality import (
    CELL_SCHEMA,
    SlideQuality,
    cell_grid,
    nuclei_in_artefacts,
    quality_flags,
    read_cells,
    slide_quality,
    write_cells,
)
from wsipipe.report import write_slide_report
from wsipipe.runrecord import FileDigest, RunRecord, git_commit, package_versions, path_digest
from wsipipe.scale import override_flags
from wsipipe.slidework import SlideWork
from wsipipe.table import NucleiTableWriter, nucleus_uuids

TABLE_NAME = "nuclei.parquet"
GEOJSON_NAME = "nuclei.geojson.gz"
OVERVIEW_NAME = "overview.png"
QUALITY_NAME = "quality.parquet"
REPORT_NAME = "report.html"
OVERVIEW_SIDE = 2000  # px of the overview's longer side, at most
GATHERED = [
    "centroid_x_l0",
    "centroid_y_l0",
    "area_um2",
    "circularity",
    "hematoxylin_od_mean",
    "equivalent_diameter_um",
    "red_mean",
    "green_mean",
    "blue_mean",
]
SLIDE_COLUMNS = ("neighbour_distance_um", "neighbours_50um", "is_outlier", "in_artefact")


@dataclass(frozen=True, slots=True)
class SlideNuclei:
    """What needs all nuclei of the slide at once; a few tens of bytes per nucleus.

    Attributes:
        blocks: indices of the blocks, in order.
        first_label: int64 (len(blocks) + 1,): block k owns labels first_label[k] .. first_label[k + 1] - 1.
        centroids_l0: float64 (n, 2), x, y.
        extra: n rows, SLIDE_COLUMNS.
        median_diameter_um: of the equivalent diameters; NaN without nuclei.
        cells: quality.CELL_SCHEMA, all cells of the slide.
        quality: what they and the nuclei say about the slide.
    """

    blocks: tuple[int, ...]
    first_label: NDArray[np.int64]
    centroids_l0: NDArray[np.float64]
    extra: pa.Table
    median_diameter_um: float
    cells: pa.Table
    quality: SlideQuality

    def __len__(self) -> int:
        """Return the number of nuclei."""
        return len(self.centroids_l0)


@dataclass(frozen=True, slots=True)
class Effort:
    """What a slide cost in this run, over all its tasks.

    Attributes:
        seconds: stage -> stage time, summed over tasks that ran side by side.
        wall_seconds: since the slide was opened.
        timed_tiles: that went through the model in this run.
        tiles_per_second: through the model, while it worked on this slide; 0 if an earlier run had done that.
        peak_rss_bytes: sum of the largest resident memory of each process that took part.
        peak_vram_bytes: the largest of any device; None without a GPU.
        device: as a person would name it.
    """

    seconds: Mapping[str, float]
    wall_seconds: float
    timed_tiles: int
    tiles_per_second: float
    peak_rss_bytes: int
    peak_vram_bytes: int | None
    device: str


@dataclass(frozen=True, slots=True)
class SlideSummary:
    """What the record tells about the nuclei.

    Attributes:
        nuclei: how many.
        flags: short texts for a person to look at.
        quality: of the slide, JSON values.
        seconds: stage -> stage time.
    """

    nuclei: int
    flags: tuple[str, ...]
    quality: Mapping[str, Any]
    seconds: Mapping[str, float]


def write_results(work: SlideWork, options: RunOptions) -> SlideSummary:
    """Write every output of a slide whose blocks are all extracted, but labels and run.json."""
    clock, folder = StageClock(), work.folder.path
    with clock.timed("gather"):
        nuclei = gather(work)
    with clock.timed("tables"):
        write_nuclei(work, nuclei, options)
        write_cells(folder / QUALITY_NAME, nuclei.cells)
    with clock.timed("overview"):
        write_overview(work, nuclei)
    flags = plausibility_flags(
        nuclei=len(nuclei), tissue_mm2=work.plan.tissue_mm2, median_diameter_um=nuclei.median_diameter_um
    )
    flags += override_flags(work.slide.mpp) + quality_flags(nuclei.quality)
    return SlideSummary(len(nuclei), flags, nuclei.quality.to_json(), clock.seconds)


def _written(options: RunOptions) -> Iterator[str]:
    yield from (TABLE_NAME, LABELS_NAME, OVERVIEW_NAME, QUALITY_NAME)
    if options.geojson_detail != "none":
        yield GEOJSON_NAME


def gather(work: SlideWork) -> SlideNuclei:
    """Number the nuclei block by block and compute what needs all of them."""
    blocks = tuple(block.index for block in work.plan.blocks)
    tables = [read_block_table(work.folder.block_path(index)).select(GATHERED) for index in blocks]
    counts = np.array([table.num_rows for table in tables], dtype=np.int64)
    first_label = np.concatenate([[1], 1 + np.cumsum(counts)]).astype(np.int64)
    table = pa.concat_tables([BLOCK_SCHEMA.empty_table().select(GATHERED), *tables])
    centroids = np.column_stack([table["centroid_x_l0"].to_numpy(), table["centroid_y_l0"].to_numpy()])
    frame = work.plan.frame
    distance, count = neighbours(centroids * [frame.l0_mpp_x, frame.l0_mpp_y])
    cells = pa.concat_tables([CELL_SCHEMA.empty_table(), *(read_cells(work.folder.cells_path(i)) for i in blocks)])
    poor = nuclei_in_artefacts(centroids, cells, cell_grid(work.plan.grid, frame.mpp), frame)
    extra = pa.table(
        [pa.array(values) for values in (distance, count, outliers(table), poor)], names=list(SLIDE_COLUMNS)
    )
    diameters = table["equivalent_diameter_um"].to_numpy()
    median = float(np.median(diameters)) if len(diameters) else math.nan
    colours = np.column_stack([table[name].to_numpy() for name in ("red_mean", "green_mean", "blue_mean")])
    return SlideNuclei(blocks, first_label, centroids, extra, median, cells, slide_quality(cells, poor, colours))


def write_nuclei(work: SlideWork, nuclei: SlideNuclei, options: RunOptions) -> None:
    """Write the table and the GeoJSON, block by block."""
    folder, frame = work.folder.path, work.plan.frame
    with ExitStack() as stack:
        table_writer = stack.enter_context(NucleiTableWriter(folder / TABLE_NAME, provenance_of(work)))
        geojson_writer = None
        if options.geojson_detail != "none":
            mpp, names = (frame.l0_mpp_x, frame.l0_mpp_y), work.facts.class_names
            geojson_writer = stack.enter_context(
                GeoJsonWriter(folder / GEOJSON_NAME, l0_mpp=mpp, detail=options.geojson_detail, class_names=names)
            )
        for position, index in enumerate(nuclei.blocks):
            path = work.folder.block_path(index)
            table = _final_table(read_block_table(path), nuclei, position, work.slide.identity)
            outlines = to_l0(read_block_outlines(path), frame)
            table_writer.write(outlines, table)
            if geojson_writer:
                geojson_writer.write(outlines, table)


def _final_table(table: pa.Table, nuclei: SlideNuclei, position: int, slide_key: str) -> pa.Table:
    """Add to a block's measurements the columns that the whole slide decides."""
    first, stop = (int(label) for label in nuclei.first_label[position : position + 2])
    table = table.append_column("label", pa.array(np.arange(first, stop, dtype=np.uint32)))
    table = table.append_column("uuid", nucleus_uuids(slide_key, first, stop - first))
    extra = nuclei.extra.slice(first - 1, stop - first)
    for name in SLIDE_COLUMNS:
        table = table.append_column(name, extra[name])
    return table


def write_overview(work: SlideWork, nuclei: SlideNuclei) -> None:
    """Draw the slide with its tissue outline and the density of its nuclei."""
    slide, frame = work.slide, work.plan.frame
    side_um = max(slide.width * frame.l0_mpp_x, slide.height * frame.l0_mpp_y)
    rgb, _, _ = slide.thumbnail(max(side_um / OVERVIEW_SIDE, frame.l0_mpp_x))
    draw_overview(
        work.folder.path / OVERVIEW_NAME,
        rgb,
        l0_size=(slide.width, slide.height),
        l0_mpp=(slide.mpp.x, slide.mpp.y),
        tissue=work.plan.tissue.mask,
        centroids_l0=nuclei.centroids_l0,
    )


def finish_slide(work: SlideWork, summary: SlideSummary, effort: Effort, options: RunOptions) -> RunRecord:
    """Write the report and run.json, which says that all is there, and remove what is no longer needed."""
    folder = work.folder.path
    started = time.perf_counter()
    files = {name: path_digest(folder / name) for name in _written(options)}
    seconds = {**effort.seconds, **summary.seconds, "digests": time.perf_counter() - started}
    wall = effort.wall_seconds + time.perf_counter() - started  # the report itself tells it, so it cannot be in it
    stages = {stage: round(value, 3) for stage, value in seconds.items()}
    effort = dataclasses.replace(effort, seconds=stages, wall_seconds=wall)
    record = _record(work, summary, effort, options, files)
    started = time.perf_counter()
    write_slide_report(folder, record, work.slide)
    seconds = {**record.seconds, "report": round(time.perf_counter() - started, 3)}
    files = {**files, REPORT_NAME: path_digest(folder / REPORT_NAME)}
    record = dataclasses.replace(record, seconds=seconds, files=files)
    record.write(work.folder.record_path)
    work.folder.finish()
    return record


def _record(
    work: SlideWork,
    summary: SlideSummary,
    effort: Effort,
    options: RunOptions,
    files: Mapping[str, FileDigest],
) -> RunRecord:
    plan, model, slide, frame = work.plan, work.facts, work.slide, work.plan.frame
    return RunRecord(
        status="done",
        run_key=plan.key.values,
        slide_path=str(slide.path),
        slide_key=slide.identity,
        slide_bytes=slide.size_bytes,
        quickhash=slide.quickhash,
        vendor=slide.vendor,
        reader=slide.reader,
        objective_power=slide.objective_power,
        l0_size=(slide.width, slide.height),
        l0_mpp=(slide.mpp.x, slide.mpp.y),
        mpp_source=slide.mpp.source,
        scale=(frame.scale_x, frame.scale_y),
        tissue_mm2=round(plan.tissue_mm2, 6),
        tissue_source=plan.tissue.source,
        model=model.name,
        model_sha256=model.sha256,
        model_licence=model.licence,
        parameters=work.parameters,
        command=options.command,
        versions=package_versions(),
        git_commit=git_commit(),
        device=effort.device,
        seeds={},
        stain=dataclasses.asdict(work.stain),
        seconds=effort.seconds,
        wall_seconds=round(effort.wall_seconds, 3),
        timed_tiles=effort.timed_tiles,
        tiles=plan.n_tiles,
        tiles_per_second=round(effort.tiles_per_second, 3),
        peak_rss_bytes=effort.peak_rss_bytes,
        peak_vram_bytes=effort.peak_vram_bytes,
        nuclei=summary.nuclei,
        geojson_detail=options.geojson_detail,
        flags=summary.flags,
        quality=summary.quality,
        files=files,
    )
