"""What a run will take: from earlier results where there are any, else from timed calls, and never as one number."""

from dataclasses import dataclass, replace

import pytest
from support_runs import TOY, draw_discs, run

from wsipipe import speed
from wsipipe.runrecord import read_record
from wsipipe.testing import ToySegmenter


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speed")
    run([draw_discs(folder / "a.tiff", 900, 700)], folder / "out", workers=0)
    return folder / "out"


def sign(out, **changes):
    path = out / "a" / "run.json"
    replace(read_record(path), **changes).write(path)


def test_wall_time_and_stage_time_of_a_run_are_recorded(results):
    record = read_record(results / "a" / "run.json")
    assert record.timed_tiles == record.tiles == 48
    assert record.wall_seconds is not None
    assert 0 < record.seconds["infer"] < record.wall_seconds
    assert record.stage_seconds == pytest.approx(sum(record.seconds.values()) - record.seconds["report"])


def test_earlier_results_of_the_model_beat_timed_calls_and_span_model_and_all_stages(results, monkeypatch):
    sign(results, wall_seconds=96.0, tiles_per_second=1.0)
    monkeypatch.setattr(speed, "time_model", lambda *args: pytest.fail("timed"))
    found = speed.expected_speed(results, TOY, "cpu", batch=1, slots=1)
    assert (found.low, found.high) == pytest.approx((0.8 * 1.0, 1.3 * 2.0))
    assert found.basis == "1 slide (48 tiles) that this model did here before"


@pytest.mark.parametrize(
    "changes", [{"device": "cuda:0 A"}, {"timed_tiles": 16}, {"model_sha256": "0"}, {"wall_seconds": None}]
)
def test_results_that_cannot_be_compared_count_for_nothing(results, monkeypatch, changes):
    before = (results / "a" / "run.json").read_text()
    sign(results, **changes)
    monkeypatch.setattr(speed, "time_model", lambda *args: [1.0, 3.0])
    monkeypatch.setattr(speed.os, "getloadavg", lambda: (2.0 * speed.cpu_count(), 0.0, 0.0))
    found = speed.expected_speed(results, TOY, "cpu", batch=1, slots=1)
    (results / "a" / "run.json").write_text(before)
    assert found.basis.startswith("2 timed calls of the model, 1 to 3 s per tile, while 2.0 times as much")
    assert (found.low, found.high) == pytest.approx((0.8, 1.3 * 3.3))


@dataclass
class ColdToy(ToySegmenter):
    """Takes long the first time, as models do that compile themselves."""

    calls: int = 0

    def maps(self, images):
        self.calls += 1
        if self.calls == 1:
            speed.time.sleep(0.5)
        return super().maps(images)


def test_the_first_call_of_a_model_is_not_timed():
    toy = ColdToy(tile=160, halo=16)
    calls = speed.time_model(toy, 2)
    assert toy.calls == len(calls) + 1
    assert max(calls) < 0.25
