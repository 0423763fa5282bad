"""The models that a worker process has loaded, each once.

Tasks carry a `ModelRef`. Only a process that runs the model loads it on its device; one that merely needs its
post-processing loads it on the CPU.
"""

import pickle
import threading
import uuid
from dataclasses import dataclass

from wsipipe.infer import ModelLane, choose_batch_size
from wsipipe.options import resolve_device
from wsipipe.segmenter import Segmenter, load_segmenter


@dataclass(frozen=True, slots=True)
class ModelRef:
    """Which model a worker is to load.

    Attributes:
        model: name or weights file.
        device: "auto", "cpu" or "cuda[:N]"; "auto" is what the worker has.
        batch_size: tiles per call, None to choose.
        pickled: the model itself, for one that was handed over loaded; where it stays in its process, any bytes.
    """

    model: str
    device: str
    batch_size: int | None = None
    pickled: bytes = b""


class Models:
    """Every model that this process has loaded, each once."""

    def __init__(self) -> None:
        """Begin without models."""
        self._lock = threading.Lock()
        self._lanes: dict[ModelRef, ModelLane] = {}
        self._twins: dict[ModelRef, Segmenter] = {}

    def lane(self, ref: ModelRef) -> ModelLane:
        """Return the model on its device, with a batch size; load it if this process has not."""
        with self._lock:
            if ref not in self._lanes:
                device = resolve_device(ref.device)
                segmenter = _load(ref, device)
                batch_size = ref.batch_size or choose_batch_size(segmenter, device)
                self._lanes[ref] = ModelLane(segmenter, batch_size=batch_size, device=device)
            return self._lanes[ref]

    def hold(self, segmenter: Segmenter, device: str, batch_size: int | None, *, travels: bool) -> ModelRef:
        """Take over a loaded model; travels: other processes will ask for it, so that it must be picklable."""
        if travels:
            return ModelRef(segmenter.name, device, batch_size, pickle.dumps(segmenter))
        ref = ModelRef(segmenter.name, device, batch_size, uuid.uuid4().bytes)
        with self._lock:
            size = batch_size or choose_batch_size(segmenter, device)
            self._lanes[ref] = ModelLane(segmenter, batch_size=size, device=device)
        return ref

    def segmenter(self, ref: ModelRef) -> Segmenter:
        """Return the model for what needs no device; a process that has not got it there loads it without one."""
        with self._lock:
            if ref in self._lanes:
                return self._lanes[ref].segmenter
            if ref not in self._twins:
                self._twins[ref] = _load(ref, "cpu")
            return self._twins[ref]

    def stop(self) -> None:
        """Let no model be called any more; tasks that wait for one fail."""
        with self._lock:
            for lane in self._lanes.values():
                lane.stopped.set()
            self._lanes.clear()
            self._twins.clear()


def _load(ref: ModelRef, device: str) -> Segmenter:
    if ref.pickled:
        segmenter: Segmenter = pickle.loads(ref.pickled)
        return segmenter
    return load_segmenter(ref.model, device=device)
