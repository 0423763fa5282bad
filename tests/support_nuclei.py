"""Drawn nuclei and slide folders that the tests of the writers share; everything goes through the real writers."""

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from wsipipe.frames import WorkFrame
from wsipipe.geojson import GeoJsonWriter
from wsipipe.labels import create_labels, level_sizes, list_shards, write_level0_shard, write_reduced_shard
from wsipipe.nuclei import Outlines, Runs
from wsipipe.outlines import simplify, to_l0, to_shapely, trace
from wsipipe.provenance import Provenance
from wsipipe.runrecord import RunRecord, path_digest
from wsipipe.table import SCHEMA, NucleiTableWriter, nucleus_uuids

FRAME = WorkFrame(l0_width=2600, l0_height=2001, l0_mpp_x=0.25, l0_mpp_y=0.25, scale_x=2.0, scale_y=2.0)
L0_MPP = (FRAME.l0_mpp_x, FRAME.l0_mpp_y)
PROVENANCE = Provenance("slide.svs", "0123abcd", "classical", "00ff", FRAME)


@dataclass(frozen=True)
class Sample:
    """Drawn nuclei: labels (H, W) int32 on the work grid, pixels as runs, polygons in l0 px, the final table."""

    labels: NDArray[np.int32]
    runs: Runs
    outlines_l0: Outlines
    table: pa.Table


def draw_labels(width: int, height: int, n: int, seed: int = 0) -> NDArray[np.int32]:
    """Draw about n ellipses apart from each other, every fifth with a hole; labels 1..n in raster order."""
    rng = np.random.default_rng(seed)
    free = np.zeros((height, width), dtype=np.uint8)
    labels = np.zeros((height, width), dtype=np.int32)
    for k in range(n):
        centre = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        axes = (int(rng.integers(4, 13)), int(rng.integers(4, 9)))
        mask = np.zeros_like(free)
        cv2.ellipse(mask, centre, axes, float(rng.integers(0, 180)), 0, 360, 1, -1)
        if k % 5 == 0:
            cv2.circle(mask, centre, 2, 0, -1)
        if mask.any() and not (mask & free).any():
            labels[mask > 0] = k + 1
            free |= cv2.dilate(mask, np.ones((3, 3), np.uint8))
    found, first = np.unique(labels, return_index=True)
    ranks = np.zeros(n + 2, dtype=np.int32)
    nuclei = found[found > 0][np.argsort(first[found > 0])]
    ranks[nuclei] = np.arange(1, len(nuclei) + 1)
    return ranks[labels]


def runs_of(labels: NDArray[np.int32]) -> Runs:
    """Return the runs of labels whose origin is (0, 0)."""
    step = np.diff(np.pad(labels, ((0, 0), (1, 1))), axis=1) != 0
    rows, cols = np.nonzero(step)
    x0, x1 = cols[:-1], cols[1:]
    keep = (rows[:-1] == rows[1:]) & (labels[rows[:-1], np.minimum(x0, labels.shape[1] - 1)] > 0)
    row, x0, x1 = rows[:-1][keep], x0[keep], x1[keep]
    label = labels[row, x0]
    order = np.lexsort((x0, row, label))
    return Runs(*(values[order].astype(np.int32) for values in (row, x0, x1, label)))


def make_sample(n: int = 60, frame: WorkFrame = FRAME, seed: int = 0) -> Sample:
    """Draw nuclei on a frame and fill the table: sizes and places are true, stain values are invented."""
    labels = draw_labels(frame.width, frame.height, n, seed)
    count = int(labels.max())
    outlines = to_l0(simplify(trace(labels, count, origin=(0, 0))), frame)
    return Sample(labels, runs_of(labels), outlines, _table(labels, count, outlines, frame, seed))


def _table(labels: NDArray[np.int32], n: int, outlines: Outlines, frame: WorkFrame, seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    polygons = to_shapely(outlines)
    rows, cols = np.nonzero(labels)
    ids = labels[rows, cols]
    pixels = np.bincount(ids, minlength=n + 1)[1:]
    columns: dict[str, object] = {name: rng.random(n).astype(np.float32) for name in SCHEMA.names}
    columns |= {
        "label": np.arange(1, n + 1, dtype=np.uint32),
        "uuid": nucleus_uuids(PROVENANCE.slide_key, 1, n),
        "class_name": ["Nucleus"] * n,
        "class_prob": np.full(n, np.nan, dtype=np.float32),
        "centroid_x_l0": (np.bincount(ids, cols, minlength=n + 1)[1:] / pixels + 0.5) * frame.scale_x,
        "centroid_y_l0": (np.bincount(ids, rows, minlength=n + 1)[1:] / pixels + 0.5) * frame.scale_y,
        "area_um2": (pixels * frame.mpp_x * frame.mpp_y).astype(np.float32),
        "perimeter_um": np.array([p.length * frame.l0_mpp_x for p in polygons], dtype=np.float32),
        "red_mean": (200 * rng.random(n)).astype(np.float32),
        "neighbour_distance_um": np.where(np.arange(n) == 3, np.nan, 8.25).astype(np.float32),
        "neighbours_50um": rng.integers(0, 30, n).astype(np.int32),
        "touches_edge": np.zeros(n, dtype=bool),
        "is_outlier": rng.random(n) < 0.1,
        "in_artefact": rng.random(n) < 0.1,
    }
    del columns["geometry"]
    return pa.table(columns)


def write_labels(path: Path, sample: Sample, provenance: Provenance = PROVENANCE) -> None:
    """Write a label pyramid shard by shard."""
    create_labels(path, provenance)
    for shard in list_shards(provenance.frame, 0):
        write_level0_shard(path, shard, [(sample.runs, 0)])
    for level in range(1, len(level_sizes(provenance.frame))):
        for shard in list_shards(provenance.frame, level):
            write_reduced_shard(path, shard)


def write_table(path: Path, sample: Sample, provenance: Provenance = PROVENANCE) -> None:
    """Write nuclei.parquet."""
    with NucleiTableWriter(path, provenance) as writer:
        writer.write(sample.outlines_l0, sample.table)


def write_geojson(path: Path, sample: Sample, detail: str = "full") -> None:
    """Write nuclei.geojson.gz."""
    with GeoJsonWriter(path, l0_mpp=L0_MPP, detail=detail) as writer:
        writer.write(sample.outlines_l0, sample.table)


def make_record(folder: Path, nuclei: int, names: tuple[str, ...], **changes: object) -> RunRecord:
    """Return the record of a finished run whose files lie in folder."""
    values: dict[str, object] = {
        "status": "done",
        "run_key": {"model": "classical"},
        "slide_path": "/slides/slide.svs",
        "slide_key": PROVENANCE.slide_key,
        "slide_bytes": 1234,
        "quickhash": "0123",
        "vendor": "aperio",
        "reader": "openslide",
        "objective_power": 40.0,
        "l0_size": (FRAME.l0_width, FRAME.l0_height),
        "l0_mpp": (FRAME.l0_mpp_x, FRAME.l0_mpp_y),
        "mpp_source": "slide",
        "scale": (FRAME.scale_x, FRAME.scale_y),
        "tissue_mm2": math.pi,
        "tissue_source": "auto",
        "model": PROVENANCE.model,
        "model_sha256": PROVENANCE.model_sha256,
        "model_licence": "Apache-2.0",
        "parameters": {"threshold": 0.5},
        "command": ("wsipipe", "run", "slide.svs"),
        "versions": {"python": "3.11"},
        "git_commit": None,
        "device": "cpu",
        "seeds": {"torch": 0},
        "stain": {"source": "qupath"},
        "seconds": {"infer": 1.5},
        "tiles": 4,
        "tiles_per_second": 2.67,
        "peak_rss_bytes": 1 << 30,
        "peak_vram_bytes": None,
        "nuclei": nuclei,
        "geojson_detail": "full",
        "quality": {},
        "flags": ("median diameter 20 um",),
        "files": {name: path_digest(folder / name) for name in names},
    }
    return RunRecord(**values | changes)  # type: ignore[arg-type]


OUTPUTS = ("nuclei.parquet", "nuclei.geojson.gz", "labels.ome.zarr")


def make_folder(folder: Path, sample: Sample) -> None:
    """Write a finished slide folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / "nuclei.parquet", sample)
    write_geojson(folder / "nuclei.geojson.gz", sample)
    write_labels(folder / "labels.ome.zarr", sample)
    make_record(folder, sample.table.num_rows, OUTPUTS).write(folder / "run.json")
