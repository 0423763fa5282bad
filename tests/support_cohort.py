"""Finished slide folders with invented nuclei: statistics, reports and the Python interface need no more."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
import support_nuclei

from wsipipe.quality import CELL_SCHEMA, write_cells
from wsipipe.table import SCHEMA

TISSUE_MM2 = 4.0
SIDE_L0 = 8000  # px at 0.25 um: 2 mm
QUALITY = {
    "cells": 4,
    "focus_median": 0.5,
    "blurred_share": 0.0,
    "ink_share": 0.0,
    "flagged_nuclei_share": 0.0,
    "hematoxylin_od": 0.5,
    "eosin_od": 0.25,
}


@dataclass(frozen=True)
class Invented:
    """What to invent. log_area: mean of the nuclei's log area (um2); spread: its standard deviation."""

    n: int = 400
    log_area: float = math.log(50)
    spread: float = 0.3
    seed: int = 0
    flags: tuple[str, ...] = ()


def invent_table(spec: Invented) -> pa.Table:
    """Return rows of nuclei.parquet: areas as asked for, everything else random and without meaning."""
    rng = np.random.default_rng(spec.seed)
    n = spec.n
    columns: dict[str, object] = {name: rng.uniform(0.2, 0.9, n).astype(np.float32) for name in SCHEMA.names}
    area = np.exp(rng.normal(spec.log_area, spec.spread, n))
    x, y = rng.uniform(20, SIDE_L0 - 20, (2, n))
    columns |= {
        "label": np.arange(1, n + 1, dtype=np.uint32),
        "uuid": [f"{spec.seed:08d}-{i}" for i in range(n)],
        "class_name": ["Nucleus"] * n,
        "class_prob": pa.nulls(n, pa.float32()),
        "centroid_x_l0": x,
        "centroid_y_l0": y,
        "area_um2": area.astype(np.float32),
        "neighbour_distance_um": pa.array(rng.uniform(4, 12, n), pa.float32(), mask=np.arange(n) == 0),
        "neighbours_50um": rng.integers(0, 30, n).astype(np.int32),
        "touches_edge": np.zeros(n, bool),
        "is_outlier": rng.random(n) < 0.02,
        "in_artefact": rng.random(n) < 0.01,
        "geometry": shapely.to_wkb(shapely.box(x - 10, y - 10, x + 10, y + 10)),
    }
    return pa.table([pa.array(columns[field.name], field.type) for field in SCHEMA], schema=SCHEMA)


def invent_slide(out: Path, slide: str, spec: Invented, **changes: object) -> Path:
    """Write a finished slide folder with a table, cells and run.json; return it."""
    folder = out / slide
    folder.mkdir(parents=True)
    column = {"encoding": "WKB", "geometry_types": [], "crs": None}
    geo = json.dumps({"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}})
    pq.write_table(
        invent_table(spec).replace_schema_metadata({"geo": geo}), folder / "nuclei.parquet", row_group_size=300
    )
    write_cells(folder / "quality.parquet", CELL_SCHEMA.empty_table())
    record = support_nuclei.make_record(folder, spec.n, ("nuclei.parquet",), flags=spec.flags, quality=QUALITY)
    size = {"l0_size": (SIDE_L0, SIDE_L0), "l0_mpp": (0.25, 0.25), "scale": (1.0, 1.0), "tissue_mm2": TISSUE_MM2}
    replace(record, **(size | {"slide_path": f"/slides/{slide}.svs"} | changes)).write(folder / "run.json")
    return folder
