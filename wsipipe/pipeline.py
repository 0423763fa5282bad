"""Many slides through a pool: hands over what may run, the most urgent first, and no more than can run soon.

Nothing piles up: the pool holds the tasks that run and a few that wait, further slides are opened only when the model
would otherwise run dry, and the model waits while too many blocks wait to be cut out. Earlier slides go first, so that
slides finish one after another.
"""

import heapq
import itertools
import logging
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from wsipipe.errors import ModelError
from wsipipe.events import Sink
from wsipipe.faults import Fault
from wsipipe.loadedmodels import ModelRef
from wsipipe.machine import device_name, rss_bytes
from wsipipe.memory import Budget, share_memory
from wsipipe.options import RunOptions
from wsipipe.pools import Kind, Outcome, Pool, Task
from wsipipe.runrecord import RunRecord
from wsipipe.segmenter import ModelFacts, facts_of
from wsipipe.slidelist import SlideJob
from wsipipe.slideprogress import SlideProgress, release
from wsipipe.slidework import BENCH, SlideRef

logger = logging.getLogger(__name__)

KINDS: tuple[Kind, ...] = ("model", "cpu")
# Planning comes first, so that the model never waits for it; a slide's last stages come before its next blocks.
STAGE_RANK = {"plan": 0, "finish": 1, "results": 2, "labels": 3, "lay out": 4, "extract": 5, "infer": 6}
UNCUT_PER_SLOT = 4  # blocks that may wait to be cut out, for each CPU task at once, before the model has to wait


@dataclass(frozen=True, slots=True)
class SlideResult:
    """A finished slide. skipped: an earlier run had finished it."""

    job: SlideJob
    folder: Path
    record: RunRecord
    skipped: bool


@dataclass(frozen=True, slots=True)
class SlideFault:
    """A slide that could not be done."""

    job: SlideJob
    fault: Fault


@dataclass(frozen=True, slots=True)
class ModelOnDevice:
    """A model that a worker has loaded."""

    facts: ModelFacts
    device: str
    budget: Budget


def load_on_device(ref: ModelRef, threads: int, memory: int | None) -> ModelOnDevice:
    """Load the model where it is to run, and share out the memory that is left.

    Raises:
        ModelError, UsageError: it cannot be loaded, or does not fit the memory.
    """
    lane = BENCH.models.lane(ref)
    facts = facts_of(lane.segmenter)
    budget = share_memory(memory, base=rss_bytes(), threads=threads, model=facts)
    return ModelOnDevice(facts, device_name(lane.device), budget)


def segment_slides(
    jobs: Iterable[SlideJob], pool: Pool, model: ModelRef, options: RunOptions, emit: Sink
) -> Iterator[SlideResult | SlideFault]:
    """Do slides, yielding each as it ends; one that fails stops no other.

    Raises:
        ModelError, UsageError: the model cannot be loaded.
    """
    loaded = _load(pool, model, options)
    run = uuid.uuid4().hex

    def begin(number: int, job: SlideJob) -> SlideProgress:
        folder = (options.out / job.id).absolute()
        ref = SlideRef(folder, folder, run, model, loaded.facts, loaded.device, loaded.budget, options.stain)
        return SlideProgress(number, job, ref, options, emit)

    yield from Dispatcher(pool, (begin(n, job) for n, job in enumerate(jobs)), loaded.budget).run()


def _load(pool: Pool, model: ModelRef, options: RunOptions) -> ModelOnDevice:
    pool.submit(Task(load_on_device, (model, options.threads, options.memory), "model", "load", -1))
    ((_, outcome),) = pool.wait()
    if outcome.fault is None:
        loaded: ModelOnDevice = outcome.value
        return loaded
    if outcome.fault.error is not None:
        raise outcome.fault.error
    logger.debug("%s", outcome.fault.detail)
    raise ModelError(f"model {model.model} cannot be loaded: {outcome.fault.reason}")


class Dispatcher:
    """The slides in flight and their tasks."""

    def __init__(self, pool: Pool, slides: Iterator[SlideProgress], budget: Budget) -> None:
        self._pool, self._slides, self._budget = pool, slides, budget
        self._open: dict[int, SlideProgress] = {}
        self._planning: set[int] = set()
        self._ready: dict[Kind, list[tuple[int, int, int, int, Task]]] = {kind: [] for kind in KINDS}
        self._running: dict[Kind, int] = dict.fromkeys(KINDS, 0)
        self._uncut = 0
        self._tie = itertools.count()
        self._has_more = True

    def run(self) -> Iterator[SlideResult | SlideFault]:
        """Do everything."""
        while True:
            self._open_slides()
            self._hand_over()
            if not any(self._running.values()):
                return
            for task, outcome in self._pool.wait():
                self._running[task.kind] -= 1
                ended = self._settle(task, outcome)
                if ended:
                    yield ended

    def _open_slides(self) -> None:
        """Begin further slides while the model has too little ahead of it and they can be kept open."""
        while self._has_more and len(self._open) < self._open_limit() and self._is_short_of_work():
            slide = next(self._slides, None)
            if slide is None:
                self._has_more = False
                return
            self._open[slide.number] = slide
            self._planning.add(slide.number)
            self._add([slide.first()])

    def _open_limit(self) -> int:
        return max(self._budget.open_slides, 2 * self._pool.capacity("model"))

    def _is_short_of_work(self) -> bool:
        ahead = len(self._ready["model"]) + self._running["model"]
        return ahead < 2 * self._pool.capacity("model") and len(self._planning) < self._cpu_capacity()

    def _cpu_capacity(self) -> int:
        return self._pool.capacity("cpu")

    def _add(self, tasks: Iterable[Task]) -> None:
        for task in tasks:
            rank = STAGE_RANK[task.stage]
            # Plans are few (see _is_short_of_work) and all come first; the rest goes slide by slide.
            urgency = (-1, task.slide) if rank == 0 else (task.slide, rank)
            heapq.heappush(self._ready[task.kind], (*urgency, task.order, next(self._tie), task))

    def _hand_over(self) -> None:
        for kind in KINDS:
            ready = self._ready[kind]
            while ready and self._running[kind] < self._pool.capacity(kind) and not self._must_wait(kind):
                self._pool.submit(heapq.heappop(ready)[-1])
                self._running[kind] += 1

    def _must_wait(self, kind: Kind) -> bool:
        """Whether cutting out has fallen so far behind that inference has to wait for it."""
        waiting = len(self._ready["cpu"])
        return kind == "model" and waiting > UNCUT_PER_SLOT * self._cpu_capacity() and self._running["cpu"] > 0

    def _settle(self, task: Task, outcome: Outcome) -> SlideResult | SlideFault | None:
        """Let a slide take an outcome; return its end if that was it."""
        self._planning.discard(task.slide)
        slide = self._open.get(task.slide)
        if slide is None:  # it failed meanwhile
            return None
        if outcome.fault is not None:
            logger.debug("%s, %s %d: %s", slide.job.path, task.stage, task.order, outcome.fault.detail)
            self._drop(slide)
            return SlideFault(slide.job, outcome.fault)
        self._add(slide.advance(task, outcome))
        if slide.record is None:
            return None
        del self._open[slide.number]
        return SlideResult(slide.job, slide.ref.home, slide.record, slide.is_skipped)

    def _drop(self, slide: SlideProgress) -> None:
        """Forget a slide that failed, and what it had ready."""
        del self._open[slide.number]
        for ready in self._ready.values():
            ready[:] = [entry for entry in ready if entry[-1].slide != slide.number]
            heapq.heapify(ready)
        if not self._pool.is_remote:
            release(slide.ref)
