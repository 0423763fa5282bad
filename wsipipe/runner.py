"""A run over many slides: one failing slide never stops the others."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from wsipipe.cluster import LocalProcesses, choose_workers
from wsipipe.cohort import write_cohort
from wsipipe.errors import RunKeyError, UsageError
from wsipipe.events import Noted, RunDone, RunStarted, Sink, SlideDone, SlideFailed, SlideLeftOut
from wsipipe.failures import Failure
from wsipipe.faults import explain
from wsipipe.journal import locked
from wsipipe.loadedmodels import ModelRef
from wsipipe.memory import LANE_TASKS
from wsipipe.options import RunOptions
from wsipipe.outlines import is_compiled
from wsipipe.pipeline import SlideFault, SlideResult, segment_slides
from wsipipe.pools import Pool, SerialPool, ThreadPool
from wsipipe.replacement import end_overwrite, recover
from wsipipe.roi import check_file
from wsipipe.segmenter import Segmenter, find_segmenter
from wsipipe.slidelist import SlideList
from wsipipe.slidework import BENCH
from wsipipe.stainnorm import NONE, load_fitter

logger = logging.getLogger(__name__)

__all__ = ["RunSummary", "explain", "open_pool", "run_slides"]


@dataclass(frozen=True, slots=True)
class RunSummary:
    """How a run ended. failures: also what was only left out, such as a slide listed twice."""

    results: tuple[SlideResult, ...]
    failures: tuple[Failure, ...]

    @property
    def exit_code(self) -> int:
        """0 if every slide is done, 1 otherwise."""
        return 1 if any(failure.fatal for failure in self.failures) else 0


def run_slides(slides: SlideList, options: RunOptions, emit: Sink, *, segmenter: Segmenter | None = None) -> RunSummary:
    """Do every slide of a list, then write the cohort's tables.

    A run that is interrupted leaves everything that is finished, and no tables of the cohort. One that is refused, as
    all of its slides have results of other parameters, leaves all records as they were.

    Args:
        slides: what to do.
        options: how.
        emit: told what happens.
        segmenter: a loaded model in place of the one that the options name; picklable.

    Raises:
        OutputError: the output folder is locked or cannot be written.
        ModelError: the model cannot be loaded.
        UsageError: no such model, no slide among the inputs, or a tissue file is of no use; nothing is written then.
    """
    started = time.perf_counter()
    _check(slides, options, emit, is_loaded=segmenter is not None)
    ends = _Ends([Failure(r.path, r.id, r.reason, r.fatal) for r in slides.refusals])
    with locked(options.out):
        recover(options.out)
        if not (options.fail_fast and ends.n_failed):
            _segment(slides, options, emit, segmenter, ends)
        if options.overwrite and not ends.n_failed:
            end_overwrite(options.out)
        seconds = time.perf_counter() - started
        if ends.results or ends.n_refused < ends.n_failed:
            folders = [result.folder for result in ends.results]
            for note in write_cohort(options.out, folders, ends.failures, seconds, options).notes:
                emit(Noted(note))
    nuclei = sum(result.record.nuclei for result in ends.results)
    emit(RunDone(len(ends.results), ends.n_failed, nuclei, seconds, options.out))
    return RunSummary(tuple(ends.results), tuple(ends.failures))


@dataclass(slots=True)
class _Ends:
    """How slides ended so far. n_refused: failures because of results of other parameters, which stay as they are."""

    failures: list[Failure]
    results: list[SlideResult] = field(default_factory=list)
    n_refused: int = 0

    @property
    def n_failed(self) -> int:
        return sum(failure.fatal for failure in self.failures)

    def take(self, outcome: SlideResult | SlideFault, emit: Sink) -> None:
        """Note the end of a slide and tell of it."""
        job = outcome.job
        if isinstance(outcome, SlideFault):
            reason = outcome.fault.reason.removesuffix(f": {job.path}")  # the event and the table name it already
            self.failures.append(Failure(str(job.path), job.id, reason, True))
            self.n_refused += isinstance(outcome.fault.error, RunKeyError)
            emit(SlideFailed(job.id, str(job.path), reason))
            return
        self.results.append(outcome)
        record = outcome.record
        emit(SlideDone(job.id, outcome.folder, record.nuclei, record.wall_seconds, outcome.skipped, record.flags))


def _segment(slides: SlideList, options: RunOptions, emit: Sink, segmenter: Segmenter | None, ends: _Ends) -> None:
    """Do the slides."""
    with open_pool(options) as pool:
        model = ModelRef(options.model, options.device, options.batch_size)
        if segmenter is not None:
            model = BENCH.models.hold(segmenter, options.device, options.batch_size, travels=pool.is_remote)
        emit(RunStarted(len(slides.jobs), model.model, options.device, options.out, pool.about))
        if not (pool.is_remote or is_compiled()):
            emit(Noted("the first run here compiles its kernels, which takes a minute more, once"))
        for outcome in segment_slides(slides.jobs, pool, model, options, emit):
            ends.take(outcome, emit)
            if options.fail_fast and isinstance(outcome, SlideFault):
                break


def _check(slides: SlideList, options: RunOptions, emit: Sink, *, is_loaded: bool) -> None:
    """Tell of inputs that are no slides, and refuse what cannot work before anything is written."""
    for note in slides.notes:
        emit(Noted(note))
    for refusal in slides.refusals:
        event = SlideFailed if refusal.fatal else SlideLeftOut
        emit(event(refusal.id, refusal.path, refusal.reason))
    if not slides.jobs:
        raise UsageError(f"no slide among the inputs, see above; nothing was written to {options.out}")
    if options.tissue not in ("auto", "none"):
        check_file(Path(options.tissue))
    if options.scheduler == "local":
        if options.stain_norm != NONE:
            load_fitter(options.stain_norm)
        if not is_loaded:
            find_segmenter(options.model)


@contextmanager
def open_pool(options: RunOptions) -> Iterator[Pool]:
    """Start the workers that the options ask for; stop them at the end, at once if it is an early one.

    One process is enough for a few threads and one device: nothing has to be copied or loaded twice. More of either
    get processes of their own.
    """
    pool = _make_pool(options)
    is_finished = False
    try:
        yield pool
        is_finished = True
    finally:
        if not is_finished:
            BENCH.models.stop()
        pool.close(at_once=not is_finished)
        BENCH.close()


def _make_pool(options: RunOptions) -> Pool:
    if options.workers == 0 and options.scheduler == "local":
        return SerialPool()
    workers = choose_workers(options.scheduler, workers=options.workers, devices=options.devices)
    is_here = options.scheduler == "local" and isinstance(workers, LocalProcesses) and workers.processes == 1
    if is_here and isinstance(workers, LocalProcesses):
        return ThreadPool(workers.threads, LANE_TASKS)
    from wsipipe.schedule import DaskPool

    return DaskPool(workers, device=options.device)
