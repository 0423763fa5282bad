"""Where tasks run: in this thread, in threads of this process, or (`schedule`) in the workers of a Dask cluster.

A task is a plain function with small arguments: paths, numbers, frozen dataclasses, never pixels. Every pool runs the
same functions through `run_task`, so a slide's bytes do not depend on the pool.
"""

import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Literal, Protocol

from wsipipe.faults import Fault, fault_of
from wsipipe.machine import peak_rss_bytes
from wsipipe.wording import counted

Kind = Literal["model", "cpu"]


@dataclass(frozen=True, slots=True)
class Task:
    """One call that a worker makes.

    Attributes:
        run: a function of a module, so that it can travel.
        args: its arguments.
        kind: "model" runs where a model's device is, "cpu" anywhere.
        stage: what it does, for clocks and dashboards.
        slide: number of the slide in the run; -1 for the run as a whole.
        order: number within slide and stage.
    """

    run: Callable[..., Any]
    args: tuple[Any, ...]
    kind: Kind
    stage: str
    slide: int
    order: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a task.

    Attributes:
        value: what it returned; None if it failed.
        fault: why it failed, None if it did not.
        started, ended: seconds since the epoch.
        cpu_s: CPU seconds of the calling thread.
        process: host and process id of the worker.
        peak_rss: of that process so far, bytes.
    """

    value: Any
    fault: Fault | None
    started: float
    ended: float
    cpu_s: float
    process: str
    peak_rss: int


class Pool(Protocol):
    """Runs tasks. `capacity` says how many of a kind to hand over at once: those that run and a few that wait."""

    @property
    def about(self) -> str:
        """One line for the user: how many workers, of what kind, where the dashboard is."""
        ...

    @property
    def is_remote(self) -> bool:
        """Whether tasks run in other processes."""
        ...

    def capacity(self, kind: Kind) -> int:
        """Return how many tasks of a kind should be in the pool."""
        ...

    def submit(self, task: Task) -> None:
        """Take a task over."""
        ...

    def wait(self) -> list[tuple[Task, Outcome]]:
        """Return tasks that ended, at least one; some must be in the pool."""
        ...

    def close(self, *, at_once: bool) -> None:
        """Stop the workers; at_once: without waiting for what they do."""
        ...


def run_task(task: Task) -> Outcome:
    """Call a task's function; a failure becomes a value, so that it travels and stops nobody else."""
    started, cpu = time.time(), time.thread_time()
    value, fault = None, None
    try:
        value = task.run(*task.args)
    except Exception as error:
        fault = fault_of(error)
    process = f"{socket.gethostname()}:{os.getpid()}"
    return Outcome(value, fault, started, time.time(), time.thread_time() - cpu, process, peak_rss_bytes())


class SerialPool:
    """Runs one task after another in the caller's thread."""

    about = "one after another in one process"
    is_remote = False

    def __init__(self) -> None:
        """Start with nothing to do."""
        self._waiting: list[Task] = []

    def capacity(self, kind: Kind) -> int:
        """Return 1: the most urgent task is chosen anew each time."""
        return 1

    def submit(self, task: Task) -> None:
        """Take a task over."""
        self._waiting.append(task)

    def wait(self) -> list[tuple[Task, Outcome]]:
        """Run a task; CPU tasks first, so that blocks do not pile up."""
        task = min(self._waiting, key=lambda waiting: waiting.kind == "model")
        self._waiting.remove(task)
        return [(task, run_task(task))]

    def close(self, *, at_once: bool) -> None:
        """Nothing to stop."""


class ThreadPool:
    """Runs tasks in threads of this process: the stages' kernels, decoders and codecs release the interpreter's lock.

    Args:
        cpu_threads: CPU tasks at once.
        model_threads: model tasks at once; they take turns on the device, one reads and writes while another computes.
    """

    is_remote = False

    def __init__(self, cpu_threads: int, model_threads: int) -> None:
        """Start the threads."""
        self.about = f"{counted(cpu_threads, 'thread')} beside the model, one process"
        self._threads = {"cpu": cpu_threads, "model": model_threads}
        self._pools = {kind: ThreadPoolExecutor(n, thread_name_prefix=kind) for kind, n in self._threads.items()}
        self._ended: SimpleQueue[tuple[Task, Outcome]] = SimpleQueue()

    def capacity(self, kind: Kind) -> int:
        """Return the threads of a kind, and one task that waits."""
        return self._threads[kind] + 1

    def submit(self, task: Task) -> None:
        """Hand a task to the threads of its kind."""
        self._pools[task.kind].submit(self._run, task)

    def _run(self, task: Task) -> None:
        self._ended.put((task, run_task(task)))

    def wait(self) -> list[tuple[Task, Outcome]]:
        """Wait for a task to end and return all that have."""
        ended = [self._ended.get()]
        while True:
            try:
                ended.append(self._ended.get_nowait())
            except Empty:
                return ended

    def close(self, *, at_once: bool) -> None:
        """Stop the threads; what they are doing cannot be cut short, only not waited for."""
        for pool in self._pools.values():
            pool.shutdown(wait=not at_once, cancel_futures=True)
