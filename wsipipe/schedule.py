"""Tasks on the workers of a Dask cluster: processes of this machine, a cluster that runs already, or a batch system's.

The only file that imports Dask. A model task takes half of the resource GPU (MODEL where the model runs on CPUs), so
that two share a device in turns; CPU tasks take one CPU where workers count them, so that they never keep a model from
starting. A worker that dies is replaced and what it was doing runs again elsewhere; what it had finished is on disk.
"""

import importlib
import itertools
import logging
import math
import time
from collections.abc import Mapping
from typing import Any

import dask
from distributed import Client, Nanny, Scheduler, SpecCluster, as_completed

from wsipipe.cluster import ClusterClass, LocalProcesses, RunningCluster, Workers
from wsipipe.errors import MissingExtraError, UsageError
from wsipipe.faults import Fault
from wsipipe.machine import cpu_count
from wsipipe.memory import LANE_TASKS
from wsipipe.pools import Kind, Outcome, Task, run_task

logger = logging.getLogger(__name__)

WAIT_FOR_WORKERS_S = 600.0
ASK_EVERY_S = 2.0
CLOSE_S = 3.0  # patience with workers when a run is stopped
DEATHS = 3  # workers that may die of one task before its slide is given up
EXTRAS = {"dask_jobqueue": "wsipipe[slurm]", "dask_cuda": "wsipipe[multi-gpu]"}
_CONFIG = {
    "distributed.scheduler.allowed-failures": DEATHS,
    # A run keeps to its own memory budget; workers that pause, spill or restart would only get in its way.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    # A kernel may hold the interpreter's lock for long on a busy machine: that is no reason to give a worker up.
    "distributed.scheduler.worker-ttl": "10 minutes",
    "distributed.deploy.lost-worker-timeout": "10 minutes",  # a replacement first imports everything anew
    "distributed.admin.large-graph-warning-threshold": "100MB",
}


class DaskPool:
    """Runs tasks in the workers of a Dask cluster.

    Args:
        workers: what to start or join.
        device: "cpu", "cuda[:N]", or "auto" for whatever the workers offer.
    """

    is_remote = True

    def __init__(self, workers: Workers, *, device: str) -> None:
        """Start or join the cluster and wait for a worker.

        Raises:
            UsageError: the cluster cannot be reached, or no worker has a device.
            MissingExtraError: its package is not installed.
        """
        logging.getLogger("distributed").setLevel(logging.ERROR)
        self._cluster = start_cluster(workers, "GPU" if device.startswith("cuda") else "MODEL")
        self._client = _connect(self._cluster or workers)
        self._asked = -math.inf
        self._known: Mapping[str, Any] = {}
        try:
            self._client.wait_for_workers(1, timeout=WAIT_FOR_WORKERS_S)
            self._needs = self._choose_needs(device)
        except BaseException:
            self.close(at_once=True)
            raise
        self._count = itertools.count()
        self._tasks: dict[str, Task] = {}
        self._ended = as_completed(with_results=True, raise_errors=False)

    @property
    def about(self) -> str:
        """Say how many workers there are and where the dashboard is."""
        return f"{len(self._workers())} worker processes, dashboard {self._client.dashboard_link}"

    def _workers(self) -> Mapping[str, Any]:
        """Return what the scheduler knows of each worker; asked anew every few seconds, since workers come and go."""
        if time.monotonic() - self._asked > ASK_EVERY_S:
            self._known = self._client.scheduler_info(n_workers=-1)["workers"]
            self._asked = time.monotonic()
        return self._known

    def _choose_needs(self, device: str) -> dict[Kind, dict[str, float]]:
        """Return what a task of each kind takes of a worker's resources."""
        offered = {name for worker in self._workers().values() for name in worker["resources"]}
        if device.startswith("cuda") and "GPU" not in offered:
            raise UsageError(
                "no worker of this cluster offers the resource GPU; start those with a device with "
                "`dask worker ADDRESS --resources GPU=1`, or pass --device cpu"
            )
        needs: dict[Kind, dict[str, float]] = {"model": {}, "cpu": {}}
        owner = "MODEL" if device == "cpu" or "GPU" not in offered else "GPU"
        if owner in offered:
            needs["model"] = {owner: 1 / LANE_TASKS}
        if "CPU" in offered:
            needs["cpu"] = {"CPU": 1}
        return needs

    def capacity(self, kind: Kind) -> int:
        """Return the tasks of a kind that the workers run at once, and one for each worker that waits there."""
        total = 0
        for worker in self._workers().values():
            slots = worker["nthreads"]
            for name, share in self._needs[kind].items():
                slots = min(slots, int(worker["resources"].get(name, 0) / share))
            total += slots + 1 if slots else 0
        return max(1, total)

    def submit(self, task: Task) -> None:
        """Send a task to the scheduler."""
        key = f"{task.stage.replace(' ', '_')}-{task.slide}-{task.order}-{next(self._count)}"
        self._tasks[key] = task
        needs = self._needs[task.kind]
        # Earlier slides first; Dask runs the higher number first.
        future = self._client.submit(run_task, task, key=key, pure=False, resources=needs, priority=-task.slide)
        self._ended.add(future)

    def wait(self) -> list[tuple[Task, Outcome]]:
        """Wait for a task to end and return all that have."""
        return [self._outcome(future.key, future.status, result) for future, result in self._ended.next_batch()]

    def _outcome(self, key: str, status: str, result: Any) -> tuple[Task, Outcome]:
        task = self._tasks.pop(key)
        if status == "finished":
            return task, result
        error = result[1] if isinstance(result, tuple) else result
        reason = (
            f"{task.stage} {task.order} could not be run ({type(error).__name__}: {' '.join(str(error).split())}); a "
            "worker that is killed again and again has too little memory: pass a smaller --memory or fewer threads"
        )
        return task, Outcome(None, Fault(reason), 0.0, 0.0, 0.0, "", 0)

    def close(self, *, at_once: bool) -> None:
        """Leave the cluster; stop it if this run has started it."""
        timeout = CLOSE_S if at_once else 10 * CLOSE_S
        for part in (self._client, self._cluster):
            try:
                if part is not None:
                    part.close(timeout=timeout)
            except (TimeoutError, OSError) as error:  # workers that do not answer end with their parent
                logger.debug("closing %s: %r", part, error)


def _connect(target: Any) -> Client:
    if not isinstance(target, RunningCluster):
        return Client(target)
    try:
        return Client(target.address, timeout=WAIT_FOR_WORKERS_S / 20)
    except (OSError, ValueError) as error:
        raise UsageError(f"no Dask scheduler answers at {target.address} ({error}); start it, or pass local") from error


def start_cluster(workers: Workers, model: str) -> Any:
    """Return a cluster that was started, None for one that runs already.

    Args:
        workers: what to start.
        model: name of the resource that owners of a device get, "GPU" or "MODEL".
    """
    dask.config.set(_CONFIG)
    if isinstance(workers, RunningCluster):
        return None
    if isinstance(workers, LocalProcesses):
        return SpecCluster(
            workers={k: _local_worker(workers, k, model) for k in range(workers.processes)},
            scheduler={"cls": Scheduler, "options": {"dashboard_address": "127.0.0.1:0", "host": "127.0.0.1"}},
            silence_logs=logging.ERROR,
        )
    cluster = _load_class(workers)(**workers.options)
    if workers.workers is not None:
        cluster.scale(workers.workers)
    return cluster


# Ctrl-C in a terminal reaches every process; the run's own one stops the workers.
_IGNORE_INTERRUPT = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"


def _local_worker(workers: LocalProcesses, number: int, model: str) -> dict[str, Any]:
    """Describe one process: the first of them own a device each, the others only do CPU tasks."""
    owns_model = model == "MODEL" or number < len(workers.devices)
    env = {"OMP_NUM_THREADS": str(max(1, cpu_count() // workers.processes))}
    if model == "GPU":
        env["CUDA_VISIBLE_DEVICES"] = workers.devices[number].partition(":")[2] or "0" if owns_model else ""
    options = {
        "nthreads": workers.threads + (LANE_TASKS if owns_model else 0),
        "resources": {"CPU": workers.threads} | ({model: 1} if owns_model else {}),
        "memory_limit": None,
        "silence_logs": logging.ERROR,
        "env": env,
        "preload": [_IGNORE_INTERRUPT],
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0",
    }
    return {"cls": Nanny, "options": options}


def _load_class(workers: ClusterClass) -> Any:
    module, _, name = workers.name.rpartition(".")
    package = module.partition(".")[0]
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        extra = EXTRAS.get(package, package)
        raise MissingExtraError(f"--scheduler needs {package}, which is not installed; pip install {extra}") from error
    except AttributeError as error:
        raise UsageError(f"--scheduler file: {module} has no class {name}") from error
