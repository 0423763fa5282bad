"""One slide on its way through the stages: which tasks may start now, given what has ended.

plan -> infer blocks -> extract each block when the maps around it are there -> lay out labels -> tables and pictures
beside label shards, level by level -> record. This is the only place that knows the order.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from wsipipe.assemble import Effort, SlideSummary, finish_slide, write_results
from wsipipe.blockwork import BlockToDo, Planned, extract, infer, plan_to_folder
from wsipipe.events import Sink, StageStarted, TilesDone
from wsipipe.infer import BlockStats
from wsipipe.labels import Shard
from wsipipe.labelwork import lay_out_labels, place_labels, plan_labels, write_shards
from wsipipe.options import RunOptions
from wsipipe.pools import Outcome, Task
from wsipipe.replacement import put_in_place
from wsipipe.runrecord import RunRecord
from wsipipe.slidelist import SlideJob
from wsipipe.slidework import BENCH, SlideRef


def lay_out(ref: SlideRef) -> tuple[list[int], list[list[tuple[Shard, ...]]]]:
    """Number the nuclei; return damaged blocks, or the tasks of the label pyramid."""
    with BENCH.opened(ref) as work:
        damaged = lay_out_labels(work)
        return damaged, [] if damaged else plan_labels(work)


def results(ref: SlideRef, options: RunOptions) -> SlideSummary:
    """Write tables, GeoJSON and pictures."""
    with BENCH.room(ref.budget), BENCH.opened(ref) as work:
        return write_results(work, options)


def shards(ref: SlideRef, todo: tuple[Shard, ...]) -> None:
    """Write label shards."""
    with BENCH.opened(ref) as work:
        write_shards(work, todo)


def finish(ref: SlideRef, summary: SlideSummary, effort: Effort, options: RunOptions) -> RunRecord:
    """Give the labels their name, write the record, put the folder in its place; nothing is needed afterwards."""
    with BENCH.opened(ref) as work:
        place_labels(work)
        record = finish_slide(work, summary, effort, options)
    BENCH.release(ref)
    put_in_place(ref.folder, ref.home)
    return record


def release(ref: SlideRef) -> None:
    """Close a slide that failed."""
    BENCH.release(ref)


@dataclass(slots=True)
class Costs:
    """What a slide's tasks cost so far."""

    seconds: dict[str, float] = field(default_factory=dict)
    peak_rss: dict[str, int] = field(default_factory=dict)
    model_tiles: int = 0
    model_began: float = float("inf")
    model_ended: float = 0.0
    peak_vram: int | None = None

    def add(self, task: Task, outcome: Outcome) -> None:
        """Count a task that ended."""
        self.peak_rss[outcome.process] = max(outcome.peak_rss, self.peak_rss.get(outcome.process, 0))
        if task.stage != "infer":
            self.seconds[task.stage] = self.seconds.get(task.stage, 0.0) + outcome.ended - outcome.started
        elif isinstance(outcome.value, BlockStats):
            self.model_tiles += outcome.value.tiles
            if outcome.value.peak_vram is not None:
                self.peak_vram = max(self.peak_vram or 0, outcome.value.peak_vram)
            self.model_began = min(self.model_began, outcome.started)
            self.model_ended = max(self.model_ended, outcome.ended)
            # Tasks of one slide overlap in the model, so its seconds are those from the first to the last.
            self.seconds["infer"] = self.model_ended - self.model_began

    def effort(self, device: str, wall_seconds: float) -> Effort:
        """Return the sums."""
        busy = self.seconds.get("infer", 0.0)
        seconds = {stage: value for stage, value in self.seconds.items() if stage != "results"}
        rate = self.model_tiles / busy if busy > 0 else 0.0
        return Effort(
            seconds, wall_seconds, self.model_tiles, rate, sum(self.peak_rss.values()), self.peak_vram, device
        )


class SlideProgress:
    """State of one slide. `advance` takes an outcome and returns the tasks that it allows."""

    def __init__(self, number: int, job: SlideJob, ref: SlideRef, options: RunOptions, emit: Sink) -> None:
        """Begin a slide; number: its place in the run."""
        self.number, self.job, self.ref = number, job, ref
        self.began = time.perf_counter()
        self.record: RunRecord | None = None
        self.is_skipped = False
        self._options, self._emit = options, emit
        self._blocks: dict[int, BlockToDo] = {}
        self._missing: dict[int, set[int]] = {}
        self._users: dict[int, list[int]] = {}
        self._infer_left: set[int] = set()
        self._extract_left: set[int] = set()
        self._late: list[int] = []
        self._tiles_done = 0
        self._steps: list[list[tuple[Shard, ...]]] = []
        self._shards_left = 0
        self._summary: SlideSummary | None = None
        self._costs = Costs()

    def first(self) -> Task:
        """Return the task that begins the slide."""
        return self._task("plan", plan_to_folder, self.ref, self.job, self._options)

    def advance(self, task: Task, outcome: Outcome) -> list[Task]:
        """Take the outcome of a task that did not fail; `record` is set once the slide is finished."""
        self._costs.add(task, outcome)
        after: dict[str, Callable[[Task, Any], list[Task]]] = {
            "plan": self._after_plan,
            "infer": self._after_infer,
            "extract": self._after_extract,
            "lay out": self._after_lay_out,
            "results": self._after_results,
            "labels": self._after_labels,
            "finish": self._after_finish,
        }
        return after[task.stage](task, outcome.value)

    def _task(self, stage: str, run: Callable[..., Any], *args: Any, order: int = 0) -> Task:
        return Task(run, args, "model" if stage == "infer" else "cpu", stage, self.number, order)

    def _after_plan(self, task: Task, value: Planned | RunRecord) -> list[Task]:
        if isinstance(value, RunRecord):
            self.record, self.is_skipped = value, True
            return []
        self.ref = value.ref
        self._emit(value.event)
        self._blocks = {block.index: block for block in value.blocks}
        self._tiles_done = value.event.done_tiles
        self._infer_left = {block.index for block in value.blocks if not block.is_inferred}
        self._extract_left = {block.index for block in value.blocks if not block.is_extracted}
        for index in self._extract_left:
            self._missing[index] = set(self._blocks[index].needs) & self._infer_left
            for other in self._missing[index]:
                self._users.setdefault(other, []).append(index)
        inferring = [self._task("infer", infer, self.ref, index, order=index) for index in sorted(self._infer_left)]
        return inferring + self._extract_ready(sorted(self._extract_left)) + self._next_stage()

    def _extract_ready(self, candidates: list[int], *, is_complete: bool = False) -> list[Task]:
        ready = [index for index in candidates if is_complete or not self._missing[index]]
        return [self._task("extract", extract, self.ref, index, is_complete, order=index) for index in ready]

    def _after_infer(self, task: Task, stats: BlockStats) -> list[Task]:
        self._infer_left.discard(task.order)
        self._tiles_done += stats.tiles
        self._emit(TilesDone(self.job.id, self._tiles_done, sum(block.tiles for block in self._blocks.values())))
        users = self._users.pop(task.order, [])
        for index in users:
            self._missing[index].discard(task.order)
        ready = self._extract_ready(users)
        if not self._infer_left:
            self._emit(StageStarted(self.job.id, "cutting out the last nuclei"))
            late, self._late = self._late, []
            ready += self._extract_ready(late, is_complete=True)
        return ready

    def _after_extract(self, task: Task, is_done: bool) -> list[Task]:
        if is_done:
            self._extract_left.discard(task.order)
            return self._next_stage()
        if not self._infer_left:
            return self._extract_ready([task.order], is_complete=True)
        self._late.append(task.order)
        return []

    def _next_stage(self) -> list[Task]:
        if self._extract_left or self._infer_left:
            return []
        self._emit(StageStarted(self.job.id, "writing outputs"))
        return [self._task("lay out", lay_out, self.ref)]

    def _after_lay_out(self, task: Task, value: tuple[list[int], list[list[tuple[Shard, ...]]]]) -> list[Task]:
        damaged, self._steps = value
        if damaged:
            self._extract_left = set(damaged)
            return self._extract_ready(damaged, is_complete=True)
        return [self._task("results", results, self.ref, self._options), *self._next_labels()]

    def _next_labels(self) -> list[Task]:
        if not self._steps:
            return self._finish_if_ready()
        step = self._steps.pop(0)
        self._shards_left = len(step)
        return [self._task("labels", shards, self.ref, todo, order=k) for k, todo in enumerate(step)]

    def _after_labels(self, task: Task, value: None) -> list[Task]:
        self._shards_left -= 1
        return [] if self._shards_left else self._next_labels()

    def _after_results(self, task: Task, summary: SlideSummary) -> list[Task]:
        self._summary = summary
        return self._finish_if_ready()

    def _finish_if_ready(self) -> list[Task]:
        if self._summary is None or self._steps or self._shards_left:
            return []
        effort = self._costs.effort(self.ref.device, time.perf_counter() - self.began)
        return [self._task("finish", finish, self.ref, self._summary, effort, self._options)]

    def _after_finish(self, task: Task, record: RunRecord) -> list[Task]:
        self.record = record
        return []
