"""What went wrong, as one line for the user: what was expected, what came, and what to do."""

import errno
import traceback
from dataclasses import dataclass

from wsipipe.errors import WsipipeError


@dataclass(frozen=True, slots=True)
class Fault:
    """A failure that travels between processes, which not every exception can.

    Attributes:
        reason: one line for the user.
        detail: the traceback.
        error: the exception itself if it is one of ours.
    """

    reason: str
    detail: str = ""
    error: WsipipeError | None = None


def fault_of(error: Exception) -> Fault:
    """Describe an exception that was just caught."""
    detail = "".join(traceback.format_exception(error))
    return Fault(explain(error), detail, error if isinstance(error, WsipipeError) else None)


def explain(error: Exception) -> str:
    """Return one line for the user: what went wrong and what to do."""
    if isinstance(error, WsipipeError):
        return " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f": {error.filename}" if error.filename else ""
        return f"no space left on the disk; free some and run the same command again, finished blocks are kept{where}"
    if isinstance(error, OSError):
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror or type(error).__name__}; mend that and run the same command again{where}"
    if isinstance(error, MemoryError):
        return "out of memory; close other programs or pass a smaller --workers, then run the same command again"
    return f"internal error, please report it (details with -v): {type(error).__name__}: {' '.join(str(error).split())}"
