"""Shows a run's events: bars on a terminal, plain lines elsewhere, JSON lines for programs."""

import dataclasses
import math
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from wsipipe import events as ev
from wsipipe.cli.pace import Pace
from wsipipe.wording import counted, duration, roughly

PLAIN_EVERY_S = 10.0  # seconds between two lines about the same slide when there is no terminal


class JsonSink:
    """One JSON object per event on stdout, key `event` first."""

    def __call__(self, event: ev.Event) -> None:
        """Write one line."""
        values: dict[str, Any] = {"event": type(event).__name__, **dataclasses.asdict(event)}
        sys.stdout.buffer.write(orjson.dumps(values, default=_plain) + b"\n")
        sys.stdout.flush()

    def close(self) -> None:
        """Nothing to end."""


def _plain(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"cannot write {type(value).__name__} as JSON")


class LineSink:
    """Plain lines on stderr, at most one per slide every PLAIN_EVERY_S seconds while tiles pass."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """Write to stream, stderr if None."""
        self._stream = stream or sys.stderr
        self._said: dict[str, float] = {}
        self._pace = Pace()

    def __call__(self, event: ev.Event) -> None:
        """Write the lines of one event."""
        line = describe(event)
        take(event, self._pace)
        if isinstance(event, ev.SlidePlanned):
            self._said[event.slide] = time.monotonic()
        if isinstance(event, ev.TilesDone):
            line = self._tiles_line(event)
        if line:
            print(line, file=self._stream, flush=True)

    def _tiles_line(self, event: ev.TilesDone) -> str:
        now = time.monotonic()
        if now - self._said.get(event.slide, -math.inf) < PLAIN_EVERY_S:
            return ""
        self._said[event.slide] = now
        return f"{event.slide}: {event.tiles}/{event.total} tiles{time_left(self._pace, event.slide)}"

    def close(self) -> None:
        """Nothing to end."""


class BarSink:
    """A bar per slide with the time left, on a terminal's stderr."""

    def __init__(self) -> None:
        """Take over stderr."""
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            console=Console(stderr=True),
        )
        self._tasks: dict[str, TaskID] = {}
        self._pace = Pace()
        self._progress.start()

    def __call__(self, event: ev.Event) -> None:
        """Move the bars and print what stays."""
        take(event, self._pace)
        if isinstance(event, ev.SlidePlanned):
            text = f"{event.slide} tiles"
            self._tasks[event.slide] = self._progress.add_task(
                text, total=event.tiles, completed=event.done_tiles, left=""
            )
        if isinstance(event, ev.TilesDone):
            left = time_left(self._pace, event.slide).removeprefix(", ")
            self._progress.update(self._tasks[event.slide], completed=event.tiles, left=left)
            return
        if isinstance(event, ev.SlideDone | ev.SlideFailed) and event.slide in self._tasks:
            self._progress.remove_task(self._tasks.pop(event.slide))
        if line := describe(event):
            self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Give the terminal back."""
        self._progress.stop()


ProgressSink = JsonSink | LineSink | BarSink


def open_sink(*, json: bool) -> ProgressSink:
    """Choose how to show events: JSON if asked for, bars on a terminal, else lines."""
    if json:
        return JsonSink()
    return BarSink() if sys.stderr.isatty() else LineSink()


def take(event: ev.Event, pace: Pace) -> None:
    """Let an event count for the pace of the run."""
    match event:
        case ev.RunStarted():
            pace.begin(event.slides)
        case ev.SlidePlanned():
            pace.plan(event.slide, event.tiles, event.done_tiles, time.monotonic())
        case ev.TilesDone():
            pace.advance(event.slide, event.tiles, time.monotonic())
        case ev.SlideDone() | ev.SlideFailed():
            pace.end(event.slide)
        case _:
            pass


def time_left(pace: Pace, slide: str) -> str:
    """Tell how fast the run is now and how long it will go on; empty as long as nobody knows."""
    left, in_all = pace.slide_left(slide), pace.run_left()
    if left is None or in_all is None:
        return ""
    run = f", {roughly(in_all)} for all slides" if pace.slides > 1 else ""
    return f", {pace.rate:.2g} tiles/s now, about {roughly(left)} left{run}"


def describe(event: ev.Event) -> str:
    """Return an event as one line for people, empty for those that need none."""
    match event:
        case ev.RunStarted():
            workers = f" ({event.workers})" if event.workers else ""
            slides = counted(event.slides, "slide")
            return f"{slides}, model {event.model} on {event.device}{workers}, results in {event.out}"
        case ev.SlidePlanned():
            resumed = f", {event.done_tiles} of them done earlier" if event.done_tiles else ""
            stated = f", the slide says {event.stated_mpp:.4g}" if event.stated_mpp else ""
            return (
                f"{event.slide}: mpp {event.mpp:.4g} (from {event.mpp_source}{stated}), "
                f"segmented at {event.work_mpp:.4g}, "
                f"tissue {event.tissue_mm2:.2f} mm2, "
                f"{counted(event.tiles, 'tile')}{resumed}"
            )
        case ev.StageStarted():
            return f"{event.slide}: {event.stage}"
        case ev.SlideDone():
            flags = f" - look at it: {'; '.join(event.flags)}" if event.flags else ""
            how = "already done" if event.skipped else f"done in {duration(event.wall_seconds)} wall time"
            return f"{event.slide}: {how}, {counted(event.nuclei, 'nucleus', 'nuclei')}{flags}: {event.folder}"
        case ev.SlideFailed():
            return f"FAILED {event.path}: {event.reason}"
        case ev.SlideLeftOut():
            return f"left out {event.path}: {event.reason}"
        case ev.Noted():
            return f"note: {event.text}"
        case ev.RunDone():
            return (
                f"{counted(event.done, 'slide')} done, {event.failed} failed, "
                f"{counted(event.nuclei, 'nucleus', 'nuclei')}, {duration(event.wall_seconds)} wall time: {event.out}"
            )
        case _:
            return ""
