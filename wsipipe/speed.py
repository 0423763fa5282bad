"""How long a tile takes here, as a range, and what that rests on: earlier results beside the new ones, or timed calls.

Earlier results are better: they hold all stages, over minutes or hours. A few calls of the model while something else
runs on the machine say little about the hour to come, so their range is wide.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsipipe.errors import OutputError
from wsipipe.journal import SlideFolder
from wsipipe.machine import cpu_count
from wsipipe.runrecord import RunRecord, read_record
from wsipipe.segmenter import Segmenter
from wsipipe.wording import counted

# Measured by benchmarks/stages.py on drawn slides with about 500 nuclei per tile; see docs/performance.md.
HOST_S_PER_TILE = 0.15  # CPU seconds for reading, cutting out, measuring and writing one 1024 px tile
SLIDE_S = (1.0, 10.0)  # opening, pictures and report of one slide; longer while kernels are loaded
FASTER, SLOWER = 0.8, 1.3  # what was measured may be off by so much, at another density of nuclei or load
CALLS = (3, 8)  # of the model that are timed, at least and at most, after one that warms it up
TIMED_S = 4.0  # seconds after which no further call is begun
LATEST = 100  # earlier results that are looked at


@dataclass(frozen=True, slots=True)
class Speed:
    """Wall seconds per tile, at best and at worst. basis: what they rest on, in words."""

    low: float
    high: float
    basis: str

    def seconds(self, tiles: int) -> tuple[float, float]:
        """Return the wall seconds that a slide of so many tiles may take, at best and at worst."""
        low, high = SLIDE_S
        return low + tiles * self.low, high + tiles * self.high


def expected_speed(out: Path, segmenter: Segmenter, device: str, *, batch: int, slots: int) -> Speed:
    """Return what a tile will take.

    Args:
        out: output folder, where earlier results may lie.
        segmenter: the loaded model.
        device: that it is on, as run.json names it.
        batch: tiles per call.
        slots: CPU tasks at once.
    """
    return _speed_of(_comparable(out, segmenter, device)) or _measured(segmenter, batch, slots)


def _comparable(out: Path, segmenter: Segmenter, device: str) -> list[RunRecord]:
    """Return the records of finished slides of the same model on the same device, done in one go."""
    paths = sorted(out.glob("*/run.json"), key=lambda path: path.stat().st_mtime, reverse=True)[:LATEST]
    found = []
    for path in paths:
        try:
            record = read_record(path) if SlideFolder(path.parent).is_done() else None
        except OutputError:
            continue  # of another version: no measure for this one
        if record and record.wall_seconds and record.tiles_per_second > 0 and record.timed_tiles == record.tiles:
            found.append(record)
    return [r for r in found if (r.model, r.model_sha256, r.device) == (segmenter.name, segmenter.sha256, device)]


def _speed_of(records: Sequence[RunRecord]) -> Speed | None:
    """Take the pace of the model alone for the best case, and all stages for the worst."""
    tiles = sum(record.tiles for record in records)
    if not tiles:
        return None
    model = sum(record.tiles / record.tiles_per_second for record in records) / tiles
    wall = sum(record.wall_seconds or 0.0 for record in records) / tiles
    return Speed(
        FASTER * min(model, wall),
        SLOWER * max(model, wall),
        f"{counted(len(records), 'slide')} ({counted(tiles, 'tile')}) that this model did here before",
    )


def _measured(segmenter: Segmenter, batch: int, slots: int) -> Speed:
    calls = time_model(segmenter, batch)
    host = HOST_S_PER_TILE / slots
    busy = (os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0) / cpu_count()
    load = f", while {busy:.1f} times as much wanted to run here as fits the cores" if busy > 1 else ""
    return Speed(
        FASTER * max(min(calls), host),
        SLOWER * (max(calls) + host * max(1.0, busy)),
        f"{len(calls)} timed calls of the model, {min(calls):.2g} to {max(calls):.2g} s per tile{load}",
    )


def time_model(segmenter: Segmenter, batch: int) -> list[float]:
    """Return wall seconds per tile of some calls of the model, after one that is not counted."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (batch, 3, segmenter.tile, segmenter.tile), dtype=np.uint8)
    _call(segmenter, images)
    fewest, most = CALLS
    seconds: list[float] = []
    while len(seconds) < fewest or (len(seconds) < most and sum(seconds) * batch < TIMED_S):
        started = time.perf_counter()
        _call(segmenter, images)
        seconds.append((time.perf_counter() - started) / batch)
    return seconds


def _call(segmenter: Segmenter, images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    output = segmenter.maps(images)
    if hasattr(output, "cpu"):
        output.cpu()
