"""Runs for tests: small slides of dark discs on pink, a toy model, and what must be equal between two runs."""

import gzip
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import support_slides

from wsipipe.cli.stopping import stoppable
from wsipipe.events import Event
from wsipipe.options import RunOptions
from wsipipe.runner import RunSummary, run_slides
from wsipipe.slidelist import list_slides
from wsipipe.testing import ToySegmenter

TOY = ToySegmenter(tile=160, halo=16)  # blocks of 4 x 4 tiles: 512 px


def draw_discs(path: Path, width: int, height: int, *, seed: int = 0, spacing: int = 30) -> Path:
    """Write a slide at 0.5 um per px with about one disc of 5 to 9 px radius per spacing x spacing px."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), (236, 190, 214), np.uint8)
    image = np.clip(image + rng.integers(-6, 7, image.shape), 0, 255).astype(np.uint8)
    for _ in range(width * height // spacing**2):
        centre = int(rng.integers(0, width)), int(rng.integers(0, height))
        cv2.circle(image, centre, int(rng.integers(5, 10)), (90, 50, 130), -1, cv2.LINE_AA)
    return support_slides.write_slide(path, image, mpp=0.5, factors=(1, 4), tile=128)


class Events(list[Event]):
    """A sink that keeps what it is told."""

    def __call__(self, event: Event) -> None:
        self.append(event)

    def of(self, kind: type) -> list:
        return [event for event in self if isinstance(event, kind)]


def run(
    slides: list[Path], out: Path, *, segmenter: ToySegmenter | None = None, **options
) -> tuple[RunSummary, Events]:
    """Run slides with the toy model."""
    events = Events()
    found = list_slides([str(slide) for slide in slides], mpp=None)
    summary = run_slides(
        found, RunOptions(out=out, tissue=options.pop("tissue", "none"), **options), events, segmenter=segmenter or TOY
    )
    return summary, events


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of a slide folder's results, GeoJSON unpacked; files that tell the time are left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in ("run.json", "report.html"):
            data = path.read_bytes()
            found[name] = gzip.decompress(data) if name.endswith(".gz") else data
    return found


def count_nuclei(folder: Path) -> int:
    return pq.read_metadata(folder / "nuclei.parquet").num_rows


@dataclass
class LoggingToy(ToySegmenter):
    """Appends a byte to a file for each tile, so that tiles can be counted over processes that are killed."""

    log: str = ""

    def maps(self, images):
        with Path(self.log).open("ab") as handle:
            handle.write(b"." * len(images))
        return super().maps(images)


def run_and_tell(slides: list[Path], out: Path, segmenter: ToySegmenter, told: Connection, options: dict) -> None:
    """Run in a process of its own, send the name of each event and exit with the run's code."""
    found = list_slides([str(slide) for slide in slides], mpp=None)
    with stoppable():
        summary = run_slides(
            found,
            RunOptions(out=out, tissue="none", **options),
            lambda event: told.send(type(event).__name__),
            segmenter=segmenter,
        )
    raise SystemExit(summary.exit_code)
