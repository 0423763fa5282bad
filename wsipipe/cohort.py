"""Many slides to one table: a row per finished slide, and the list of those that failed."""

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from wsipipe import __version__
from wsipipe.atomic import replacing, write_text
from wsipipe.errors import OutputError
from wsipipe.journal import SlideFolder
from wsipipe.options import RunOptions
from wsipipe.runrecord import read_record

# Columns of nuclei.parquet that get a mean, a standard deviation and quantiles in the cohort's table.
SUMMARISED = (
    "area_um2",
    "perimeter_um",
    "max_diameter_um",
    "min_diameter_um",
    "eccentricity",
    "circularity",
    "solidity",
    "hematoxylin_od_mean",
    "eosin_od_mean",
    "neighbour_distance_um",
)
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, slots=True)
class Failure:
    """An input without a result. fatal is False for one that was only left out, such as a slide listed twice."""

    path: str
    slide: str
    reason: str
    fatal: bool


def write_failures(out: Path, failures: Iterable[Failure]) -> None:
    """Write failed.csv: path, id, status (failed or skipped), reason; only a header when nothing failed."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "id", "status", "reason"])
    for failure in failures:
        writer.writerow([failure.path, failure.slide, "failed" if failure.fatal else "skipped", failure.reason])
    write_text(out / "failed.csv", text.getvalue())


def write_cohort(
    out: Path, folders: Iterable[Path], failures: Iterable[Failure], seconds: float, options: RunOptions
) -> None:
    """Write the cohort's tables and the run's record at the end of a run.

    Args:
        out: the output folder.
        folders: finished slide folders of this run.
        failures: inputs without a result.
        seconds: duration of the run.
        options: as the user chose.
    """
    failed = list(failures)
    write_failures(out, failed)
    n_slides = write_tables(out, folders)
    record = {
        "wsipipe": __version__,
        "command": list(options.command),
        "model": options.model,
        "device": options.device,
        "slides_done": n_slides,
        "slides_failed": sum(failure.fatal for failure in failed),
        "seconds": round(seconds, 3),
    }
    write_text(out / "run.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def rebuild_cohort(out: Path) -> int:
    """Make cohort.parquet and cohort.csv anew from every finished slide folder below out.

    Returns:
        The number of slides in them.

    Raises:
        OutputError: out is no folder.
    """
    if not out.is_dir():
        raise OutputError(f"output folder does not exist: {out}")
    return write_tables(out, sorted(p.parent for p in out.glob("*/run.json") if SlideFolder(p.parent).is_done()))


def write_tables(out: Path, folders: Iterable[Path]) -> int:
    """Write cohort.parquet and cohort.csv, one row per folder; return the number of rows."""
    rows = [_row(folder) for folder in folders]
    table = pa.Table.from_pylist(rows, schema=_schema())
    with replacing(out / "cohort.parquet") as partial:
        pq.write_table(table, partial)
    with replacing(out / "cohort.csv") as partial:
        pa_csv.write_csv(table, partial)
    return len(rows)


def _schema() -> pa.Schema:
    fields = [("slide", pa.string()), ("path", pa.string()), ("nuclei", pa.int64()), ("tissue_mm2", pa.float64())]
    fields += [("nuclei_per_mm2", pa.float64())]
    for column in SUMMARISED:
        fields += [(f"{column}_{statistic}", pa.float64()) for statistic in _statistic_names()]
    fields += [("slide_mpp", pa.float64()), ("work_mpp", pa.float64()), ("model", pa.string())]
    fields += [("seconds", pa.float64()), ("flags", pa.string()), ("folder", pa.string())]
    return pa.schema(fields)


def _statistic_names() -> list[str]:
    return ["mean", "sd", *(f"q{round(q * 100):02d}" for q in QUANTILES)]


def _row(folder: Path) -> dict[str, str | int | float | None]:
    record = read_record(folder / "run.json")
    row: dict[str, str | int | float | None] = {
        "slide": folder.name,
        "path": record.slide_path,
        "nuclei": record.nuclei,
        "tissue_mm2": record.tissue_mm2,
        "nuclei_per_mm2": record.nuclei / record.tissue_mm2 if record.tissue_mm2 > 0 else None,
        "slide_mpp": record.l0_mpp[0],
        "work_mpp": record.frame.mpp,
        "model": record.model,
        "seconds": sum(record.seconds.values()),
        "flags": "; ".join(record.flags),
        "folder": str(folder),
    }
    for column in SUMMARISED:
        values = pq.read_table(folder / "nuclei.parquet", columns=[column])[column].to_numpy()
        row |= zip((f"{column}_{name}" for name in _statistic_names()), _statistics(values), strict=True)
    return row


def _statistics(values: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> list[float | None]:
    """Mean, sample standard deviation and QUANTILES of the finite values; None where undefined."""
    finite = values[np.isfinite(values)].astype(np.float64)
    if not len(finite):
        return [None] * len(_statistic_names())
    deviation = float(finite.std(ddof=1)) if len(finite) > 1 else None
    return [float(finite.mean()), deviation, *(float(q) for q in np.quantile(finite, QUANTILES))]
