"""Ctrl-C and SIGTERM end a run at once and leave it resumable."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class _Terminated(KeyboardInterrupt):
    """SIGTERM arrived."""


def _terminate(number: int, frame: FrameType | None) -> None:
    raise _Terminated


@contextmanager
def stoppable() -> Iterator[None]:
    """Turn Ctrl-C into exit code 130 and SIGTERM into 143, with a word on how to go on.

    Threads may still be inside a model or a kernel; nothing is lost with them, since files appear whole or not at all.
    So the process ends without waiting.
    """
    earlier = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except KeyboardInterrupt as stop:
        print("wsipipe: stopped; run the same command again to continue", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(128 + (signal.SIGTERM if isinstance(stop, _Terminated) else signal.SIGINT))
    finally:
        signal.signal(signal.SIGTERM, earlier)
