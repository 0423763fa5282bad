"""What a run says while it goes on."""

import io
from pathlib import Path

from wsipipe.cli import progress
from wsipipe.cli.pace import RECENT, Pace
from wsipipe.cli.progress import LineSink, describe
from wsipipe.events import RunDone, RunStarted, SlideDone, SlidePlanned, TilesDone
from wsipipe.wording import between, duration, roughly


def _planned(slide, done_tiles):
    return SlidePlanned(slide, Path("x.svs"), 0.25, "slide", 0.25, 1.0, 100, done_tiles, 1)


def test_the_pace_leaves_out_tiles_of_an_earlier_run_and_slides_before_go_first(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    sink = LineSink(stream)
    sink(_planned("a", 80))
    sink(_planned("b", 0))
    planned = len(stream.getvalue())
    now[0] = 20.0
    for slide, tiles in (("a", 90), ("b", 40), ("a", 91)):
        sink(TilesDone(slide, tiles, 100))
    said = stream.getvalue()[planned:].splitlines()
    assert said == [
        "a: 90/100 tiles, 0.5 tiles/s now, about 20 s left",
        "b: 40/100 tiles, 2.5 tiles/s now, about 30 s left",
    ]


def test_the_time_left_follows_the_recent_pace_not_the_mean_since_the_start():
    pace = Pace()
    pace.begin(1)
    pace.plan("a", 1000, 0, 0.0)
    pace.advance("a", 16, 160.0)  # a slow start: kernels are compiled, the machine is busy
    for k in range(RECENT):
        pace.advance("a", 32 + 16 * k, 161.0 + k)
    assert pace.rate == 16
    assert pace.slide_left("a") == (1000 - 16 * (RECENT + 1)) / 16


def test_the_time_of_the_run_weighs_slides_by_tissue_and_guesses_those_not_planned_yet():
    pace = Pace()
    pace.begin(5)
    pace.end("done earlier")
    pace.plan("large", 300, 0, 0.0)
    pace.plan("small", 100, 0, 0.0)
    assert pace.run_left() is None
    pace.advance("large", 100, 50.0)
    assert pace.slide_left("large") == 100
    assert pace.slide_left("small") == 150
    assert pace.run_left() == 150 + 2 * 200 / 2  # two more slides of 200 tiles, the mean
    pace.end("large")
    assert pace.slide_left("small") == 50


def test_times_are_called_wall_time_and_one_thing_is_one():
    done = SlideDone("a", Path("out/a"), 1, 12.34, False, ())
    assert describe(done) == "a: done in 12.3 s wall time, 1 nucleus: out/a"
    run = RunDone(1, 0, 2000, 75.0, Path("out"))
    assert describe(run) == "1 slide done, 0 failed, 2,000 nuclei, 1 min 15 s wall time: out"
    assert describe(RunStarted(1, "m", "cpu", Path("out"))).startswith("1 slide, model m")


def test_times_are_written_as_people_do():
    told = [duration(s) for s in (12.34, 59.97, 245, 11220, None)]
    assert told == ["12.3 s", "1 min 00 s", "4 min 05 s", "3 h 07 min", "–"]
    assert [roughly(s) for s in (1, 43, 200, 7000, 90000)] == ["5 s", "45 s", "3 min", "2 h 00 min", "25 h"]
    assert between(41, 200) == "40 s to 3 min"
    assert between(41, 42) == "about 40 s"
