"""A cohort on a cluster that this machine does not have: the real dispatcher against workers in simulated time.

    python benchmarks/scale.py [--slides 10000] [--gpus 1 8 64] [--cpus-per-gpu 4]

Slides get sizes like those of a clinical archive (log-normal, median 1000 tiles). Each task takes as long as its stage
was measured to take (benchmarks/stages.py) or as the model is assumed to take; workers take tasks as threads would.
Printed: slides per hour, how busy devices and CPU slots are, what the dispatcher itself and Dask's scheduler need for
each second of the run, and what gives out first. Not simulated: the shared file system, the network, failures.
"""

import argparse
import heapq
import math
import time
from pathlib import Path

import numpy as np

from wsipipe.memory import LANE_TASKS, Budget
from wsipipe.pipeline import Dispatcher
from wsipipe.pools import Kind, Outcome, Task
from wsipipe.slidelist import SlideJob

BLOCK_TILES = 16
MEDIAN_TILES, SIGMA = 1000, 0.8
# Seconds per tile and per slide of the stages after the model, one thread: benchmarks/stages.py
TILE_S = {"infer": 0.0, "extract": 0.048, "lay out": 0.0002, "results": 0.0125, "labels": 0.0155}
SLIDE_S = {"plan": 1.0, "lay out": 0.01, "results": 0.2, "labels": 0.05, "finish": 0.6}
SHARD_TILES = 21  # tile cores in a label shard
DASK_S = 0.0012  # of the scheduler's own time per task: benchmarks/scheduling.py --dask


class SimulatedSlide:
    """A slide as a sequence of tasks with known durations."""

    def __init__(self, number: int, tiles: int) -> None:
        self.number, self.tiles = number, tiles
        self.blocks = math.ceil(tiles / BLOCK_TILES)
        self.left = self.blocks
        self.shards = 0
        self.job = SlideJob(Path("a.tiff"), "a", None)
        self.ref = type("Ref", (), {"folder": Path("a")})()
        self.began, self.record, self.is_skipped = 0.0, None, False

    def _task(self, stage: str, tiles: float, order: int = 0) -> Task:
        seconds = TILE_S.get(stage, 0.0) * tiles + (SLIDE_S.get(stage, 0.0) if order == 0 else 0.0)
        if stage == "infer":
            seconds = tiles
        return Task(float, (seconds,), "model" if stage == "infer" else "cpu", stage, self.number, order)

    def first(self) -> Task:
        return self._task("plan", 0)

    def advance(self, task: Task, outcome: Outcome) -> list[Task]:
        if task.stage == "plan":
            return [self._task("infer", min(BLOCK_TILES, self.tiles - BLOCK_TILES * k), k) for k in range(self.blocks)]
        if task.stage == "infer":
            return [self._task("extract", BLOCK_TILES, task.order + 1)]
        if task.stage == "extract":
            self.left -= 1
            return [] if self.left else [self._task("lay out", self.tiles)]
        if task.stage == "lay out":
            self.shards = math.ceil(self.tiles / SHARD_TILES)
            shards = [self._task("labels", SHARD_TILES, k + 1) for k in range(self.shards)]
            return [self._task("results", self.tiles), *shards]
        if task.stage in ("results", "labels"):
            self.shards -= task.stage == "labels"
            self.left -= task.stage == "results"
            return [self._task("finish", 0)] if self.shards == 0 and self.left == -1 else []
        self.record = True
        return []


class SimulatedPool:
    """Workers in simulated time: every device serves its tasks in turn, CPU slots serve one task each."""

    about, is_remote = "simulated", True

    def __init__(self, gpus: int, cpus: int, tile_s: float) -> None:
        self.now = 0.0
        self.busy: dict[Kind, float] = {"model": 0.0, "cpu": 0.0}
        self.tasks = 0
        self._slots: dict[Kind, int] = {"model": gpus, "cpu": cpus}
        self._free = {kind: [0.0] * n for kind, n in self._slots.items()}
        self._ends: list[tuple[float, int, Task]] = []
        self._tile_s = tile_s

    def capacity(self, kind: Kind) -> int:
        return self._slots[kind] * (LANE_TASKS if kind == "model" else 1) + self._slots[kind]

    def submit(self, task: Task) -> None:
        seconds = task.args[0] * (self._tile_s if task.kind == "model" else 1)
        begins = max(self.now, heapq.heappop(self._free[task.kind]))
        heapq.heappush(self._free[task.kind], begins + seconds)
        self.busy[task.kind] += seconds
        self.tasks += 1
        heapq.heappush(self._ends, (begins + seconds, self.tasks, task))

    def wait(self) -> list[tuple[Task, Outcome]]:
        self.now, _, task = heapq.heappop(self._ends)
        return [(task, Outcome(None, None, self.now, self.now, 0.0, "", 0))]

    def close(self, *, at_once: bool) -> None:
        """Nothing to stop."""


def simulate(slides: int, gpus: int, cpus_per_gpu: int, tile_s: float) -> None:
    """Print one line."""
    rng = np.random.default_rng(0)
    sizes = np.maximum(1, rng.lognormal(math.log(MEDIAN_TILES), SIGMA, slides).round()).astype(int)
    pool = SimulatedPool(gpus, gpus * cpus_per_gpu, tile_s)
    budget = Budget(cpu_slots=cpus_per_gpu, open_slides=4, readers=2, window_px=1)
    started = time.process_time()
    dispatcher = Dispatcher(pool, (SimulatedSlide(n, int(size)) for n, size in enumerate(sizes)), budget)
    ended = sum(1 for _ in dispatcher.run())
    own = time.process_time() - started
    assert ended == slides
    gpu = pool.busy["model"] / pool.now / gpus
    cpu = pool.busy["cpu"] / pool.now / (gpus * cpus_per_gpu)
    dask = pool.tasks * DASK_S / pool.now
    loads = {"devices": gpu, "CPU slots": cpu, "Dask's scheduler": dask, "dispatcher": own / pool.now}
    first = max(loads, key=lambda name: loads[name])
    print(
        f"{gpus:4d} GPUs {gpus * cpus_per_gpu:5d} CPU slots: {pool.now / 3600:8.2f} h, "
        f"{slides / pool.now * 3600:7.0f} slides/h, {sizes.sum() / pool.now:7.0f} tiles/s; devices {gpu:6.1%} busy, "
        f"CPU slots {cpu:6.1%}, scheduler {dask:6.2%}, dispatcher {own / pool.now:6.2%} "
        f"({pool.tasks} tasks, {1e6 * own / pool.tasks:.0f} us each); first to give out: {first}",
        flush=True,
    )


def main() -> None:
    """Simulate each size of cluster."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slides", type=int, default=10_000)
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--cpus-per-gpu", type=int, default=4)
    parser.add_argument("--tile", type=float, default=0.1, help="seconds of a device per tile")
    args = parser.parse_args()
    for gpus in args.gpus:
        simulate(args.slides, gpus, args.cpus_per_gpu, args.tile)


if __name__ == "__main__":
    main()
