"""Make batches ahead of the training step, in step order, by threads or processes."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader, Dataset

from amasam.data.batch import DomainBatch
from amasam.data.sampler import CropSampler


@dataclass(frozen=True, slots=True)
class PrefetchConfig:
    """Who makes batches.

    Attributes:
        workers: threads or processes; 0 makes each batch when it is asked for.
        kind: "threads" (share the interpreter: enough for a CPU run) or "processes" (feed a GPU from many cores).
        ahead: batches ready or in work per worker.
        pin: page-locked memory, for copies to a GPU that do not wait; processes only.
    """

    workers: int = 1
    kind: str = "threads"
    ahead: int = 2
    pin: bool = False

    def __post_init__(self) -> None:
        """Refuse unknown kinds."""
        if self.kind not in ("threads", "processes") or self.workers < 0 or self.ahead < 1:
            raise ValueError(f"prefetch needs kind threads or processes, workers >= 0, ahead >= 1, got {self}")


class PrefetchLoader:
    """Iterates over the batches of steps start..stop - 1, whatever the workers."""

    def __init__(self, sampler: CropSampler, config: PrefetchConfig, *, start: int, stop: int) -> None:
        """Remember what to make; workers start with the iteration and end with it."""
        self.sampler = sampler
        self.config = config
        self.steps = range(start, stop)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[DomainBatch]:
        if not self.config.workers:
            return map(self.sampler.batch, self.steps)
        return self._from_threads() if self.config.kind == "threads" else self._from_processes()

    def _from_threads(self) -> Iterator[DomainBatch]:
        waiting: deque[Future[DomainBatch]] = deque()
        pool = ThreadPoolExecutor(self.config.workers, "patches")
        try:
            for step in self.steps:
                waiting.append(pool.submit(self.sampler.batch, step))
                if len(waiting) > self.config.workers * self.config.ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _from_processes(self) -> Iterator[DomainBatch]:
        loader = DataLoader(
            _Steps(self.sampler),
            batch_size=None,
            sampler=list(self.steps),
            num_workers=self.config.workers,
            prefetch_factor=self.config.ahead,
            collate_fn=_as_is,
            pin_memory=self.config.pin,
            multiprocessing_context="spawn",  # a fork would inherit locks of OpenCV's and torch's threads
            worker_init_fn=_one_thread,
        )
        return iter(loader)


class _Steps(Dataset[DomainBatch]):
    """A sampler as the map from step to batch that torch's workers want."""

    def __init__(self, sampler: CropSampler) -> None:
        self._sampler = sampler

    def __getitem__(self, step: int) -> DomainBatch:
        return self._sampler.batch(step)


def _as_is(batch: Any) -> Any:
    """A step is a whole batch already: nothing to collate."""
    return batch


def _one_thread(_: int) -> None:
    """A worker is one of many: OpenCV must not start a pool in each."""
    import cv2

    cv2.setNumThreads(1)
