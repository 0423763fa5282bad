"""--overwrite: the old results stay until the new ones are complete, and a stopped --overwrite goes on where it was."""

import multiprocessing
import os
from dataclasses import replace

import pytest
from support_runs import TOY, Events, contents, draw_discs, run, run_and_tell

from wsipipe import open_nuclei, replacement
from wsipipe.events import SlideDone, SlidePlanned, StageStarted, TilesDone
from wsipipe.journal import SlideFolder
from wsipipe.options import RunOptions
from wsipipe.runner import run_slides
from wsipipe.slidelist import list_slides
from wsipipe.testing import ToySegmenter

OTHER = {"geojson_detail": "full", "workers": 0}  # options of another run key


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    return draw_discs(tmp_path_factory.mktemp("slides") / "a.tiff", 900, 700)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return draw_discs(tmp_path_factory.mktemp("small") / "b.tiff", 200, 150, seed=2)


def hidden(out):
    return sorted(path.name for path in out.rglob(".*") if path.name != ".wsipipe.lock")


def test_old_results_stay_readable_until_the_new_ones_take_their_place(small, tmp_path):
    run([small], tmp_path / "fresh", **OTHER)
    run([small], tmp_path, workers=0)
    before, nuclei = contents(tmp_path / "b"), open_nuclei(tmp_path).count_rows()
    looked = []

    def look(event):
        if isinstance(event, SlidePlanned | TilesDone | StageStarted):
            looked.append(type(event).__name__)
            assert SlideFolder(tmp_path / "b").is_done()
            assert contents(tmp_path / "b") == before
            assert open_nuclei(tmp_path).count_rows() == nuclei

    options = RunOptions(out=tmp_path, tissue="none", overwrite=True, **OTHER)
    run_slides(list_slides([str(small)], mpp=None), options, look, segmenter=TOY)
    assert "StageStarted" in looked
    assert contents(tmp_path / "b") == contents(tmp_path / "fresh" / "b") != before
    assert hidden(tmp_path) == []


def test_an_overwrite_that_was_killed_leaves_the_old_results_and_goes_on(slide, tmp_path):
    run([slide], tmp_path / "fresh", **OTHER)
    run([slide], tmp_path, workers=0)
    before = contents(tmp_path / "a")
    context = multiprocessing.get_context("forkserver")
    hears, tells = context.Pipe(duplex=False)
    toy, options = ToySegmenter(tile=160, halo=16, sleep_s=0.02), {"overwrite": True, **OTHER}
    process = context.Process(target=run_and_tell, args=([slide], tmp_path, toy, tells, options))
    process.start()
    while hears.recv() != "TilesDone":
        pass
    process.kill()
    process.join()
    assert contents(tmp_path / "a") == before
    assert SlideFolder(tmp_path / "a").is_done()
    _, events = run([slide], tmp_path, overwrite=True, **OTHER)
    assert events.of(SlidePlanned)[0].done_tiles >= 16
    assert contents(tmp_path / "a") == contents(tmp_path / "fresh" / "a")
    assert hidden(tmp_path) == []


def test_a_stopped_overwrite_does_not_repeat_finished_slides_and_the_next_one_does(small, tmp_path):
    second = small.with_name("c.tiff")
    second.write_bytes(small.read_bytes())
    run([small, second], tmp_path, workers=0)

    def stop(event):
        if isinstance(event, SlideDone):
            raise KeyboardInterrupt

    options = RunOptions(out=tmp_path, tissue="none", overwrite=True, workers=0)
    with pytest.raises(KeyboardInterrupt):
        run_slides(list_slides([str(small), str(second)], mpp=None), options, stop, segmenter=TOY)
    for skipped in ([True, False], [False, False]):
        summary, _ = run([small, second], tmp_path, overwrite=True, workers=0)
        assert [result.skipped for result in summary.results] == skipped
    assert hidden(tmp_path) == []


def test_an_overwrite_that_fails_leaves_the_old_results_and_goes_on_when_repeated(slide, tmp_path):
    run([slide], tmp_path, workers=0)
    before = contents(tmp_path / "a")
    summary, _ = run([slide], tmp_path, overwrite=True, segmenter=replace(TOY, fail_at=20), **OTHER)
    assert summary.exit_code == 1
    assert contents(tmp_path / "a") == before
    summary, events = run([slide], tmp_path, overwrite=True, **OTHER)
    assert events.of(SlidePlanned)[0].done_tiles == 16
    assert summary.exit_code == 0


def test_an_overwrite_with_other_options_than_the_stopped_one_starts_anew(slide, tmp_path):
    run([slide], tmp_path, workers=0)
    run([slide], tmp_path, overwrite=True, segmenter=replace(TOY, fail_at=20), **OTHER)
    _, events = run([slide], tmp_path, overwrite=True, workers=0, geojson_detail="none")
    assert events.of(SlidePlanned)[0].done_tiles == 0
    assert not (tmp_path / "a" / "nuclei.geojson.gz").exists()
    assert hidden(tmp_path) == []


def test_an_unfinished_slide_is_continued_by_an_overwrite_of_the_same_parameters(slide, tmp_path):
    run([slide], tmp_path, workers=0, segmenter=replace(TOY, fail_at=20))
    _, events = run([slide], tmp_path, workers=0, overwrite=True)
    assert isinstance(events, Events)
    assert events.of(SlidePlanned)[0].done_tiles == 16


def test_a_kill_between_the_two_moves_brings_the_old_results_back(small, tmp_path, monkeypatch):
    run([small], tmp_path, workers=0)
    before, move, moved = contents(tmp_path / "b"), os.replace, []

    def killed(source, target):
        if replacement.OLD in str(target) or moved:
            moved.append(target)
        if len(moved) == 2:
            raise KeyboardInterrupt
        move(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(replacement.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            run([small], tmp_path, overwrite=True, **OTHER)
    assert not (tmp_path / "b").exists()
    replacement.recover(tmp_path)
    assert contents(tmp_path / "b") == before
    summary, events = run([small], tmp_path, overwrite=True, **OTHER)
    assert summary.exit_code == 0
    assert events.of(SlidePlanned) == []  # the new results were complete
    assert hidden(tmp_path) == []
