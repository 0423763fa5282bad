"""From what a user types (files, globs, folders, CSV tables) to the list of slides of a run."""

import csv
import glob
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wsipipe.errors import UsageError
from wsipipe.scale import parse_mpp

# Formats of OpenSlide 4 (openslide.org/formats); a file named outright is tried whatever its suffix.
SUFFIXES = frozenset(
    ".svs .tif .tiff .ndpi .vms .vmu .scn .mrxs .svslide .bif .dcm .czi".split()  # noqa: SIM905
)

COLUMNS = ("path", "mpp", "id")  # of a slide table

# What stands in the output folder beside the slides' folders; case counts for nothing on some systems.
_RESERVED = re.compile(r"cohort\..*|cohort-.*\.csv|failed\.csv|run\.json|nuclei\.dataset", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SlideJob:
    """One slide to do. id: its folder's name; mpp: the user's value for it, None to read it from the file."""

    path: Path
    id: str
    mpp: float | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """An input that does not become a job. fatal: it counts as a failure; else it is only mentioned."""

    path: str
    id: str
    reason: str
    fatal: bool


@dataclass(frozen=True, slots=True)
class SlideList:
    """The jobs of a run, the inputs that did not become one, and lines about what the user may not expect."""

    jobs: tuple[SlideJob, ...]
    refusals: tuple[Refusal, ...]
    notes: tuple[str, ...] = ()


Item = SlideJob | Refusal | str  # str: a note


def list_slides(inputs: list[str], *, mpp: float | None) -> SlideList:
    """Turn command-line inputs into jobs.

    Args:
        inputs: files, glob patterns, folders (their slides, not recursive), `.csv` tables with a column `path` and
            optional columns `mpp` and `id`; relative paths in a table count from the table's folder.
        mpp: override for every slide whose table gives none.

    Raises:
        UsageError: a table cannot be read or misses its column.
    """
    jobs: dict[str, SlideJob] = {}
    seen: set[Path] = set()
    refusals: list[Refusal] = []
    notes: list[str] = []
    for item in (found for text in inputs for found in _expand(text, mpp)):
        if isinstance(item, Refusal):
            refusals.append(item)
            continue
        if isinstance(item, str):
            notes.append(item)
            continue
        resolved = item.path.resolve()
        taken = jobs.get(item.id)
        if resolved in seen:
            refusals.append(Refusal(str(item.path), item.id, "the slide is listed twice; it is done once", False))
        elif taken is not None:
            reason = (
                f"id {item.id!r} is taken by {taken.path}; give one of them another id in a CSV table (columns path,id)"
            )
            refusals.append(Refusal(str(item.path), item.id, reason, True))
        else:
            seen.add(resolved)
            jobs[item.id] = item
    return SlideList(tuple(jobs.values()), tuple(refusals), tuple(notes))


def _expand(text: str, mpp: float | None) -> Iterator[Item]:
    path = Path(text)
    if path.is_dir():
        named = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES)
        yield from (
            Refusal(str(p), p.stem, "link leads nowhere; mend or remove it", True) for p in named if _is_broken(p)
        )
        found = [p for p in named if p.is_file()]
        if not any(p.is_file() or _is_broken(p) for p in named):
            suffixes = " ".join(sorted(SUFFIXES))
            yield Refusal(text, path.name, f"folder holds no slide file ({suffixes}); name the files themselves", True)
        yield from (item for p in found for item in _job(p, mpp))
    elif path.suffix.lower() == ".csv" and path.is_file():
        yield from _read_table(path, mpp)
    elif path.exists():
        yield from _job(path, mpp)
    elif glob.has_magic(text):
        matches = sorted(Path(match) for match in glob.glob(text, recursive=True) if Path(match).is_file())
        if not matches:
            yield Refusal(text, "", "no file matches this pattern; check the path, and quote patterns once", True)
        yield from (item for p in matches for item in _job(p, mpp))
    else:
        yield Refusal(text, path.stem, "file does not exist; check the path", True)


def _is_broken(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def _read_table(table: Path, mpp: float | None) -> Iterator[Item]:
    try:
        rows = list(csv.DictReader(table.read_text(encoding="utf-8-sig").splitlines()))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"slide table must be UTF-8 CSV: {error}: {table}") from error
    if not rows or "path" not in rows[0]:
        found = ", ".join(map(repr, rows[0])) if rows else "no rows"
        raise UsageError(
            f"slide table needs rows and a header with the column path (optionally mpp, id), separated by commas; "
            f"found {found}: {table}"
        )
    unused = [name for name in rows[0] if name not in (*COLUMNS, "", None)]
    if unused:
        known = ", ".join(COLUMNS)
        yield f"columns of the slide table that are not used: {', '.join(unused)} (known are {known}): {table}"
    for number, row in enumerate(rows, start=2):  # as a spreadsheet counts
        yield from _table_job(table, number, row, mpp)


def _table_job(table: Path, number: int, row: dict[str, str | None], mpp: float | None) -> Iterator[Item]:
    text = (row.get("path") or "").strip()
    path = table.parent / text
    name = (row.get("id") or "").strip()
    given = (row.get("mpp") or "").strip()
    if not text:
        yield Refusal(str(table), name, f"row {number} of the slide table has no path; fill it in or remove it", True)
    elif None in row:
        reason = (
            f"row {number} has more cells than the header; write 0.25 with a point, quote names with commas: {table}"
        )
        yield Refusal(str(path), name or path.stem, reason, True)
    elif not path.exists():
        yield Refusal(str(path), name or path.stem, f"file does not exist; correct its row in {table}", True)
    else:
        try:
            value = parse_mpp(given, "mpp") if given else mpp
        except UsageError as error:
            yield Refusal(str(path), name or path.stem, f"{error} in {table}", True)
        else:
            yield from _job(path, value, name)


def _job(path: Path, mpp: float | None, name: str = "") -> Iterator[SlideJob | str]:
    wanted = name or path.stem
    job = SlideJob(path, folder_name(wanted), mpp)
    if job.id != wanted:
        yield f"id {wanted!r} cannot be a folder's name everywhere, the slide's id is {job.id!r}: {path}"
    yield job


def folder_name(text: str) -> str:
    """Make a slide id safe as a folder name on every system; unicode letters and spaces stay.

    Names of files that a run puts beside the slides' folders get the ending `_slide`.
    """
    safe = re.sub(r'[\x00-\x1f<>:"/\\|?*]', "_", text).strip(" .") or "slide"
    return f"{safe}_slide" if _RESERVED.fullmatch(safe) else safe
