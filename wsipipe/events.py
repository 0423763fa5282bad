"""What a run tells while it goes on; the CLI turns it into bars, lines or JSON."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A run begins with this many slides. workers: who does the work, and where the dashboard is."""

    slides: int
    model: str
    device: str
    out: Path
    workers: str = ""


@dataclass(frozen=True, slots=True)
class SlidePlanned:
    """A slide was opened and its work is known.

    mpp: of level 0, from mpp_source ("slide" or "option"); stated_mpp: what the slide says beside an option; work_mpp:
    at which it is segmented; done_tiles: finished by an earlier run.
    """

    slide: str
    path: Path
    mpp: float
    mpp_source: str
    work_mpp: float
    tissue_mm2: float
    tiles: int
    done_tiles: int
    blocks: int
    stated_mpp: float | None = None


@dataclass(frozen=True, slots=True)
class TilesDone:
    """More tiles of a slide went through the model."""

    slide: str
    tiles: int
    total: int


@dataclass(frozen=True, slots=True)
class StageStarted:
    """A slide entered a stage after inference: extract, write."""

    slide: str
    stage: str


@dataclass(frozen=True, slots=True)
class SlideDone:
    """A slide is finished; skipped: it was finished already by an earlier run, whose wall_seconds are told."""

    slide: str
    folder: Path
    nuclei: int
    wall_seconds: float | None
    skipped: bool
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SlideFailed:
    """A slide could not be done; reason is one line with the remedy."""

    slide: str
    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class SlideLeftOut:
    """An input was left out and nothing is lost by it, such as a slide listed twice."""

    slide: str
    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Noted:
    """Something that the user should know, in one line."""

    text: str


@dataclass(frozen=True, slots=True)
class RunDone:
    """The run is over."""

    done: int
    failed: int
    nuclei: int
    wall_seconds: float
    out: Path


Event = RunStarted | SlidePlanned | TilesDone | StageStarted | SlideDone | SlideFailed | SlideLeftOut | Noted | RunDone
Sink = Callable[[Event], None]
