"""failed.csv: the inputs of a run that have no result, each with its reason."""

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from wsipipe.atomic import write_text

NAME = "failed.csv"


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
    write_text(out / NAME, text.getvalue())


def read_failures(out: Path) -> list[Failure]:
    """Read failed.csv of the last run; empty where there is none."""
    path = out / NAME
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as lines:
        return [
            Failure(row["path"], row["id"], row["reason"], row["status"] == "failed") for row in csv.DictReader(lines)
        ]
