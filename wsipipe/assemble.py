"""From block files to a slide's outputs: ids, neighbours and outliers over the whole slide, then every writer.

Each step is a function of the block files alone and writes whole files: an interrupted assembly is simply done again.
"""

import dataclasses
import functools
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from wsipipe.blockfile import read_block_outlines, read_block_runs, read_block_table
from wsipipe.blockwork import SlideWork
from wsipipe.clock import StageClock
from wsipipe.drawing import draw_overview
from wsipipe.geojson import GeoJsonWriter
from wsipipe.grid import Box
from wsipipe.labels import create_labels, level_sizes, list_shards, write_level0_shard, write_reduced_shard
from wsipipe.machine import device_name, peak_rss_bytes, peak_vram_bytes
from wsipipe.measure import BLOCK_SCHEMA, neighbours, outliers
from wsipipe.nuclei import Runs
from wsipipe.options import RunOptions
from wsipipe.outlines import to_l0
from wsipipe.plausibility import plausibility_flags
from wsipipe.provenance import Provenance
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
from wsipipe.runrecord import FileDigest, RunRecord, git_commit, package_versions, path_digest
from wsipipe.table import NucleiTableWriter, nucleus_uuids

TABLE_NAME = "nuclei.parquet"
GEOJSON_NAME = "nuclei.geojson.gz"
LABELS_NAME = "labels.ome.zarr"
OVERVIEW_NAME = "overview.png"
QUALITY_NAME = "quality.parquet"
OVERVIEW_SIDE = 2000  # px of the overview's longer side, at most
RUNS_KEPT = 64  # blocks whose runs stay in memory while neighbouring shards are painted
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


def assemble(work: SlideWork, options: RunOptions, clock: StageClock) -> RunRecord:
    """Write every output of a slide whose blocks are all extracted; run.json comes last and says `done`."""
    folder = work.folder.path
    with clock.timed("gather"):
        nuclei = gather(work)
    with clock.timed("tables"):
        write_nuclei(work, nuclei, options)
    with clock.timed("labels"):
        write_labels(work, nuclei)
    with clock.timed("overview"):
        write_overview(work, nuclei)
        write_cells(folder / QUALITY_NAME, nuclei.cells)
    files = {name: path_digest(folder / name) for name in _written(options)}
    record = _record(work, nuclei, options, clock.seconds, files)
    record.write(work.folder.record_path)
    return record


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


def provenance_of(work: SlideWork) -> Provenance:
    """Return what every file of the slide's folder carries."""
    model = work.segmenter
    return Provenance(work.slide.path.name, work.slide.identity, model.name, model.sha256, work.plan.frame)


def write_nuclei(work: SlideWork, nuclei: SlideNuclei, options: RunOptions) -> None:
    """Write the table and the GeoJSON, block by block."""
    folder, frame = work.folder.path, work.plan.frame
    with ExitStack() as stack:
        table_writer = stack.enter_context(NucleiTableWriter(folder / TABLE_NAME, provenance_of(work)))
        geojson_writer = None
        if options.geojson_detail != "none":
            geojson_writer = stack.enter_context(
                GeoJsonWriter(
                    folder / GEOJSON_NAME, detail=options.geojson_detail, class_names=work.segmenter.class_names
                )
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


def write_labels(work: SlideWork, nuclei: SlideNuclei) -> None:
    """Write the label pyramid, finest level first, shard by shard."""
    target = work.folder.path / LABELS_NAME
    partial = target.with_name(f".{LABELS_NAME}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    frame = work.plan.frame
    create_labels(partial, provenance_of(work))
    read_runs = functools.lru_cache(maxsize=RUNS_KEPT)(
        lambda position: read_block_runs(work.folder.block_path(nuclei.blocks[position]))
    )
    boxes = [bounds(read_runs(position)) for position in range(len(nuclei.blocks))]
    for shard in list_shards(frame, 0, boxes):
        meeting = [position for position, box in enumerate(boxes) if not box.intersect(shard.box).is_empty]
        parts = ((read_runs(position), int(nuclei.first_label[position]) - 1) for position in meeting)
        write_level0_shard(partial, shard, parts)
    for level in range(1, len(level_sizes(frame))):
        for shard in list_shards(frame, level, boxes):
            write_reduced_shard(partial, shard)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(partial, target)


def bounds(runs: Runs) -> Box:
    """Return the smallest box around all runs, empty if there are none."""
    if not len(runs.row):
        return Box(0, 0, 0, 0)
    return Box(int(runs.x0.min()), int(runs.row.min()), int(runs.x1.max()), int(runs.row.max()) + 1)


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


def _record(
    work: SlideWork,
    nuclei: SlideNuclei,
    options: RunOptions,
    seconds: Mapping[str, float],
    files: Mapping[str, FileDigest],
) -> RunRecord:
    plan, model, slide, frame = work.plan, work.segmenter, work.slide, work.plan.frame
    inferring = seconds.get("infer_extract", 0.0)
    flags = plausibility_flags(
        nuclei=len(nuclei), tissue_mm2=plan.tissue_mm2, median_diameter_um=nuclei.median_diameter_um
    )
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
        parameters=dict(model.parameters),
        command=options.command,
        versions=package_versions(),
        git_commit=git_commit(),
        device=device_name(options.device),
        seeds={},
        stain=dataclasses.asdict(work.stain),
        seconds={stage: round(value, 3) for stage, value in seconds.items()},
        tiles=plan.n_tiles,
        tiles_per_second=round(plan.n_tiles / inferring, 3) if inferring > 0 else 0.0,
        peak_rss_bytes=peak_rss_bytes(),
        peak_vram_bytes=peak_vram_bytes(options.device),
        nuclei=len(nuclei),
        geojson_detail=options.geojson_detail,
        flags=flags + quality_flags(nuclei.quality),
        quality=nuclei.quality.to_json(),
        files=files,
    )
