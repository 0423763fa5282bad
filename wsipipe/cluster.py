"""Which workers a run asks for: `--scheduler local`, the address of a Dask scheduler, or a TOML file.

# cluster.toml: processes on this machine
cluster = "local"
processes = 4
threads = 2

# cluster.toml: jobs of a batch system, or one process per GPU
cluster = "dask_jobqueue.SLURMCluster"      # or "dask_cuda.LocalCUDACluster", or any Dask cluster class
workers = 8                                 # jobs to ask for; leave out where the class starts its own
[options]                                   # arguments of the class
queue = "gpu"
cores = 8
memory = "64GB"
worker_extra_args = ["--resources", "GPU=1"]
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsipipe.errors import UsageError
from wsipipe.machine import cpu_count

THREADS_PER_PROCESS = 4  # more would wait for each other's interpreter lock; docs/performance.md, "Threads"
LOCAL = "local"
_KEYS = {"cluster": str, "processes": int, "threads": int, "workers": int, "options": dict}


@dataclass(frozen=True, slots=True)
class LocalProcesses:
    """Worker processes on this machine.

    Attributes:
        processes: how many; each has a model of its own, on a device of its own if there are several.
        threads: CPU tasks at once in each.
        devices: "cpu", or one CUDA device for each owner of a model.
    """

    processes: int
    threads: int
    devices: tuple[str, ...] = ("cpu",)


@dataclass(frozen=True, slots=True)
class RunningCluster:
    """A Dask cluster that someone else has started. address: of its scheduler."""

    address: str


@dataclass(frozen=True, slots=True)
class ClusterClass:
    """A cluster that a class of another package starts.

    Attributes:
        name: "package.module.Class".
        workers: to ask for; None: as many as the class starts by itself.
        options: the class's arguments.
    """

    name: str
    workers: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


Workers = LocalProcesses | RunningCluster | ClusterClass


def choose_workers(scheduler: str, *, workers: int | None, devices: tuple[str, ...]) -> Workers:
    """Turn `--scheduler` and `--workers` into what is to be started.

    Args:
        scheduler: "local", an address such as tcp://host:8786, or a TOML file.
        workers: CPU tasks at once on this machine; None: one per core.
        devices: what this machine's models run on.

    Raises:
        UsageError: it is none of these, or the file says something impossible.
    """
    if scheduler == LOCAL:
        return _fitting_processes(workers if workers is not None else cpu_count(), devices)
    if workers is not None:
        raise UsageError(f"--workers counts threads of this machine; leave it out with --scheduler {scheduler}")
    if scheduler.endswith(".toml"):
        return _read_file(Path(scheduler), devices)
    if "://" in scheduler:
        return RunningCluster(scheduler)
    raise UsageError(f"--scheduler must be local, an address such as tcp://host:8786 or a .toml file, got {scheduler}")


def _fitting_processes(threads: int, devices: tuple[str, ...]) -> LocalProcesses:
    processes = max(len(devices), math.ceil(threads / THREADS_PER_PROCESS))
    return LocalProcesses(processes, max(1, threads // processes), devices)


def _read_file(path: Path, devices: tuple[str, ...]) -> Workers:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"--scheduler must name a readable TOML file ({error}): {path}") from error
    for key, value in values.items():
        if type(value) is not _KEYS.get(key) or (isinstance(value, int) and value < 1):
            raise UsageError(f"--scheduler file: {key} = {value!r} is not one of {_describe_keys()}: {path}")
    name = values.get("cluster", "")
    if name == LOCAL:
        if values.keys() & {"workers", "options"}:
            raise UsageError(f'--scheduler file: cluster = "local" takes processes and threads only: {path}')
        return LocalProcesses(values.get("processes", 1), values.get("threads", 1), devices)
    if "." not in name:
        raise UsageError(
            f'--scheduler file needs cluster = "local" or a class such as {_EXAMPLE}, got {name!r}: {path}'
        )
    return ClusterClass(name, values.get("workers"), values.get("options", {}))


_EXAMPLE = '"dask_jobqueue.SLURMCluster"'


def _describe_keys() -> str:
    return ", ".join(f"{name} ({kind.__name__})" for name, kind in _KEYS.items())
