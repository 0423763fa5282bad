"""What goes wrong in the middle of a run costs at most the blocks in flight, and one line says what to do."""

import errno
import multiprocessing
import os
import random
import re
import signal
from dataclasses import dataclass, replace

import numpy as np
import pytest
from support_runs import TOY, Events, LoggingToy, contents, draw_discs, run, run_and_tell

from wsipipe.assemble import TABLE_NAME
from wsipipe.errors import LockedError, SlideReadError, UsageError
from wsipipe.events import SlidePlanned, TilesDone
from wsipipe.faults import explain, fault_of
from wsipipe.geojson import GeoJsonWriter
from wsipipe.journal import SlideFolder, locked
from wsipipe.maps import MapStore
from wsipipe.slide import Slide
from wsipipe.testing import ToySegmenter

KILLS = int(os.environ.get("WSIPIPE_KILLS", "5"))
IN_FLIGHT = 2 * 16  # tiles of the blocks that share the model


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    return draw_discs(tmp_path_factory.mktemp("slides") / "a.tiff", 900, 700)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return draw_discs(tmp_path_factory.mktemp("small") / "b.tiff", 200, 150, seed=2)


@pytest.fixture(scope="module")
def reference(slide, small, tmp_path_factory):
    out = tmp_path_factory.mktemp("serial")
    run([slide, small], out, workers=0)
    return out


# What the toy's own process does is started from a server that has imported everything once.
@pytest.fixture(scope="module")
def processes():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["support_runs", "wsipipe.report"])
    return context


def start(processes, slides, out, toy, **options):
    """Start a run in a process of its own; return it and the pipe with the names of its events."""
    hears, tells = processes.Pipe(duplex=False)
    process = processes.Process(target=run_and_tell, args=(slides, out, toy, tells, options))
    process.start()
    tells.close()
    return process, hears


def test_runs_killed_at_random_moments_end_with_the_same_bytes_and_repeat_only_blocks_in_flight(
    processes, slide, reference, tmp_path
):
    log = tmp_path / "tiles"
    toy = LoggingToy(tile=160, halo=16, sleep_s=0.01, log=str(log))
    rng = random.Random(0)
    kills, finished = 0, 0
    while kills < KILLS:
        out = tmp_path / f"out{finished}"
        process, hears = start(processes, [slide], out, toy, workers=2)
        try:
            for _ in range(rng.randrange(1, 7)):  # of about ten events that a whole run has
                hears.recv()
            hears.poll(rng.random() / 5)
            process.kill()
            kills += 1
        except EOFError:  # it was done before it could be killed
            process.join()
            assert process.exitcode == 0
            assert contents(out / "a") == contents(reference / "a")
            finished += 1
        process.join()
        hears.close()
    summary, _ = run([slide], tmp_path / f"out{finished}", segmenter=toy, workers=2)
    assert summary.exit_code == 0
    assert contents(tmp_path / f"out{finished}" / "a") == contents(reference / "a")
    assert log.stat().st_size <= 48 * (finished + 1) + kills * IN_FLIGHT


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_exits_at_once_and_goes_on_later(processes, slide, reference, tmp_path, number, code):
    process, hears = start(processes, [slide], tmp_path, ToySegmenter(tile=160, halo=16, sleep_s=0.05), workers=2)
    while hears.recv() != "TilesDone":
        pass
    os.kill(process.pid, number)
    process.join(10)
    assert process.exitcode == code
    summary, events = run([slide], tmp_path, workers=2)
    assert summary.exit_code == 0
    assert events.of(SlidePlanned)[0].done_tiles >= 16
    assert contents(tmp_path / "a") == contents(reference / "a")


def test_a_finished_slide_is_not_opened_twice(reference, slide, small, tmp_path):
    run([small], tmp_path, workers=0)
    before = (tmp_path / "b" / "run.json").read_bytes()
    summary, events = run([small], tmp_path, workers=0, segmenter=replace(TOY, fail_at=1))
    assert summary.exit_code == 0
    assert summary.results[0].skipped
    assert events.of(SlidePlanned) == []
    assert (tmp_path / "b" / "run.json").read_bytes() == before


def test_a_finished_slide_that_lost_a_file_is_done_again(reference, small, tmp_path):
    run([small], tmp_path, workers=0)
    (tmp_path / "b" / TABLE_NAME).unlink()
    summary, _ = run([small], tmp_path, workers=0)
    assert not summary.results[0].skipped
    assert contents(tmp_path / "b") == contents(reference / "b")


def test_unfinished_files_of_a_killed_run_are_swept_and_damaged_blocks_redone(slide, reference, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(GeoJsonWriter, "write", fail)
        run([slide], tmp_path, workers=0)
    folder = SlideFolder(tmp_path / "a")
    orphan = folder.work / "blocks" / ".000001.arrow.99.partial"
    orphan.write_bytes(b"half")
    written = sorted((folder.work / "blocks").glob("*.arrow"))
    written[0].write_bytes(written[0].read_bytes()[:-100])
    summary, events = run([slide], tmp_path, workers=0, segmenter=replace(TOY, fail_at=1))
    assert not orphan.exists()
    assert summary.exit_code == 0
    assert events.of(SlidePlanned)[0].done_tiles == 48
    assert contents(tmp_path / "a") == contents(reference / "a")


@dataclass
class BrokenToy(ToySegmenter):
    """Returns what a model must not, from the fifth tile on."""

    kind: str = "nan"

    def maps(self, images):
        maps = super().maps(images)
        if self.n_tiles < 5:
            return maps
        return {"nan": np.full(maps.shape, np.nan, np.float32), "shape": maps[:, :, 1:]}[self.kind]


@pytest.mark.parametrize(("kind", "words"), [("nan", "float32 with NaN"), ("shape", r"got \(1, 2, 159, 160\) uint8")])
def test_a_model_that_returns_nonsense_fails_the_slide_and_names_the_tile(slide, small, tmp_path, kind, words):
    toy = BrokenToy(tile=160, halo=16, kind=kind)
    summary, _ = run([slide, small], tmp_path, workers=0, segmenter=toy)
    assert summary.exit_code == 1
    reason = summary.failures[0].reason
    assert "toy failed on tile row 1 col 0" in reason
    assert re.search(words, reason)
    assert "\n" not in reason


@dataclass
class FullToy(ToySegmenter):
    """Fits two tiles at once, like a small device."""

    def maps(self, images):
        if len(images) > 2:
            raise type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory")
        return super().maps(images)


def test_a_full_device_halves_the_batch_and_changes_no_byte(slide, reference, tmp_path):
    summary, _ = run([slide], tmp_path, workers=2, batch_size=8, segmenter=FullToy(tile=160, halo=16))
    assert summary.exit_code == 0
    assert contents(tmp_path / "a") == contents(reference / "a")


@pytest.mark.parametrize("where", [(MapStore, "write"), (SlideFolder, "mark_inferred"), (GeoJsonWriter, "write")])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_disk_that_fails_costs_one_slide_one_line_and_no_finished_block(
    small, reference, tmp_path, monkeypatch, where, code
):
    def fail(*args, **kwargs):
        raise OSError(code, os.strerror(code), "/some/file")

    with monkeypatch.context() as patched:
        patched.setattr(*where, fail)
        summary, _ = run([small], tmp_path, workers=2)
    (failure,) = summary.failures
    assert ("no space left" if code == errno.ENOSPC else "Permission denied") in failure.reason
    assert "run the same command again" in failure.reason
    summary, _ = run([small], tmp_path, workers=2)
    assert summary.exit_code == 0
    assert contents(tmp_path / "b") == contents(reference / "b")


def test_a_slide_that_turns_unreadable_fails_alone_and_resumes(slide, small, reference, tmp_path, monkeypatch):
    read, reads = Slide.read, []

    def unreadable(self, box, frame):
        if self.path == slide:
            reads.append(box)
            if len(reads) > 20:
                raise SlideReadError(f"slide cannot be read: {slide}")
        return read(self, box, frame)

    with monkeypatch.context() as patched:
        patched.setattr(Slide, "read", unreadable)
        summary, _ = run([slide, small], tmp_path, workers=0)
    assert [failure.reason for failure in summary.failures] == ["slide cannot be read"]
    assert [result.job.id for result in summary.results] == ["b"]
    summary, events = run([slide, small], tmp_path, workers=0)
    assert summary.exit_code == 0
    assert [event.slide for event in events.of(SlidePlanned)] == ["a"]
    assert contents(tmp_path / "a") == contents(reference / "a")


def test_a_second_run_into_one_folder_is_refused(small, tmp_path):
    with locked(tmp_path), pytest.raises(LockedError, match="another run"):
        run([small], tmp_path, workers=0)


def test_memory_that_cannot_hold_one_block_is_refused_with_a_number(small, tmp_path):
    with pytest.raises(UsageError, match=r"--memory 0\.0GB is too small: .* pass --memory \d+GB or more"):
        run([small], tmp_path, workers=0, memory=2**20)


def test_a_fault_keeps_our_errors_and_explains_foreign_ones_in_one_line():
    ours = fault_of(SlideReadError("broken\nslide: /a"))
    assert ours.reason == "broken slide: /a"
    assert isinstance(ours.error, SlideReadError)
    foreign = fault_of(ZeroDivisionError("division\nby zero"))
    assert foreign.error is None
    assert foreign.reason.endswith("ZeroDivisionError: division by zero")
    assert "out of memory" in explain(MemoryError())


def test_events_tell_of_every_tile(slide, tmp_path):
    _, events = run([slide], tmp_path, workers=2)
    assert isinstance(events, Events)
    assert events.of(TilesDone)[-1].tiles == events.of(TilesDone)[-1].total == 48
