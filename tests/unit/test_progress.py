"""What a run says while it goes on."""

import io
from pathlib import Path

from wsipipe.cli import progress
from wsipipe.cli.progress import LineSink
from wsipipe.events import SlidePlanned, TilesDone


def _planned(slide, done_tiles):
    return SlidePlanned(slide, Path("x.svs"), 0.25, "slide", 0.25, 1.0, 100, done_tiles, 1)


def test_the_rate_leaves_out_tiles_of_an_earlier_run_and_every_slide_speaks_for_itself(monkeypatch):
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
    assert said == ["a: 90/100 tiles, 0.50 tiles/s, 20.0 s left", "b: 40/100 tiles, 2.00 tiles/s, 30.0 s left"]
