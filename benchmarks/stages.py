"""CPU time of every stage but the model, per 1024 px tile with about 500 nuclei.

    python benchmarks/stages.py [--tiles 4 8]

Two slides are done one task after another in one process, after a first one that compiles and loads everything; the
difference of their CPU times is what tiles cost, the rest is what a slide costs whatever its size.
"""

import argparse
import shutil
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from standin import CORE, SIDE, StandIn, write_slide

import wsipipe.runner
from wsipipe.options import RunOptions
from wsipipe.pools import SerialPool, run_task
from wsipipe.slidelist import list_slides

GOAL_MS = 150.0


class ClockedPool(SerialPool):
    """Adds up the CPU time of the whole process by stage."""

    def __init__(self):
        super().__init__()
        self.cpu_s = defaultdict(float)

    def wait(self):
        task = min(self._waiting, key=lambda waiting: waiting.kind == "model")
        self._waiting.remove(task)
        started = time.process_time()
        outcome = run_task(task)
        self.cpu_s[task.stage] += time.process_time() - started
        return [(task, outcome)]


def measure(folder: Path, tiles: int) -> tuple[dict[str, float], int]:
    """Return CPU seconds by stage, and nuclei."""
    slide = write_slide(folder / f"s{tiles}.svs", tiles)
    pool = ClockedPool()
    wsipipe.runner._make_pool = lambda options: pool
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    options = RunOptions(out=out, tissue="none")
    summary = wsipipe.runner.run_slides(
        list_slides([str(slide)], mpp=None), options, lambda event: None, segmenter=StandIn()
    )
    assert summary.exit_code == 0, summary.failures
    return dict(pool.cpu_s), summary.results[0].record.nuclei


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, nargs=2, default=(4, 8), help="tiles along a side of the two slides")
    small, large = parser.parse_args().tiles
    with tempfile.TemporaryDirectory() as name:
        measure(Path(name), 1)
        first, _ = measure(Path(name), small)
        second, nuclei = measure(Path(name), large)
    more = large**2 - small**2
    print(f"{'stage':10} {'ms per tile':>12} {'ms per slide':>13}")
    total = fixed_total = 0.0
    for stage in second:
        per_tile = 1000 * (second[stage] - first[stage]) / more
        fixed = 1000 * first[stage] - small**2 * per_tile
        total, fixed_total = total + per_tile, fixed_total + fixed
        print(f"{stage:10} {per_tile:12.1f} {fixed:13.0f}")
    print(f"{'all':10} {total:12.1f} {fixed_total:13.0f}")
    per_core, area = nuclei / large**2, (SIDE / CORE) ** 2
    print(f"{per_core:.0f} nuclei per {CORE} x {CORE} px that a tile owns: {total:.1f} CPU-ms")
    print(f"{per_core * area:.0f} nuclei per {SIDE} x {SIDE} px: {total * area:.1f} CPU-ms, goal {GOAL_MS:.0f}")


if __name__ == "__main__":
    main()
