"""Does the model ever wait? The whole pipeline against a bare loop over the same model, side by side.

    python benchmarks/gpu_idle.py [--tiles 8] [--slides 2] [--sleep 0.1] [--workers 2]

The model is a stand-in that sleeps for each tile, as a host does while a device computes; tissue is dense. Every
slide's rate is taken from its first to its last model task; the wall time of the run also counts the start, and the
tail in which the last slide's nuclei are cut out and written.
"""

import argparse
import itertools
import tempfile
import time
from pathlib import Path

import numpy as np
from standin import SIDE, StandIn, write_slide

from wsipipe.options import RunOptions
from wsipipe.runner import run_slides
from wsipipe.slidelist import list_slides

GOAL = 0.95


def bare_rate(model: StandIn, seconds: float) -> float:
    """Return tiles per second of the model alone, tiles waiting in memory."""
    images = np.zeros((1, 3, SIDE, SIDE), np.uint8)
    started, tiles = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        model.maps(images)
        tiles += 1
    return tiles / (time.perf_counter() - started)


class TimedStandIn(StandIn):
    """Notes when each call began and ended."""

    def maps(self, images):
        began = time.perf_counter()
        maps = super().maps(images)
        self.calls.append((began, time.perf_counter()))
        return maps


def main() -> None:
    """Print both rates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, default=8, help="tiles along a side of a slide")
    parser.add_argument("--slides", type=int, default=2)
    parser.add_argument("--sleep", type=float, default=0.1, help="seconds per tile")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    model = TimedStandIn(sleep_s=args.sleep)
    model.calls = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        warm = write_slide(folder / "warm.svs", 2)
        slides = [write_slide(folder / f"s{k}.svs", args.tiles) for k in range(args.slides)]
        for k, todo in enumerate([[warm], slides]):
            options = RunOptions(out=folder / f"out{k}", tissue="none", workers=args.workers, batch_size=1)
            bare = bare_rate(model, 5.0)
            model.calls.clear()
            started = time.perf_counter()
            summary = run_slides(
                list_slides([str(s) for s in todo], mpp=None), options, lambda event: None, segmenter=model
            )
            wall = time.perf_counter() - started
            assert summary.exit_code == 0, summary.failures
    calls = model.calls
    span = calls[-1][1] - calls[0][0]
    rate = len(calls) / span
    gaps = sorted((after[0] - before[1] for before, after in itertools.pairwise(calls)), reverse=True)
    print(f"bare loop          {bare:6.2f} tiles/s")
    print(f"pipeline           {rate:6.2f} tiles/s from first to last model call = {rate / bare:.1%} (goal {GOAL:.0%})")
    print(f"with start and end {len(calls) / wall:6.2f} tiles/s over {wall:.1f} s, {len(calls)} tiles")
    print("longest pauses of the model, ms:", " ".join(f"{1000 * gap:.0f}" for gap in gaps[:8]))


if __name__ == "__main__":
    main()
