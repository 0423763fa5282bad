"""What a worker process keeps open between tasks: slides and their stores.

Tasks carry a `SlideRef`; the first task that needs the thing opens it, later ones share it. A
slide stays open until it is released, or until so many others are open that the longest unused one is closed.
"""

import contextlib
import threading
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
from wsipipe.infer import Inference
from wsipipe.journal import SlideFolder
from wsipipe.loadedmodels import ModelRef, Models
from wsipipe.maps import MapStore
from wsipipe.memory import Budget
from wsipipe.segmenter import ModelFacts, Segmenter
from wsipipe.slide import Slide, open_slide
from wsipipe.slideplan import load_plan, read_tile, sample_tiles
from wsipipe.stain import QUPATH_HE, StainVectors, estimate_macenko

EXTRACT_HALO_UM = 32.0  # context around a block when its nuclei are cut out: about four nucleus diameters


@dataclass(frozen=True, slots=True)
class SlideRef:
    """One slide of one run.

    Attributes:
        home: its folder in the output folder, absolute.
        folder: where its results are made, absolute: the same, or beside results that they are to replace. The plan
            lies in it.
        run: tells runs apart that use the same folder.
        model: what infers it.
        facts: what the model says about itself on its device.
        device: as a person would name it.
        budget: shares of the memory.
        stain: "qupath" or "macenko".
    """

    home: Path
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

    def __init__(self, ref: SlideRef, models: "Models", slide: Slide | None = None) -> None:
        """Open the slide of a plan that lies in its folder, or take it over if it is open."""
        self.ref = ref
        self.facts = ref.facts
        self.folder = SlideFolder(ref.folder)
        self.plan = load_plan(self.folder.plan_path)
        self.slide = slide or open_slide(self.plan.job.path, mpp=self.plan.job.mpp)
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
        """The model's parameters on its device, what fitting it to the slide made of them, and the colour transform."""
        plain, fitted = self._models.segmenter(self.ref.model).parameters, self.segmenter.parameters
        changed = {name: value for name, value in fitted.items() if plain.get(name) != value}
        colours = self.plan.colours
        return {**self.facts.parameters, **changed, **({"stain_norm": colours.to_json()} if colours else {})}

    def prepare(self) -> None:
        """Fit the model to the slide now."""
        with self._lock:
            self._segmenter  # noqa: B018 - computed on first access

    def read_tile(self, tile: Tile) -> NDArray[np.uint8]:
        """Read a tile with its halo as the model is to see it, uint8 (S, S, 3)."""
        image = read_tile(self.slide, self.plan.frame, tile)
        return image if self.plan.colours is None else self.plan.colours.apply(image)

    def close(self) -> None:
        """Close the slide and stop its threads."""
        if "_inference" in self.__dict__:
            self._inference.__exit__(None, None, None)
        self.slide.close()

    @cached_property
    def _sample(self) -> NDArray[np.uint8]:
        return sample_tiles(self.plan, self.slide)

    @property
    def _seen_sample(self) -> NDArray[np.uint8]:
        """The sample as the model sees it."""
        if self.plan.colours is None:
            return self._sample
        images = [self.plan.colours.apply(np.ascontiguousarray(image.transpose(1, 2, 0))) for image in self._sample]
        return np.stack(images).transpose(0, 3, 1, 2) if images else self._sample

    @cached_property
    def _segmenter(self) -> Segmenter:
        return self._models.segmenter(self.ref.model).fitted(self._seen_sample)

    @cached_property
    def _stain(self) -> StainVectors:
        if self.ref.stain == "qupath":
            return QUPATH_HE
        return estimate_macenko(self._sample.transpose(0, 2, 3, 1).reshape(-1, 3))  # (N, 3, S, S) -> (N * S * S, 3)

    @cached_property
    def _inference(self) -> Inference:
        lane = self._models.lane(self.ref.model)
        is_same = lane.segmenter is self._models.segmenter(self.ref.model)
        fitted = self._segmenter if is_same else lane.segmenter.fitted(self._seen_sample)
        return Inference(lane, fitted, readers=self.ref.budget.readers)


class _Held:
    """A slide that is open or being opened."""

    def __init__(self) -> None:
        self.users = 0
        self.work: SlideWork | None = None
        self.opening = threading.Lock()

    def get(self, ref: SlideRef, models: Models) -> SlideWork:
        with self.opening:
            if self.work is None:
                self.work = SlideWork(ref, models)
            return self.work


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
            held = self._held.setdefault(ref, _Held())
            self._held.move_to_end(ref)
            held.users += 1
        try:
            yield held.get(ref, self.models)
        finally:
            with self._lock:
                held.users -= 1
                surplus = self._surplus(ref.budget.open_slides)
            _close(surplus)

    def keep(self, ref: SlideRef, slide: Slide) -> None:
        """Take over a slide that was opened for planning, and look at what a model may have to be fitted to.

        The tasks that follow here find both ready, so that the model need not wait for them.
        """
        held = _Held()
        held.work = SlideWork(ref, self.models, slide)
        with self._lock:
            self._held[ref] = held
        with self.opened(ref) as work:
            work.prepare()

    def release(self, ref: SlideRef) -> None:
        """Close a slide that no task will ask for again, unless somebody still uses it."""
        with self._lock:
            held = self._held.get(ref)
            if held is None or held.users:
                return
            del self._held[ref]
        _close([held])

    def close(self) -> None:
        """Close everything that nobody uses."""
        self.models.stop()
        with self._lock:
            surplus = self._surplus(0)
        _close(surplus)

    def _surplus(self, limit: int) -> list[_Held]:
        """Take the longest unused slides out until no more than limit are open."""
        idle = [ref for ref, held in self._held.items() if not held.users]
        taken = idle[: max(0, len(self._held) - limit)]
        return [self._held.pop(ref) for ref in taken]


def _close(taken: list[_Held]) -> None:
    for held in taken:
        if held.work is not None:
            held.work.close()


BENCH = Workbench()  # of this process: what is open cannot travel with a task
