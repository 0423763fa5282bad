"""Progress of training and prediction on stderr: bars on a terminal, plain lines elsewhere."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from amasam.imagefile import list_images
from amasam.train import Status

PLAIN_EVERY_S = 30.0  # seconds between lines when there is no terminal
_SHOWN = ("loss", "fine", "coarse", "domain", "images_per_s", "dsc", "aji", "pq")


class Stopper:
    """Turns the first Ctrl-C or SIGTERM into a wish to stop after the present step; a second one stops at once."""

    def __init__(self) -> None:
        """Nothing is asked for yet."""
        self.is_asked = False
        self._kept: dict[int, Any] = {}

    def __call__(self) -> bool:
        """Whether to stop."""
        return self.is_asked

    def __enter__(self) -> "Stopper":
        """Take the signals over."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._kept[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back."""
        for number, handler in self._kept.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.is_asked:
            raise KeyboardInterrupt
        self.is_asked = True


@contextmanager
def show_training(start: int, steps: int, *, is_shown: bool) -> Iterator[Callable[[Status], None]]:
    """Yield a function that shows the state of a run after each step, with the time left."""
    if not is_shown:
        yield lambda status: None
        return
    if not sys.stderr.isatty():
        yield _Lines(start).show
        return
    with _bar() as progress:
        task = progress.add_task("training", total=steps, completed=start, text="")

        def show(status: Status) -> None:
            progress.update(task, completed=status.step)
            if status.values:
                progress.update(task, text=_brief(status.values))

        yield show


@contextmanager
def show_images(folder: Path) -> Iterator[Callable[[Path], None]]:
    """Yield a function that is called with every finished image."""
    if not sys.stderr.isatty() or not folder.is_dir():
        yield lambda path: None
        return
    with _bar() as progress:
        task = progress.add_task("images", total=len(list_images(folder)), text="")
        yield lambda path: progress.update(task, advance=1, text=path.name)


@contextmanager
def show_count(what: str) -> Iterator[Callable[[str], None]]:
    """Yield a function that counts things of unknown number, each with a short text; silent without a terminal."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    with _bar() as progress:
        task = progress.add_task(what, total=None, text="")
        yield lambda text: progress.update(task, advance=1, text=text)


@contextmanager
def show_download(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function of bytes done and in all (0 = unknown); the bar appears with its first call."""
    columns = (TextColumn(what), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True))
    tasks: list[TaskID] = []
    with ExitStack() as stack:

        def show(done: int, total: int) -> None:
            if not tasks:
                stack.enter_context(bar)
                tasks.append(bar.add_task(what, total=total or None))
            bar.update(tasks[0], completed=done)

        yield show


class _Lines:
    """Plain lines with the time left."""

    def __init__(self, start: int) -> None:
        self._start, self._began, self._said = start, time.monotonic(), 0.0

    def show(self, status: Status) -> None:
        now = time.monotonic()
        is_news = "aji" in status.values or status.step == status.steps
        if not status.values or (now - self._said < PLAIN_EVERY_S and not is_news):
            return
        self._said = now
        left = (now - self._began) / max(1, status.step - self._start) * (status.steps - status.step)
        text = f"step {status.step}/{status.steps}  {_brief(status.values)}  {left / 60:.0f} min left"
        print(text, file=sys.stderr, flush=True)


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[text]}"), console=Console(stderr=True))


def _brief(values: dict[str, float]) -> str:
    return "  ".join(f"{name} {values[name]:.3g}" for name in _SHOWN if name in values)
