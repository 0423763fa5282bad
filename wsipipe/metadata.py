"""The study's own table: which slide belongs to which patient and to which groups."""

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from wsipipe.errors import UsageError
from wsipipe.wording import counted

SLIDE_COLUMNS = ("slide", "slide_id", "id")
PATIENT_COLUMNS = ("patient", "patient_id", "case", "case_id")
MAX_GROUPS = 8  # a column with more different values is no grouping, unless it is named


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a metadata CSV says.

    Attributes:
        path: the file.
        columns: all columns but that of the slide, in order.
        rows: slide id -> column -> text; empty text means unknown.
        patient: the column that names patients, None if there is none.
        groups: the columns that slides are grouped by.
    """

    path: Path
    columns: tuple[str, ...]
    rows: dict[str, dict[str, str]]
    patient: str | None
    groups: tuple[str, ...]

    def value(self, slide: str, column: str) -> str:
        """Return a value, empty if the slide or the value is unknown."""
        return self.rows.get(slide, {}).get(column, "")

    def patient_of(self, slide: str) -> str:
        """Return the patient of a slide; without a patient column, or without a value, the slide stands for itself."""
        return (self.value(slide, self.patient) if self.patient else "") or f"slide {slide}"


def read_metadata(path: Path, *, patient: str | None = None, groups: tuple[str, ...] = ()) -> Metadata:
    """Read a metadata CSV (UTF-8, comma or semicolon).

    Args:
        path: a table with a column `slide` (or slide_id, id): the id of the slide, which is its folder's name.
        patient: the column that names patients; None takes patient, patient_id, case or case_id if there is one.
        groups: columns to group by; empty takes every other column with 2 to MAX_GROUPS different values.

    Raises:
        UsageError: it cannot be read, misses a column, or lists a slide twice.
    """
    header, lines = _read_csv(path)
    key = next((name for name in SLIDE_COLUMNS if name in header), None)
    if key is None:
        raise UsageError(f"--metadata needs a column named slide (or slide_id, id), has {', '.join(header)}: {path}")
    for name in (*([patient] if patient else []), *groups):
        if name not in header:
            raise UsageError(f"--metadata has no column {name!r}, it has {', '.join(header)}: {path}")
    twice = [slide for slide, n in Counter(line[key] for line in lines).items() if n > 1]
    if twice:
        raise UsageError(f"--metadata lists slides more than once ({', '.join(twice[:5])}); keep one row each: {path}")
    columns = tuple(name for name in header if name != key)
    rows = {line[key]: {name: line[name] for name in columns} for line in lines if line[key]}
    chosen = patient or next((name for name in PATIENT_COLUMNS if name in columns), None)
    return Metadata(path, columns, rows, chosen, groups or _groupings(columns, rows, chosen))


def join_notes(slides: set[str], metadata: Metadata) -> list[str]:
    """Say in a line each what of the finished slides and the metadata does not fit together; empty if all does."""
    name = metadata.path.name
    missing, unknown = sorted(slides - metadata.rows.keys()), sorted(metadata.rows.keys() - slides)
    notes = []
    if missing:
        notes.append(f"not in {name}, so in no group: {_counted(missing, 'slide')}")
    if unknown:
        zeros = _lost_zeros(missing, unknown)
        notes.append(f"rows of {name} without a finished slide here: {_counted(unknown, 'row')}{zeros}")
    if not metadata.groups:
        notes.append(f"no column of {name} has 2 to {MAX_GROUPS} different values, so there are no groups; use --group")
    return notes


def _counted(names: list[str], noun: str) -> str:
    return f"{counted(len(names), noun)} ({', '.join(names[:8])}{', ...' if len(names) > 8 else ''})"


def _lost_zeros(missing: list[str], unknown: list[str]) -> str:
    """Say so if ids differ by leading zeros only, which spreadsheets and pandas take away."""
    short = {slide.lstrip("0"): slide for slide in missing}
    lost = next((name for name in unknown if name.lstrip("0") in short), None)
    if lost is None:
        return ""
    return f"; {lost} may be slide {short[lost.lstrip('0')]} without its zeros: keep ids as text in the table"


def _read_csv(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--metadata must be a readable UTF-8 CSV ({error}): {path}") from error
    first = text.split("\n", 1)[0]
    delimiter = ";" if first.count(";") > first.count(",") else ","
    try:
        found = [line for line in csv.reader(text.splitlines(), delimiter=delimiter, strict=True) if any(line)]
    except csv.Error as error:
        raise UsageError(f"--metadata must be CSV ({error}): {path}") from error
    if len(found) < 2:
        raise UsageError(f"--metadata needs a header and at least one row: {path}")
    header = [name.strip() for name in found[0]]
    if len(set(header)) != len(header) or not all(header):
        raise UsageError(f"--metadata needs a different name for every column, has {', '.join(header)}: {path}")
    lines = [dict(zip(header, [v.strip() for v in line] + [""] * len(header), strict=False)) for line in found[1:]]
    return header, lines


def _groupings(columns: tuple[str, ...], rows: dict[str, dict[str, str]], patient: str | None) -> tuple[str, ...]:
    def is_grouping(name: str) -> bool:
        values = {row[name] for row in rows.values()} - {""}
        return name != patient and 2 <= len(values) <= MAX_GROUPS and len(values) < max(3, len(rows))

    return tuple(name for name in columns if is_grouping(name))
