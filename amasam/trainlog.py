"""The log of a training run: one JSON object per line, cut back to the resume point when a run continues."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsipipe.errors import OutputError


class TrainLog:
    """Append-only log.jsonl; every line has "step" and "kind" ("train" or "validation")."""

    def __init__(self, path: Path, *, keep_until: int) -> None:
        """Open a log and drop the lines after step keep_until, which an interrupted run wrote but did not save."""
        kept = [line for line in read_log(path) if line["step"] <= keep_until] if path.exists() else []
        partial = path.with_name(path.name + ".partial")
        partial.write_text("".join(_dump(line) for line in kept), encoding="utf-8")
        os.replace(partial, path)
        self._file = path.open("a", encoding="utf-8")

    def write(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Append one line and flush it."""
        self._file.write(_dump({"kind": kind, "step": step, **values}))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """Read all whole lines; a last line cut off by a crash is left out.

    Raises:
        OutputError: a line before the last one is not JSON.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    entries = []
    for number, line in enumerate(lines, start=1):
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            if number < len(lines):
                raise OutputError(f"line {number} of the training log is not JSON: {path}") from None
    return entries


def _dump(values: Mapping[str, Any]) -> str:
    return json.dumps({key: _plain(value) for key, value in values.items()}) + "\n"


def _plain(value: Any) -> Any:
    """Six significant digits are enough for curves; NaN is not JSON."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
