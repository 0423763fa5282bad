"""The dispatcher: nothing piles up, urgent things first, no slide holds up another."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from wsipipe import pipeline
from wsipipe.errors import ModelError
from wsipipe.faults import Fault
from wsipipe.loadedmodels import ModelRef
from wsipipe.memory import Budget
from wsipipe.options import RunOptions
from wsipipe.pools import Outcome, SerialPool, Task, ThreadPool, run_task
from wsipipe.slidelist import SlideJob

JOB = SlideJob(Path("a.tiff"), "a", None)
BUDGET = Budget(cpu_slots=2, open_slides=2, readers=1, window_px=10**9)


def nothing():
    return None


def fail():
    raise ValueError("no")


@dataclass
class FakeSlide:
    """Plans, infers and extracts n blocks; each inference allows an extraction."""

    number: int
    blocks: int
    fails_at: str = ""
    record: object = None
    is_skipped: bool = False
    left: int = field(init=False)
    job: SlideJob = JOB

    def __post_init__(self):
        self.left = self.blocks
        self.ref = type("Ref", (), {"home": "folder"})()

    def task(self, stage, order=0):
        run = fail if stage == self.fails_at else nothing
        return Task(run, (), "model" if stage == "infer" else "cpu", stage, self.number, order)

    def first(self):
        return self.task("plan")

    def advance(self, task, outcome):
        if task.stage == "plan":
            return [self.task("infer", k) for k in range(self.blocks)]
        if task.stage == "infer":
            return [self.task("extract", task.order)]
        if task.stage == "extract":
            self.left -= 1
            return [] if self.left else [self.task("finish")]
        self.record = "record"
        return []


class WatchedPool(SerialPool):
    """Runs the oldest task of the kind that it favours, and notes what it holds."""

    def __init__(self, favours, capacity=2):
        super().__init__()
        self.favours, self._capacity = favours, capacity
        self.most_held = 0
        self.stages = []

    def capacity(self, kind):
        return self._capacity

    def wait(self):
        self.most_held = max(self.most_held, len(self._waiting))
        task = min(self._waiting, key=lambda waiting: waiting.kind != self.favours)
        self._waiting.remove(task)
        self.stages.append((task.slide, task.stage))
        return [(task, run_task(task))]


def dispatch(pool, slides, budget=BUDGET):
    dispatcher = pipeline.Dispatcher(pool, iter(slides), budget)
    return dispatcher, list(dispatcher.run())


@pytest.mark.parametrize("favours", ["model", "cpu"])
def test_a_thousand_slides_never_fill_the_pool_or_the_queue(favours):
    pool = WatchedPool(favours)
    dispatcher, ended = dispatch(pool, (FakeSlide(n, 3) for n in range(1000)))
    assert len(ended) == 1000
    assert pool.most_held <= 4
    assert not dispatcher._open
    assert not any(dispatcher._ready.values())


def test_the_model_waits_when_too_many_blocks_wait_to_be_cut_out():
    pool = WatchedPool("model")
    dispatch(pool, [FakeSlide(0, 200)])
    stages = [stage for _, stage in pool.stages]
    ahead = max(stages[:k].count("infer") - stages[:k].count("extract") for k in range(len(stages)))
    assert ahead <= pipeline.UNCUT_PER_SLOT * 2 + 6


def test_slides_finish_one_after_another():
    pool = WatchedPool("cpu")
    _, ended = dispatch(pool, [FakeSlide(n, 4) for n in range(6)])
    assert [pool.stages.index((n, "finish")) for n in range(6)] == sorted(
        pool.stages.index((n, "finish")) for n in range(6)
    )
    assert len(ended) == 6


@pytest.mark.parametrize("stage", ["plan", "infer", "extract", "finish"])
def test_a_slide_that_fails_in_any_stage_ends_once_and_stops_no_other(stage):
    slides = [FakeSlide(0, 50, stage), *(FakeSlide(n, 3) for n in range(1, 9))]
    dispatcher, ended = dispatch(WatchedPool("model"), slides)
    faults = [outcome for outcome in ended if isinstance(outcome, pipeline.SlideFault)]
    assert len(ended) == 9
    assert len(faults) == 1
    assert isinstance(faults[0].fault, Fault)
    assert not any(dispatcher._ready.values())


def test_a_model_that_cannot_be_loaded_is_a_model_error_of_one_line(monkeypatch):
    def refuse(*_):
        raise RuntimeError("CUDA error:\n  device gone")

    monkeypatch.setattr(pipeline, "load_on_device", refuse)
    slides = pipeline.segment_slides([JOB], SerialPool(), ModelRef("m", "cpu", None), RunOptions(), print)
    with pytest.raises(ModelError, match=r"model m cannot be loaded: .*RuntimeError: CUDA error: device gone$"):
        next(slides)


def test_no_slides_are_no_work():
    assert dispatch(WatchedPool("cpu"), [])[1] == []


def test_threads_run_both_kinds_and_a_failure_becomes_a_value():
    pool = ThreadPool(2, 1)
    for k, run in enumerate((nothing, fail, nothing)):
        pool.submit(Task(run, (), "cpu" if k else "model", "any", 0, k))
    ended: list[tuple[Task, Outcome]] = []
    while len(ended) < 3:
        ended += pool.wait()
    pool.close(at_once=False)
    faults = {task.order: outcome.fault for task, outcome in ended}
    assert faults[0] is None
    assert faults[1].reason.endswith("ValueError: no")
    assert "Traceback" in faults[1].detail
    assert all(outcome.peak_rss > 0 for _, outcome in ended)
