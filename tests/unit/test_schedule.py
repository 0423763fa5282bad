import pytest

from wsipipe.cluster import ClusterClass, LocalProcesses, RunningCluster, choose_workers
from wsipipe.errors import MissingExtraError, UsageError
from wsipipe.schedule import DaskPool

CPU = ("cpu",)


@pytest.mark.parametrize(
    ("threads", "devices", "expected"),
    [
        (1, CPU, LocalProcesses(1, 1, CPU)),
        (4, CPU, LocalProcesses(1, 4, CPU)),
        (16, CPU, LocalProcesses(4, 4, CPU)),
        (16, ("cuda:0", "cuda:1"), LocalProcesses(4, 4, ("cuda:0", "cuda:1"))),
        (1, ("cuda:0", "cuda:1"), LocalProcesses(2, 1, ("cuda:0", "cuda:1"))),
    ],
)
def test_local_starts_a_process_per_device_and_per_few_threads(threads, devices, expected):
    assert choose_workers("local", workers=threads, devices=devices) == expected


def test_an_address_joins_and_a_file_names_a_class(tmp_path):
    assert choose_workers("tcp://h:8786", workers=None, devices=CPU) == RunningCluster("tcp://h:8786")
    file = tmp_path / "slurm.toml"
    file.write_text('cluster = "dask_jobqueue.SLURMCluster"\nworkers = 8\n[options]\nqueue = "gpu"\n')
    expected = ClusterClass("dask_jobqueue.SLURMCluster", 8, {"queue": "gpu"})
    assert choose_workers(str(file), workers=None, devices=CPU) == expected
    file.write_text('cluster = "local"\nprocesses = 3\nthreads = 2\n')
    assert choose_workers(str(file), workers=None, devices=CPU) == LocalProcesses(3, 2, CPU)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cluster = ", "readable TOML"),
        ('cluster = "slurm"\n', "needs cluster"),
        ("", "needs cluster"),
        ('cluster = "local"\nprocesses = 0\n', "processes = 0"),
        ('cluster = "local"\nprocesses = true\n', "processes = True"),
        ('cluster = "local"\nnodes = 2\n', "nodes = 2"),
        ('cluster = "local"\nworkers = 2\n', "takes processes and threads only"),
    ],
)
def test_a_file_that_makes_no_sense_is_wrong_usage(tmp_path, text, words):
    file = tmp_path / "cluster.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=words):
        choose_workers(str(file), workers=None, devices=CPU)


@pytest.mark.parametrize(("scheduler", "workers"), [("slurm", None), ("missing.toml", None), ("tcp://h:1", 4)])
def test_a_scheduler_that_cannot_be_is_wrong_usage(scheduler, workers):
    with pytest.raises(UsageError, match="--scheduler"):
        choose_workers(scheduler, workers=workers, devices=CPU)


def test_an_extra_that_is_not_installed_is_named():
    with pytest.raises(MissingExtraError, match=r"pip install wsipipe\[slurm\]"):
        DaskPool(ClusterClass("dask_jobqueue.SLURMCluster"), device="cpu")
