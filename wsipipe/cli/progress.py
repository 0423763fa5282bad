"""Shows a run's events: bars on a terminal, plain lines elsewhere, JSON lines for programs."""

import dataclasses
import math
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from wsipipe import events as ev

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
        self._began: dict[str, tuple[float, int]] = {}  # when, and tiles of earlier runs

    def __call__(self, event: ev.Event) -> None:
        """Write the lines of one event."""
        line = describe(event)
        if isinstance(event, ev.SlidePlanned):
            self._said[event.slide] = time.monotonic()
            self._began[event.slide] = (self._said[event.slide], event.done_tiles)
        if isinstance(event, ev.TilesDone):
            line = self._tiles_line(event)
        if line:
            print(line, file=self._stream, flush=True)

    def _tiles_line(self, event: ev.TilesDone) -> str:
        now = time.monotonic()
        if now - self._said.get(event.slide, -math.inf) < PLAIN_EVERY_S:
            return ""
        self._said[event.slide] = now
        began, earlier = self._began.get(event.slide, (now, event.tiles))
        rate = (event.tiles - earlier) / max(1e-9, now - began)
        left = (event.total - event.tiles) / max(rate, 1e-9)
        return f"{event.slide}: {event.tiles}/{event.total} tiles, {rate:.2f} tiles/s, {duration(left)} left"

    def close(self) -> None:
        """Nothing to end."""


class BarSink:
    """A bar per slide with rate and time left, on a terminal's stderr."""

    def __init__(self) -> None:
        """Take over stderr."""
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._tasks: dict[str, TaskID] = {}
        self._progress.start()

    def __call__(self, event: ev.Event) -> None:
        """Move the bars and print what stays."""
        if isinstance(event, ev.SlidePlanned):
            text = f"{event.slide} tiles"
            self._tasks[event.slide] = self._progress.add_task(
                text, total=event.tiles, completed=event.done_tiles, rate=""
            )
        if isinstance(event, ev.TilesDone):
            task = self._tasks[event.slide]
            speed = self._progress.tasks[self._progress.task_ids.index(task)].speed
            self._progress.update(task, completed=event.tiles, rate=f"{speed:.2f} tiles/s" if speed else "")
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


def describe(event: ev.Event) -> str:
    """Return an event as one line for people, empty for those that need none."""
    match event:
        case ev.RunStarted():
            workers = f" ({event.workers})" if event.workers else ""
            return f"{event.slides} slides, model {event.model} on {event.device}{workers}, results in {event.out}"
        case ev.SlidePlanned():
            resumed = f", {event.done_tiles} of them done earlier" if event.done_tiles else ""
            return (
                f"{event.slide}: mpp {event.mpp:.4g} (from {event.mpp_source}), segmented at {event.work_mpp:.4g}, "
                f"tissue {event.tissue_mm2:.2f} mm2, "
                f"{event.tiles} tiles{resumed}"
            )
        case ev.StageStarted():
            return f"{event.slide}: {event.stage}"
        case ev.SlideDone():
            flags = f" - look at it: {'; '.join(event.flags)}" if event.flags else ""
            how = "already done" if event.skipped else f"done in {duration(event.seconds)}"
            return f"{event.slide}: {how}, {event.nuclei} nuclei{flags}: {event.folder}"
        case ev.SlideFailed():
            return f"FAILED {event.path}: {event.reason}"
        case ev.RunDone():
            return (
                f"{event.done} slides done, {event.failed} failed, {event.nuclei} nuclei, "
                f"{duration(event.seconds)}: {event.out}"
            )
        case _:
            return ""


def duration(seconds: float) -> str:
    """Write seconds as 12.3 s, 4 min 05 s or 3 h 07 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
