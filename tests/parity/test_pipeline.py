"""The same bytes whatever runs the tasks, in whatever order, in however many attempts."""

import random
from dataclasses import replace

import pytest
from support_runs import TOY, contents, count_nuclei, draw_discs, run

import wsipipe.runner
from wsipipe.events import SlidePlanned, TilesDone
from wsipipe.pools import SerialPool, run_task
from wsipipe.verify import verify_folder

TILES = 12 * 10  # of 128 px, in a slide of 1500 x 1200 px


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    return draw_discs(tmp_path_factory.mktemp("slides") / "big.tiff", 1500, 1200)


@pytest.fixture(scope="module")
def reference(slide, tmp_path_factory):
    out = tmp_path_factory.mktemp("serial")
    summary, _ = run([slide], out, workers=0)
    assert summary.exit_code == 0
    return out / "big"


def test_a_serial_run_keeps_its_promises(reference):
    assert verify_folder(reference) == []
    assert count_nuclei(reference) > 500


@pytest.mark.parametrize("options", [{"workers": 2}, {"workers": 3, "batch_size": 5}])
def test_threads_write_the_same_bytes_as_one_task_after_another(slide, reference, tmp_path, options):
    run([slide], tmp_path, **options)
    assert contents(tmp_path / "big") == contents(reference)


class RandomPool(SerialPool):
    """Takes everything at once and runs it in random order."""

    def __init__(self, seed):
        super().__init__()
        self._random = random.Random(seed)

    def capacity(self, kind):
        return 1000

    def wait(self):
        task = self._waiting.pop(self._random.randrange(len(self._waiting)))
        return [(task, run_task(task))]


@pytest.mark.parametrize("seed", [1, 2])
def test_the_order_of_blocks_does_not_show(slide, reference, tmp_path, monkeypatch, seed):
    monkeypatch.setattr(wsipipe.runner, "_make_pool", lambda options: RandomPool(seed))
    run([slide], tmp_path)
    assert contents(tmp_path / "big") == contents(reference)


def test_a_run_in_three_attempts_writes_the_same_bytes_and_repeats_no_finished_block(slide, reference, tmp_path):
    done = 0
    for fail_at in (40, 50, None):
        summary, events = run([slide], tmp_path, workers=0, segmenter=replace(TOY, fail_at=fail_at))
        (planned,) = events.of(SlidePlanned)
        assert planned.done_tiles == done
        done = max([done, *(event.tiles for event in events.of(TilesDone))])
        assert summary.exit_code == (1 if fail_at else 0)
    assert done == TILES
    assert contents(tmp_path / "big") == contents(reference)
