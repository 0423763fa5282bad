"""run.json of a slide folder: what was run on what with what, and the digests of the files that it wrote."""

import hashlib
import json
import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, Literal

from wsipipe.atomic import write_text
from wsipipe.errors import OutputError
from wsipipe.frames import WorkFrame
from wsipipe.provenance import Provenance

FORMAT_VERSION = 1
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class FileDigest:
    """Size and SHA-256 of a file, or of a folder as `tree_digest` defines it."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """Everything that run.json holds.

    Attributes:
        status: "done" once every file is in place; nothing else counts as finished.
        run_key: the values that decide the bytes of the results (`journal.RunKey.values`).
        slide_key: `Slide.identity`; the uuids of the nuclei derive from it.
        reader: which of our readers was used; vendor: OpenSlide's name of the format.
        l0_size, l0_mpp: (x, y) of the slide, level-0 px and micrometres per px; mpp_source: "option" or "slide".
        scale: (x, y) level-0 px per work px.
        model: name of the segmenter; parameters: everything else that changes its results, JSON values.
        command: the command line, one argument per item.
        versions: package -> version; includes python and platform.
        git_commit: of the source tree, None for an installed package.
        device: as a person would name it: "cpu", "cuda:0 NVIDIA ...".
        seeds: of everything random that decided the results, name -> seed; {} = nothing random, as in every run today.
        stain: the stain vectors that were used and where they come from, JSON values.
        seconds: stage -> its stage time: seconds of its tasks added up, though some run side by side.
        peak_vram_bytes: None where no GPU was used.
        geojson_detail: "none" if no GeoJSON was asked for.
        flags: short texts for a person to look at; empty if nothing was odd.
        files: name inside the folder -> digest, of everything that the run wrote but run.json.
        quality: focus, pen marks and stain of the slide (`quality.SlideQuality`), JSON values.
        wall_seconds: from the opening of the slide to the writing of its report, in the run that finished it.
        timed_tiles: those that went through the model in that run; fewer than tiles where an earlier run was stopped.
            Both None in records of before they were kept.
    """

    status: Literal["running", "failed", "done"]
    run_key: Mapping[str, Any]
    slide_path: str
    slide_key: str
    slide_bytes: int
    quickhash: str
    vendor: str
    reader: str
    objective_power: float | None
    l0_size: tuple[int, int]
    l0_mpp: tuple[float, float]
    mpp_source: str
    scale: tuple[float, float]
    tissue_mm2: float
    tissue_source: str
    model: str
    model_sha256: str
    model_licence: str
    parameters: Mapping[str, Any]
    command: tuple[str, ...]
    versions: Mapping[str, str]
    git_commit: str | None
    device: str
    seeds: Mapping[str, int]
    stain: Mapping[str, Any]
    seconds: Mapping[str, float]
    tiles: int
    tiles_per_second: float
    peak_rss_bytes: int
    peak_vram_bytes: int | None
    nuclei: int
    geojson_detail: Literal["shape", "full", "none"]
    flags: tuple[str, ...]
    files: Mapping[str, FileDigest]
    quality: Mapping[str, Any]
    wall_seconds: float | None = None
    timed_tiles: int | None = None
    format_version: int = FORMAT_VERSION

    @property
    def stage_seconds(self) -> float:
        """Stage time of all stages but the report, which tells it."""
        return sum(seconds for stage, seconds in self.seconds.items() if stage != "report")

    @property
    def frame(self) -> WorkFrame:
        """The work grid on the slide."""
        return WorkFrame(*self.l0_size, *self.l0_mpp, *self.scale)

    @property
    def work_mpp(self) -> tuple[float, float]:
        """(x, y) micrometres per work px."""
        return self.frame.mpp_x, self.frame.mpp_y

    def provenance(self) -> Provenance:
        """Return what the other files of the folder carry about their origin."""
        slide = Path(self.slide_path).name
        return Provenance(slide, self.slide_key, self.model, self.model_sha256, self.frame)

    def to_json(self) -> str:
        """Return the text of run.json; work_size and work_mpp are derived, for people."""
        values = asdict(self) | {"work_size": [self.frame.width, self.frame.height], "work_mpp": list(self.work_mpp)}
        return json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def write(self, path: Path) -> None:
        """Write run.json, whole or not at all."""
        write_text(path, self.to_json())


def read_record(path: Path) -> RunRecord:
    """Read a run.json.

    Raises:
        OutputError: it is missing, not JSON, of another format or lacks something.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format_version must be {FORMAT_VERSION}, got {values['format_version']}")
        known = {f.name: values[f.name] for f in fields(RunRecord) if f.default is MISSING or f.name in values}
        pairs = {name: tuple(known[name]) for name in ("l0_size", "l0_mpp", "scale", "command", "flags")}
        files = {name: FileDigest(**digest) for name, digest in known["files"].items()}
        return RunRecord(**known | pairs | {"files": files})
    except FileNotFoundError as error:
        raise OutputError(f"run record is missing, so the run is unfinished; repeat its command: {path}") from error
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise OutputError(f"run record cannot be used ({error!r}); repeat the run with --overwrite: {path}") from error


def file_digest(path: Path) -> FileDigest:
    """Return size and SHA-256 of a file, read in pieces."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as handle:
        while piece := handle.read(_PIECE):
            digest.update(piece)
            size += len(piece)
    return FileDigest(size, digest.hexdigest())


def tree_digest(folder: Path) -> FileDigest:
    r"""Return one digest of all files below a folder.

    The SHA-256 is that of the lines `<sha256 of the file>  <path inside folder, with />\n`, sorted by path: what
    `sha256sum` prints for them. bytes is the sum of their sizes.
    """
    digest, size = hashlib.sha256(), 0
    for name in sorted(path.relative_to(folder).as_posix() for path in _files_below(folder)):
        one = file_digest(folder / name)
        digest.update(f"{one.sha256}  {name}\n".encode())
        size += one.bytes
    return FileDigest(size, digest.hexdigest())


def path_digest(path: Path) -> FileDigest:
    """Return `tree_digest` of a folder, `file_digest` of anything else."""
    return tree_digest(path) if path.is_dir() else file_digest(path)


def _files_below(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def package_versions() -> dict[str, str]:
    """Return the versions of Python, this package and each installed requirement of it."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    names = ["wsipipe", *(_requirement_name(line) for line in requires("wsipipe") or [] if "extra ==" not in line)]
    for name in sorted(names):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _requirement_name(line: str) -> str:
    end = next((i for i, char in enumerate(line) if not (char.isalnum() or char in "-_.")), len(line))
    return line[:end]


def git_commit() -> str | None:
    """Return the commit of the source tree that this package runs from, None if it is installed or git is missing."""
    git, root = shutil.which("git"), Path(__file__).resolve().parents[1]
    if git is None or not (root / ".git").exists():
        return None
    done = subprocess.run([git, "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
