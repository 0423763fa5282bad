"""Two worker processes of a Dask cluster: the same bytes, and what happens when one of them dies."""

import os
import signal
import threading
import time
from dataclasses import replace

import pytest
from support_runs import TOY, LoggingToy, contents, draw_discs, run

from wsipipe.cluster import LocalProcesses
from wsipipe.schedule import start_cluster

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::UserWarning:distributed.*")


@pytest.fixture(scope="module")
def cluster():
    with start_cluster(LocalProcesses(processes=2, threads=1), "MODEL") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    return [draw_discs(folder / "big.tiff", 1500, 1200), draw_discs(folder / "small.tiff", 300, 200, seed=1)]


@pytest.fixture(scope="module")
def reference(slides, tmp_path_factory):
    out = tmp_path_factory.mktemp("serial")
    run(slides, out, workers=0)
    return out


def test_two_processes_write_the_same_bytes_as_one_task_after_another(cluster, slides, reference, tmp_path):
    summary, _ = run(slides, tmp_path, scheduler=cluster.scheduler_address)
    assert summary.exit_code == 0
    for name in ("big", "small"):
        assert contents(tmp_path / name) == contents(reference / name)


def test_a_killed_worker_is_replaced_and_only_its_blocks_are_redone(cluster, slides, reference, tmp_path):
    log = tmp_path / "tiles"
    toy = LoggingToy(tile=160, halo=16, sleep_s=0.02, log=str(log))
    victim = cluster.workers[0].pid

    def kill():
        while not log.exists() or log.stat().st_size < 40:
            time.sleep(0.01)
        os.kill(victim, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    summary, _ = run(slides[:1], tmp_path / "out", scheduler=cluster.scheduler_address, segmenter=toy)
    killer.join()
    assert summary.exit_code == 0
    assert cluster.workers[0].pid != victim  # the nanny has begun another
    assert contents(tmp_path / "out" / "big") == contents(reference / "big")
    assert log.stat().st_size <= 120 + 2 * 16  # the worker held two blocks of up to 16 tiles


def test_a_failing_slide_stops_no_other_and_names_its_tile(cluster, slides, tmp_path):
    summary, _ = run(slides, tmp_path, scheduler=cluster.scheduler_address, segmenter=replace(TOY, fail_at=30))
    assert [result.job.id for result in summary.results] == ["small"]
    assert "toy failed on tile row" in summary.failures[0].reason
