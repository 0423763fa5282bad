"""Many slides to tables and a page: a row per finished slide, groups of patients compared, the list of failures."""

import csv
import io
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from wsipipe import __version__
from wsipipe.atomic import replacing, write_text
from wsipipe.classcounts import ClassCount, count_classes
from wsipipe.cohortreport import CohortPage, write_cohort_report
from wsipipe.dataset import link_dataset
from wsipipe.effects import Effect, GroupSummary, Interval, compare_groups, summarise_groups
from wsipipe.errors import OutputError
from wsipipe.failures import Failure, read_failures, write_failures
from wsipipe.journal import SlideFolder
from wsipipe.metadata import Metadata, join_notes, read_metadata
from wsipipe.options import RunOptions
from wsipipe.replacement import recover
from wsipipe.runrecord import read_record
from wsipipe.summary import MEASUREMENTS, SUMMARY_SCHEMA, SUMMARY_VERSION, Row, summarise_slide

logger = logging.getLogger(__name__)

COMPARED = ("nuclei_per_mm2", "clark_evans", "area_um2_sd", *(f"{name}_mean" for name in MEASUREMENTS))
GROUPS_NAME, EFFECTS_NAME, CLASSES_NAME = "cohort-groups.csv", "cohort-effects.csv", "cohort-classes.csv"
_Long = GroupSummary | Effect | ClassCount  # items of the tables with a line per item


@dataclass(frozen=True, slots=True)
class Cohort:
    """The finished slides of an output folder, and what groups of them say.

    classes: nuclei by class, for slides whose model tells classes; unusable: folders that are left out.
    """

    rows: tuple[Row, ...]
    metadata: Metadata | None
    groups: tuple[GroupSummary, ...]
    effects: tuple[Effect, ...]
    classes: tuple[ClassCount, ...] = ()
    unusable: tuple[Failure, ...] = ()

    @property
    def notes(self) -> list[str]:
        """What does not fit between the slides and the metadata, a line each."""
        return join_notes({row["slide"] for row in self.rows}, self.metadata) if self.metadata else []


def write_cohort(
    out: Path, folders: Iterable[Path], failures: Iterable[Failure], seconds: float, options: RunOptions
) -> Cohort:
    """Write the run's record and the tables and page of all finished slides in out, at the end of a run.

    Args:
        out: the output folder.
        folders: finished slide folders of this run.
        failures: inputs without a result.
        seconds: wall time of the run.
        options: as the user chose.

    Returns:
        What the tables hold.
    """
    failed = list(failures)
    done = list(folders)
    write_failures(out, [*failed, *_still_failed(out, {f.slide for f in failed} | {path.name for path in done})])
    record = {
        "wsipipe": __version__,
        "command": list(options.command),
        "model": options.model,
        "device": options.device,
        "slides_done": len(done),
        "slides_failed": sum(failure.fatal for failure in failed),
        "wall_seconds": round(seconds, 3),
    }
    write_text(out / "run.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    metadata = None
    if options.metadata is not None:
        metadata = read_metadata(options.metadata, patient=options.patient, groups=options.groups)
    return rebuild_cohort(out, metadata)


def rebuild_cohort(out: Path, metadata: Metadata | None = None) -> Cohort:
    """Make the cohort's tables, dataset and page anew from every finished slide folder below out.

    Returns:
        What they hold.

    Raises:
        OutputError: out is no folder.
    """
    if not out.is_dir():
        raise OutputError(f"output folder does not exist: {out}")
    recover(out)
    cohort = read_cohort(out, metadata)
    _list_unusable(out, cohort.unusable)
    _write_slides(out, cohort)
    _write_long(out / GROUPS_NAME, GroupSummary, cohort.groups)
    _write_long(out / EFFECTS_NAME, Effect, cohort.effects)
    _write_long(out / CLASSES_NAME, ClassCount, cohort.classes)
    link_dataset(out, [row["slide"] for row in cohort.rows])
    page = CohortPage(cohort.rows, metadata, cohort.groups, cohort.effects, tuple(read_failures(out)), _run(out))
    write_cohort_report(out / "cohort.html", page)
    return cohort


def read_cohort(out: Path, metadata: Metadata | None = None) -> Cohort:
    """Summarise the finished slides below out; statistics of nuclei.parquet that did not change are not redone."""
    known = _known_rows(out)
    rows: list[Row] = []
    classes: list[ClassCount] = []
    unusable: list[Failure] = []
    for folder in sorted(path.parent for path in out.glob("*/run.json") if SlideFolder(path.parent).is_done()):
        try:
            record = read_record(folder / "run.json")
            earlier = known.get((folder.name, record.files["nuclei.parquet"].sha256))
            row, counts = summarise_slide(folder, record, earlier), count_classes(folder, record)
            rows.append(row)
            classes += counts
        except (OSError, KeyError, pa.ArrowException) as error:
            reason = f"left out of the cohort, cannot be read ({' '.join(str(error).split())}); repeat with --overwrite"
            logger.warning("%s: %s", folder, reason)
            unusable.append(Failure(str(folder), folder.name, reason, True))
    if metadata is None:
        return Cohort(tuple(rows), None, (), (), tuple(classes), tuple(unusable))
    values = {row["slide"]: row for row in rows}
    return Cohort(
        tuple(rows),
        metadata,
        tuple(summarise_groups(values, metadata, COMPARED)),
        tuple(compare_groups(values, metadata, COMPARED)),
        tuple(classes),
        tuple(unusable),
    )


def _still_failed(out: Path, tried: set[str]) -> list[Failure]:
    """Return the failures of earlier runs whose slides this run did not try and that are still without a result."""
    earlier = (failure for failure in read_failures(out) if failure.fatal and failure.slide)
    return [f for f in earlier if f.slide not in tried and not SlideFolder(out / f.slide).is_done()]


def _list_unusable(out: Path, unusable: Sequence[Failure]) -> None:
    """Bring failed.csv up to date about finished folders that cannot be read."""
    listed = read_failures(out)
    inputs = [failure for failure in listed if Path(failure.path).resolve() != (out / failure.slide).resolve()]
    if unusable or len(inputs) < len(listed):
        write_failures(out, [*inputs, *unusable])


def _known_rows(out: Path) -> dict[tuple[str, str], Row]:
    """Return the rows of an earlier cohort.parquet by slide and hash of its nuclei; none of another version."""
    path = out / "cohort.parquet"
    if not path.is_file():
        return {}
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException):
        return {}  # damaged; it is about to be replaced
    version = (table.schema.metadata or {}).get(b"wsipipe_summary")
    if version != str(SUMMARY_VERSION).encode() or set(SUMMARY_SCHEMA.names) - set(table.column_names):
        return {}
    return {(row["slide"], row["nuclei_sha256"]): row for row in table.to_pylist()}


def _write_slides(out: Path, cohort: Cohort) -> None:
    """Write cohort.parquet and cohort.csv: SUMMARY_SCHEMA, with the metadata's columns after the slide's id."""
    table = pa.Table.from_pylist(list(cohort.rows), schema=SUMMARY_SCHEMA)
    if cohort.metadata:
        for place, name in enumerate(cohort.metadata.columns, start=1):
            texts = pa.array([cohort.metadata.value(row["slide"], name) or None for row in cohort.rows], pa.string())
            table = table.add_column(place, f"meta_{name}" if name in SUMMARY_SCHEMA.names else name, texts)
    table = table.replace_schema_metadata({"wsipipe_summary": str(SUMMARY_VERSION)})
    with replacing(out / "cohort.parquet") as partial:
        pq.write_table(table, partial)
    with replacing(out / "cohort.csv") as partial:
        pa_csv.write_csv(table, partial)


def _write_long(path: Path, kind: type[_Long], items: Sequence[_Long]) -> None:
    """Write one line per item; an interval becomes three columns. Without items there is no file."""
    if not items:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([name for field in fields(kind) for name in _columns(field.name)])
    for item in items:
        writer.writerow(list(_cells(item)))
    write_text(path, text.getvalue())


_INTERVALS = ("difference", "hedges_g", "ratio")


def _columns(name: str) -> tuple[str, ...]:
    return (name, f"{name}_low", f"{name}_high") if name in _INTERVALS else (name,)


def _cells(item: _Long) -> Iterator[Any]:
    for field in fields(item):
        value = getattr(item, field.name)
        if field.name not in _INTERVALS:
            yield value
        elif isinstance(value, Interval):
            yield from asdict(value).values()
        else:
            yield from (None, None, None)


def _run(out: Path) -> dict[str, Any]:
    """Return the record of the last run, empty where there is none."""
    try:
        value = json.loads((out / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
