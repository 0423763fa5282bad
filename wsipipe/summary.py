"""One slide in one row: distributions of its nuclei's measurements, their arrangement, its quality and its run.

Columns of nuclei.parquet are read one at a time: memory is about 20 bytes per nucleus of the largest slide, however
many slides there are.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from wsipipe.measure import NEIGHBOUR_RADIUS_UM, OUTLIER_LIMIT
from wsipipe.runrecord import RunRecord
from wsipipe.table import SCHEMA

SUMMARY_VERSION = 1  # of the statistics below; rows of another version are computed again
_MAD_TO_SD = 1.4826  # of a normal distribution
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
STATISTICS = ("count", "mean", "sd", *(f"q{round(100 * q):02d}" for q in QUANTILES), "outliers")
# Angles and positions have no mean; class_prob belongs to the class.
_LEFT_OUT = ("class_prob", "centroid_x_l0", "centroid_y_l0", "orientation_rad")
MEASUREMENTS = (
    *(f.name for f in SCHEMA if pa.types.is_floating(f.type) and f.name not in _LEFT_OUT),
    "neighbours_50um",
)
SHARES = ("is_outlier", "in_artefact", "touches_edge")  # flags of nuclei -> column `<name>_share`
QUALITY = ("focus_median", "blurred_share", "ink_share", "hematoxylin_od", "eosin_od")  # of run.json
_DISTRIBUTIONS = tuple((f"{name}_{statistic}", statistic) for name in MEASUREMENTS for statistic in STATISTICS)
OF_NUCLEI = (
    *(name for name, _ in _DISTRIBUTIONS),
    *(f"{name}_share" for name in SHARES),
    "local_nuclei_per_mm2",
    "clark_evans",
)
_TEXT, _INT, _FLOAT = pa.string(), pa.int64(), pa.float64()
SUMMARY_SCHEMA = pa.schema(
    [
        pa.field("slide", _TEXT, nullable=False),
        pa.field("path", _TEXT, nullable=False),
        pa.field("nuclei", _INT, nullable=False),
        pa.field("tissue_mm2", _FLOAT, nullable=False),
        pa.field("nuclei_per_mm2", _FLOAT),
        pa.field("local_nuclei_per_mm2", _FLOAT),
        pa.field("clark_evans", _FLOAT),
        *(pa.field(name, _INT if statistic in ("count", "outliers") else _FLOAT) for name, statistic in _DISTRIBUTIONS),
        *(pa.field(f"{name}_share", _FLOAT) for name in SHARES),
        *(pa.field(name, _FLOAT) for name in QUALITY),
        pa.field("slide_mpp", _FLOAT, nullable=False),
        pa.field("mpp_source", _TEXT, nullable=False),
        pa.field("work_mpp", _FLOAT, nullable=False),
        pa.field("model", _TEXT, nullable=False),
        pa.field("model_sha256", _TEXT, nullable=False),
        pa.field("device", _TEXT, nullable=False),
        pa.field("wall_seconds", _FLOAT),
        pa.field("stage_seconds", _FLOAT, nullable=False),
        pa.field("tiles", _INT, nullable=False),
        pa.field("tiles_per_second", _FLOAT, nullable=False),
        pa.field("peak_rss_bytes", _INT, nullable=False),
        pa.field("flags", _TEXT, nullable=False),
        pa.field("nuclei_sha256", _TEXT, nullable=False),
    ]
)

Row = dict[str, Any]


def summarise_slide(folder: Path, record: RunRecord, known: Row | None = None) -> Row:
    """Return the row of a finished slide.

    Args:
        folder: the slide folder; its name is the slide's id.
        record: its run.json.
        known: an earlier row of the same nuclei.parquet, whose statistics are taken over.
    """
    table = record.files["nuclei.parquet"]
    statistics = {name: known[name] for name in OF_NUCLEI} if known else nuclei_statistics(folder, record)
    return {
        "slide": folder.name,
        "path": record.slide_path,
        "nuclei": record.nuclei,
        "tissue_mm2": record.tissue_mm2,
        "nuclei_per_mm2": record.nuclei / record.tissue_mm2 if record.tissue_mm2 > 0 else None,
        "slide_mpp": math.sqrt(math.prod(record.l0_mpp)),
        "mpp_source": record.mpp_source,
        "work_mpp": record.frame.mpp,
        "model": record.model,
        "model_sha256": record.model_sha256,
        "device": record.device,
        "wall_seconds": record.wall_seconds,
        "stage_seconds": record.stage_seconds,
        "tiles": record.tiles,
        "tiles_per_second": record.tiles_per_second,
        "peak_rss_bytes": record.peak_rss_bytes,
        "flags": "; ".join(record.flags),
        "nuclei_sha256": table.sha256,
        **{name: record.quality.get(name) for name in QUALITY},
        **statistics,
    }


def nuclei_statistics(folder: Path, record: RunRecord) -> Row:
    """Return what only the nuclei tell: OF_NUCLEI."""
    row: Row = {}
    with pq.ParquetFile(folder / "nuclei.parquet") as file:
        for name in MEASUREMENTS:
            values = read_column(file, name)
            row |= zip((f"{name}_{s}" for s in STATISTICS), describe(values), strict=True)
        for name in SHARES:
            values = read_column(file, name)
            row[f"{name}_share"] = float(values.mean()) if len(values) else None
    neighbours, distance = row["neighbours_50um_q50"], row["neighbour_distance_um_mean"]
    area_mm2 = math.pi * (NEIGHBOUR_RADIUS_UM / 1000) ** 2
    row["local_nuclei_per_mm2"] = None if neighbours is None else (neighbours + 1) / area_mm2
    row["clark_evans"] = clark_evans(distance, record.nuclei, record.tissue_mm2)
    return row


def read_column(file: pq.ParquetFile, name: str) -> NDArray[np.float64]:
    """Read one column as float64, row group by row group; nulls and what is not finite are left out."""
    values = np.empty(file.metadata.num_rows, np.float64)
    at = 0
    for group in range(file.num_row_groups):
        part = file.read_row_group(group, columns=[name])[name].cast(pa.float64()).to_numpy()
        part = part[np.isfinite(part)]
        values[at : at + len(part)] = part
        at += len(part)
    return values[:at]


def describe(values: NDArray[np.float64]) -> list[float | int | None]:
    """Return STATISTICS of finite values, which are put in order; None where undefined.

    Standard deviation with n - 1; quantiles interpolate linearly between neighbours; outliers are the number of values
    more than OUTLIER_LIMIT robust standard deviations (1.4826 times the median absolute deviation) from the median.
    """
    n = len(values)
    if not n:
        return [0, *[None] * (len(STATISTICS) - 2), 0]
    values.sort()
    mean = float(values.mean())
    spread = math.sqrt(float(np.square(values - mean).sum()) / (n - 1)) if n > 1 else None
    quantiles = [_quantile(values, q) for q in QUANTILES]
    away = np.abs(values - quantiles[2])
    limit = OUTLIER_LIMIT * _MAD_TO_SD * float(np.median(away))
    return [n, mean, spread, *quantiles, int(np.count_nonzero(away > limit)) if limit > 0 else 0]


def _quantile(ordered: NDArray[np.float64], q: float) -> float:
    at = q * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low] + (ordered[high] - ordered[low]) * (at - low))


def clark_evans(mean_distance_um: float | None, nuclei: int, tissue_mm2: float) -> float | None:
    """Return how regular an arrangement is: 1 at random, below clustered, above regular (Clark & Evans 1954).

    Mean distance to the nearest neighbour over the 0.5 / sqrt(density) of a random arrangement on the tissue; without
    a correction for its border.
    """
    if mean_distance_um is None or nuclei < 2 or tissue_mm2 <= 0:
        return None
    return mean_distance_um / (0.5 / math.sqrt(nuclei / (tissue_mm2 * 1e6)))
