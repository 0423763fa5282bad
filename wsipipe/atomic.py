"""Files appear whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial"  # how the names of unfinished files end


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a path beside target to write to; on success it becomes target, on an error it is removed.

    The data is on disk before the rename, so that a power cut leaves the old file or the new one.
    """
    # The process id: a task that was given up for lost and runs again elsewhere must not share its file.
    partial = target.with_name(f".{target.name}.{os.getpid()}{PARTIAL}")
    try:
        yield partial
        with partial.open("rb") as handle:
            os.fsync(handle.fileno())
        os.replace(partial, target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text(target: Path, text: str) -> None:
    """Write UTF-8 text to target, whole or not at all."""
    with replacing(target) as partial:
        partial.write_text(text, encoding="utf-8")
