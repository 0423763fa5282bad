"""A run over many slides: one failing slide never stops the others."""

import errno
import logging
import time
from dataclasses import dataclass

from wsipipe.cohort import Failure, write_cohort
from wsipipe.errors import WsipipeError
from wsipipe.events import RunDone, RunStarted, Sink, SlideDone, SlideFailed
from wsipipe.journal import locked
from wsipipe.options import RunOptions
from wsipipe.pipeline import SlideResult, segment_slide
from wsipipe.segmenter import Segmenter, load_segmenter
from wsipipe.slidelist import SlideJob, SlideList

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunSummary:
    """How a run ended."""

    results: tuple[SlideResult, ...]
    failures: tuple[Failure, ...]

    @property
    def exit_code(self) -> int:
        """0 if every slide is done, 1 otherwise."""
        return 1 if any(failure.fatal for failure in self.failures) else 0


def run_slides(slides: SlideList, options: RunOptions, emit: Sink) -> RunSummary:
    """Do every slide of a list, then write the cohort's tables.

    Raises:
        OutputError: the output folder is locked or cannot be written.
        ModelError, UsageError: the model cannot be loaded.
    """
    started = time.perf_counter()
    with locked(options.out):
        failures = [Failure(r.path, r.id, r.reason, r.fatal) for r in slides.refusals]
        for failure in failures:
            emit(SlideFailed(failure.slide, failure.path, failure.reason))
        segmenter = load_segmenter(options.model, device=options.device)
        emit(RunStarted(len(slides.jobs), segmenter.name, options.device, options.out))
        results: list[SlideResult] = []
        try:
            for job in slides.jobs:
                outcome = _try_slide(job, segmenter, options, emit)
                if isinstance(outcome, SlideResult):
                    results.append(outcome)
                    continue
                failures.append(outcome)
                if options.fail_fast:
                    break
        finally:
            seconds = time.perf_counter() - started
            write_cohort(options.out, [result.folder for result in results], failures, seconds, options)
    nuclei = sum(result.record.nuclei for result in results)
    emit(RunDone(len(results), sum(f.fatal for f in failures), nuclei, seconds, options.out))
    return RunSummary(tuple(results), tuple(failures))


def _try_slide(job: SlideJob, segmenter: Segmenter, options: RunOptions, emit: Sink) -> SlideResult | Failure:
    started = time.perf_counter()
    try:
        result = segment_slide(job, segmenter, options, emit)
    except Exception as error:
        logger.debug("slide %s failed", job.path, exc_info=True)
        reason = explain(error).removesuffix(f": {job.path}")  # the event and the table name it already
        emit(SlideFailed(job.id, str(job.path), reason))
        return Failure(str(job.path), job.id, reason, True)
    record = result.record
    seconds = time.perf_counter() - started
    emit(SlideDone(job.id, result.folder, record.nuclei, seconds, result.skipped, record.flags))
    return result


def explain(error: Exception) -> str:
    """Return one line for the user: what went wrong and what to do."""
    if isinstance(error, WsipipeError):
        return " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f": {error.filename}" if error.filename else ""
        return f"no space left on the disk; free some and run the same command again, finished blocks are kept{where}"
    if isinstance(error, OSError):
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror or type(error).__name__}; mend that and run the same command again{where}"
    if isinstance(error, MemoryError):
        return "out of memory; close other programs or pass a smaller --workers, then run the same command again"
    return f"internal error, please report it (details with -v): {type(error).__name__}: {' '.join(str(error).split())}"
