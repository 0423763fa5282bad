"""What scheduling costs: a run whose model is a 20 ms sleep per tile, against its task graph with nothing in the tasks.

    python benchmarks/scheduling.py [--tiles 8] [--slides 2] [--dask]

The same dispatcher sends the same tasks, in the same order of stages, through the same kind of pool; only what they
call is empty. Its time is all scheduling. Goal: at most 2 % of the run.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from standin import StandIn, write_slide

from wsipipe.cluster import LocalProcesses
from wsipipe.memory import LANE_TASKS, Budget
from wsipipe.options import RunOptions
from wsipipe.pipeline import Dispatcher
from wsipipe.pools import Outcome, Pool, Task, ThreadPool
from wsipipe.runner import run_slides
from wsipipe.schedule import DaskPool
from wsipipe.slidelist import SlideJob, list_slides

GOAL = 0.02
SLEEP_S = 0.02


def nothing() -> None:
    """Be a task."""


class EmptySlide:
    """A slide of n blocks whose tasks do nothing."""

    def __init__(self, number: int, blocks: int) -> None:
        self.number, self.blocks, self.left = number, blocks, blocks
        self.job = SlideJob(Path("a.tiff"), "a", None)
        self.ref = type("Ref", (), {"home": Path("a")})()
        self.record, self.is_skipped = None, False

    def _task(self, stage: str, order: int = 0) -> Task:
        return Task(nothing, (), "model" if stage == "infer" else "cpu", stage, self.number, order)

    def first(self) -> Task:
        return self._task("plan")

    def advance(self, task: Task, outcome: Outcome) -> list[Task]:
        following = {"lay out": ["results", "labels"], "results": [], "labels": ["finish"], "finish": []}
        if task.stage == "plan":
            return [self._task("infer", k) for k in range(self.blocks)]
        if task.stage == "infer":
            return [self._task("extract", task.order)]
        if task.stage == "extract":
            self.left -= 1
            return [] if self.left else [self._task("lay out")]
        if task.stage == "finish":
            self.record = True
        return [self._task(stage) for stage in following[task.stage]]


def empty_run(pool: Pool, slides: int, blocks: int) -> tuple[float, float]:
    """Return wall and CPU seconds of scheduling alone."""
    budget = Budget(cpu_slots=2, open_slides=4, readers=2, window_px=1)
    wall, cpu = time.perf_counter(), time.process_time()
    ended = list(Dispatcher(pool, (EmptySlide(n, blocks) for n in range(slides)), budget).run())
    assert len(ended) == slides
    return time.perf_counter() - wall, time.process_time() - cpu


def real_run(folder: Path, tiles: int, slides: int) -> float:
    """Return the wall seconds of the run itself, after a first one that loads and compiles everything."""
    warm = write_slide(folder / "warm.svs", 2)
    paths = [write_slide(folder / f"s{k}.svs", tiles) for k in range(slides)]
    for k, todo in enumerate(([warm], paths)):
        options = RunOptions(out=folder / f"out{k}", tissue="none", workers=2, batch_size=1)
        started = time.perf_counter()
        found = list_slides([str(path) for path in todo], mpp=None)
        summary = run_slides(found, options, lambda event: None, segmenter=StandIn(sleep_s=SLEEP_S))
        assert summary.exit_code == 0, summary.failures
    return time.perf_counter() - started


def main() -> None:
    """Print both sides."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, default=8, help="tiles along a side of a slide")
    parser.add_argument("--slides", type=int, default=2)
    parser.add_argument("--dask", action="store_true", help="also through two processes of a Dask cluster")
    args = parser.parse_args()
    blocks = (-(-args.tiles // 4)) ** 2
    n_tiles, tasks = args.slides * args.tiles**2, args.slides * (2 * blocks + 5)
    with tempfile.TemporaryDirectory() as name:
        run_s = real_run(Path(name), args.tiles, args.slides)
    print(f"run: {run_s:.2f} s, {n_tiles} tiles, of which the model {n_tiles * SLEEP_S:.2f} s; {tasks} tasks")
    makers: dict[str, Callable[[], Pool]] = {"threads": lambda: ThreadPool(2, LANE_TASKS)}
    if args.dask:
        makers["2 processes"] = lambda: DaskPool(LocalProcesses(2, 1), device="cpu")
    for name, make in makers.items():
        pool = make()
        empty_run(pool, 1, 16)
        repeats = 20
        wall, cpu = empty_run(pool, repeats * args.slides, blocks)
        pool.close(at_once=False)
        per_task = wall / repeats / tasks
        print(
            f"{name}: {1000 * per_task:.2f} ms per task ({1000 * cpu / repeats / tasks:.2f} CPU-ms in this process), "
            f"{wall / repeats / run_s:.2%} of the run, goal {GOAL:.0%}"
        )


if __name__ == "__main__":
    main()
