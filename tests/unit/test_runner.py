import json
import os
import time
from dataclasses import replace

import pytest
from support_runs import TOY, draw_discs, run
from support_slides import texture, write_slide

from wsipipe.errors import UsageError
from wsipipe.events import Noted, RunDone, RunStarted, SlideFailed, SlidePlanned
from wsipipe.memory import block_window_px, share_memory
from wsipipe.segmenter import facts_of

GB = 2**30


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    return [draw_discs(folder / f"{name}.tiff", 200, 150, seed=k) for k, name in enumerate("abc")]


def test_fail_fast_stops_at_the_first_failure(slides, tmp_path):
    summary, events = run(slides, tmp_path, workers=0, fail_fast=True, segmenter=replace(TOY, fail_at=1))
    assert len(events.of(SlideFailed)) == 1
    assert summary.exit_code == 1
    assert "toy failure" in (tmp_path / "failed.csv").read_text()


def test_fail_fast_stops_before_the_first_slide_where_an_input_is_missing(slides, tmp_path):
    summary, events = run([*slides, tmp_path / "gone.tiff"], tmp_path, workers=0, fail_fast=True)
    assert [type(event) for event in events] == [SlideFailed, RunDone]
    assert summary.exit_code == 1
    assert summary.results == ()


def test_a_broken_slide_among_good_ones_is_listed_and_the_rest_is_done(slides, tmp_path):
    broken = slides[0].with_name("broken.tiff")
    broken.write_bytes(b"II*\0 this is no slide")
    summary, events = run([slides[0], broken, slides[1]], tmp_path, workers=2)
    assert summary.exit_code == 1
    assert {result.job.id for result in summary.results} == {"a", "b"}
    assert events.of(RunDone)[0].failed == 1
    assert "2 threads" in events.of(RunStarted)[0].workers
    record = json.loads((tmp_path / "a" / "run.json").read_text())
    assert record["peak_rss_bytes"] > 50 * 2**20
    assert {"plan", "infer", "extract", "labels", "tables"} <= record["seconds"].keys()


@pytest.mark.parametrize("is_compiled", [True, False])
def test_a_first_run_says_why_its_first_block_takes_long(slides, tmp_path, monkeypatch, is_compiled):
    monkeypatch.setattr("wsipipe.runner.is_compiled", lambda: is_compiled)
    _, events = run(slides[:1], tmp_path, workers=0)
    assert [note.text.startswith("the first run here compiles") for note in events.of(Noted)] == [True] * (
        not is_compiled
    )


def test_memory_is_shared_out_and_more_of_it_means_more_at_once():
    model = facts_of(replace(TOY, tile=1024, halo=64))
    one = 40 * block_window_px(model)
    budgets = [share_memory(limit, base=GB, threads=16, model=model) for limit in (3 * GB, 8 * GB, 64 * GB)]
    slots = [budget.cpu_slots for budget in budgets]
    assert slots == sorted(slots)
    assert slots[-1] == 16
    for limit, budget in zip((3 * GB, 8 * GB, 64 * GB), budgets, strict=True):
        assert GB + budget.cpu_slots * one <= limit
        assert budget.window_px >= block_window_px(model)
    with pytest.raises(UsageError, match="pass --memory 2GB or more"):
        share_memory(GB, base=GB // 2, threads=2, model=model)


@pytest.mark.slow
def test_a_cohort_with_broken_slides_lists_them_and_a_second_run_computes_nothing(slides, tmp_path):
    """Broken in seven ways: empty, cut off, text, another image format, without scale, a folder, a missing file."""
    n = int(os.environ.get("WSIPIPE_COHORT", "200")) - 7
    folder = tmp_path / "slides"
    folder.mkdir()
    whole = slides[0].read_bytes()
    good = [folder / f"good{k:03d}.tiff" for k in range(n)]
    for path in good:
        path.write_bytes(whole)
    broken = {"empty.tiff": b"", "cut.tiff": whole[: len(whole) // 3], "text.svs": b"hello", "gif.tiff": b"GIF89a" * 99}
    for name, data in broken.items():
        (folder / name).write_bytes(data)
    write_slide(folder / "scaleless.tiff", texture(64, 64), mpp=None)
    (folder / "folder.svs").mkdir()
    inputs = [*good, *(folder / name for name in broken), folder / "scaleless.tiff", folder / "folder.svs"]
    inputs.append(folder / "missing.tiff")
    started, dispatching = time.perf_counter(), time.thread_time()
    summary, _ = run(inputs, tmp_path / "out", workers=2)
    first_s, dispatching = time.perf_counter() - started, time.thread_time() - dispatching
    assert len(summary.results) == n
    assert len([failure for failure in summary.failures if failure.fatal]) == 7
    assert summary.exit_code == 1
    assert (tmp_path / "out" / "failed.csv").read_text().count("\n") == 8
    started = time.perf_counter()
    again, events = run(inputs, tmp_path / "out", workers=2, segmenter=replace(TOY, fail_at=1))
    second_s = time.perf_counter() - started
    assert all(result.skipped for result in again.results)
    assert len(again.results) == n
    assert events.of(SlidePlanned) == []
    print(f"{n} slides: {first_s:.1f} s, again {second_s:.1f} s")
    print(f"scheduling and the cohort's tables, the work of this thread: {dispatching / first_s:.1%} of the run")
    assert second_s < first_s / 5
