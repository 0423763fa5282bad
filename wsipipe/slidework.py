"""What a worker process keeps open between tasks: models, slides and stores.

Tasks carry references (`ModelRef`, `SlideRef`); the first task that needs the thing opens it, later ones share it. A
slide stays open until it is released, or until so many others are open that the longest unused one is closed.
"""

import contextlib
import pickle
import threading
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsipipe.frames import WorkFrame
from wsipipe.grid import Block, Tile
from wsipipe.infer import Inference, ModelLane, choose_batch_size
from wsipipe.journal import SlideFolder
from wsipipe.maps import MapStore
from wsipipe.memory import Budget
from wsipipe.options import resolve_device
from wsipipe.segmenter import ModelFacts, Segmenter, load_segmenter
from wsipipe.slide import open_slide
from wsipipe.slideplan import load_plan, read_tile, sample_tiles
from wsipipe.stain import QUPATH_HE, StainVectors, estimate_macenko

EXTRACT_HALO_UM = 32.0  # context around a block when its nuclei are cut out: about four nucleus diameters


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


@dataclass(frozen=True, slots=True)
class SlideRef:
    """One slide of one run.

    Attributes:
        folder: its output folder, absolute; the plan lies in it.
        run: tells runs apart that use the same folder.
        model: what infers it.
        facts: what the model says about itself on its device.
        device: as a person would name it.
        budget: shares of the memory.
        stain: "qupath" or "macenko".
    """

    folder: Path
    run: str
    model: ModelRef
    facts: ModelFacts
    device: str
    budget: Budget
    stain: str

    def __hash__(self) -> int:
        """Hash what tells slides apart; the facts hold a mapping."""
        return hash((self.folder, self.run))


def first_halo(frame: WorkFrame) -> int:
    """Return the first context around a block when its nuclei are cut out, work px."""
    return max(1, round(EXTRACT_HALO_UM / frame.mpp))


class SlideWork:
    """An open slide with its plan and stores; safe to use from several threads."""

    def __init__(self, ref: SlideRef, models: "Models") -> None:
        """Open the slide of a plan that lies in its folder."""
        self.ref = ref
        self.facts = ref.facts
        self.folder = SlideFolder(ref.folder)
        self.plan = load_plan(self.folder.plan_path)
        self.slide = open_slide(self.plan.job.path, mpp=self.plan.job.mpp)
        self.store = MapStore.open(self.folder.maps_path)
        self._blocks = {block.index: block for block in self.plan.blocks}
        self._models = models
        self._lock = threading.RLock()

    @property
    def halo(self) -> int:
        """First context around a block when its nuclei are cut out, work px."""
        return first_halo(self.plan.frame)

    def has_block(self, index: int) -> bool:
        """Whether the block of this index holds tissue."""
        return index in self._blocks

    def block(self, index: int) -> Block:
        """Return a block by its index."""
        return self._blocks[index]

    @property
    def segmenter(self) -> Segmenter:
        """The model fitted to the slide, for what needs no device: instances, names."""
        with self._lock:
            return self._segmenter

    @property
    def stain(self) -> StainVectors:
        """The slide's stain vectors."""
        with self._lock:
            return self._stain

    @property
    def inference(self) -> Inference:
        """The model fitted to the slide, on its device."""
        with self._lock:
            return self._inference

    @property
    def parameters(self) -> dict[str, Any]:
        """The model's parameters on its device, and what fitting it to the slide made of them."""
        plain, fitted = self._models.segmenter(self.ref.model).parameters, self.segmenter.parameters
        changed = {name: value for name, value in fitted.items() if plain.get(name) != value}
        return {**self.facts.parameters, **changed}

    def read_tile(self, tile: Tile) -> NDArray[np.uint8]:
        """Read a tile with its halo, uint8 (S, S, 3)."""
        return read_tile(self.slide, self.plan.frame, tile)

    def close(self) -> None:
        """Close the slide and stop its threads."""
        if "_inference" in self.__dict__:
            self._inference.__exit__(None, None, None)
        self.slide.close()

    @cached_property
    def _sample(self) -> NDArray[np.uint8]:
        return sample_tiles(self.plan, self.slide)

    @cached_property
    def _segmenter(self) -> Segmenter:
        return self._models.segmenter(self.ref.model).fitted(self._sample)

    @cached_property
    def _stain(self) -> StainVectors:
        if self.ref.stain == "qupath":
            return QUPATH_HE
        return estimate_macenko(self._sample.transpose(0, 2, 3, 1).reshape(-1, 3))  # (N, 3, S, S) -> (N * S * S, 3)

    @cached_property
    def _inference(self) -> Inference:
        lane = self._models.lane(self.ref.model)
        return Inference(lane, lane.segmenter.fitted(self._sample), readers=self.ref.budget.readers)


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


@dataclass(slots=True)
class _Held:
    work: SlideWork
    users: int = 0


class Workbench:
    """The open slides of this process, and its models."""

    def __init__(self) -> None:
        """Begin with nothing open."""
        self.models = Models()
        self._lock = threading.Lock()
        self._held: OrderedDict[SlideRef, _Held] = OrderedDict()
        self._rooms: dict[int, threading.Semaphore] = {}

    def room(self, budget: Budget) -> threading.Semaphore:
        """Return what keeps the tasks that need much memory to as many at once as fit."""
        with self._lock:
            return self._rooms.setdefault(budget.cpu_slots, threading.Semaphore(budget.cpu_slots))

    @contextlib.contextmanager
    def opened(self, ref: SlideRef) -> Iterator[SlideWork]:
        """Lend an open slide; it is not closed while it is lent."""
        with self._lock:
            if ref not in self._held:
                self._held[ref] = _Held(SlideWork(ref, self.models))
            held = self._held[ref]
            self._held.move_to_end(ref)
            held.users += 1
        try:
            yield held.work
        finally:
            with self._lock:
                held.users -= 1
                surplus = self._surplus(ref.budget.open_slides)
            for work in surplus:
                work.close()

    def release(self, ref: SlideRef) -> None:
        """Close a slide that no task will ask for again, as soon as nobody uses it."""
        with self._lock:
            held = self._held.get(ref)
            if held is None or held.users:
                return
            del self._held[ref]
        held.work.close()

    def close(self) -> None:
        """Close everything that nobody uses."""
        self.models.stop()
        with self._lock:
            surplus = self._surplus(0)
        for work in surplus:
            work.close()

    def _surplus(self, limit: int) -> list[SlideWork]:
        """Take the longest unused slides out until no more than limit are open."""
        idle = [ref for ref, held in self._held.items() if not held.users]
        taken = idle[: max(0, len(self._held) - limit)]
        return [self._held.pop(ref).work for ref in taken]


BENCH = Workbench()  # of this process: what is open cannot travel with a task
