"""What a model must be for wsipipe to run it, and how models are found.

Models register a `SegmenterEntry` under the entry-point group `wsipipe.segmenters`; wsipipe never imports them by name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from wsipipe.errors import ModelError, UsageError
from wsipipe.grid import Sides

ENTRY_GROUP = "wsipipe.segmenters"


@dataclass(frozen=True, slots=True)
class InstanceWindow:
    """Instances found in one window of stitched maps.

    Attributes:
        labels: int32 (H, W), 0 = background, 1..n; each label is one 4-connected region.
        certain: bool (n + 1,); certain[i] is False where label i might look different had the window been larger on a
            side beyond which the map goes on. certain[0] is True.
        class_id: int16 (n + 1,) index into the segmenter's class_names, 0 = unclassified.
        class_prob: float32 (n + 1,), NaN where unclassified.
    """

    labels: NDArray[np.int32]
    certain: NDArray[np.bool_]
    class_id: NDArray[np.int16]
    class_prob: NDArray[np.float32]


@runtime_checkable
class Segmenter(Protocol):
    """A loaded model."""

    @property
    def name(self) -> str:
        """As named on the command line."""
        ...

    @property
    def mpp(self) -> float:
        """Micrometres per px that it wants."""
        ...

    @property
    def tile(self) -> int:
        """Input side S, px."""
        ...

    @property
    def halo(self) -> int:
        """Context on each side of a tile's core, px."""
        ...

    @property
    def map_names(self) -> tuple[str, ...]:
        """What the C maps are, e.g. ("foreground", "distance")."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """("Nucleus",) for models without classes; index 0 is the unclassified class."""
        ...

    @property
    def sha256(self) -> str:
        """Of the weights, or of name and parameters for a model without weights."""
        ...

    @property
    def licence(self) -> str:
        """Of the weights."""
        ...

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Everything that changes the result, JSON values only; part of the run key."""
        ...

    def fitted(self, sample: NDArray[np.uint8]) -> "Segmenter":
        """Return this segmenter adapted to one slide; itself if it has nothing to adapt.

        Args:
            sample: uint8 (N, 3, S, S) RGB, a fixed choice of tissue tiles of that slide; N may be 0.
        """
        ...

    def maps(self, images: NDArray[np.uint8]) -> Any:
        """Compute per-pixel maps.

        Args:
            images: uint8 (B, 3, S, S) RGB.

        Returns:
            uint8 (B, C, S, S), probability or height times 255, as an array or a tensor on the model's device.
            Image b's maps do not depend on the other images of the batch.
        """
        ...

    def instances(self, maps: NDArray[np.uint8], *, mpp: float, sides: Sides) -> InstanceWindow:
        """Find instances in a window of stitched maps: CPU only, deterministic, independent of window position.

        Args:
            maps: uint8 (C, H, W).
            mpp: micrometres per px of the maps.
            sides: which sides of the window are the edge of the whole map.
        """
        ...


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a loaded model says about itself, without the model; attributes as in `Segmenter`."""

    name: str
    mpp: float
    tile: int
    halo: int
    map_names: tuple[str, ...]
    class_names: tuple[str, ...]
    sha256: str
    licence: str
    parameters: Mapping[str, Any]


def facts_of(segmenter: Segmenter) -> ModelFacts:
    """Copy what a segmenter says about itself."""
    return ModelFacts(
        name=segmenter.name,
        mpp=segmenter.mpp,
        tile=segmenter.tile,
        halo=segmenter.halo,
        map_names=tuple(segmenter.map_names),
        class_names=tuple(segmenter.class_names),
        sha256=segmenter.sha256,
        licence=segmenter.licence,
        parameters=dict(segmenter.parameters),
    )


@dataclass(frozen=True, slots=True)
class SegmenterEntry:
    """How a model is found, described and loaded, without importing anything heavy.

    Attributes:
        name: as named by `--model`.
        about: one line for `wsipipe models`.
        mpp: micrometres per px that it wants.
        licence: of its weights.
        weights: tells where the weights are, or what to do to get them; one line.
        load: (device, weights file or None) -> Segmenter; device is "cpu" or "cuda[:N]".
        opens: whether `load` takes this weights file (for `--model PATH`).
    """

    name: str
    about: str
    mpp: float
    licence: str
    weights: Callable[[], str]
    load: Callable[[str, Path | None], Segmenter]
    opens: Callable[[Path], bool] = lambda path: False


def list_segmenters() -> list[SegmenterEntry]:
    """Return every registered model, by name. A plugin that cannot be imported is skipped with a warning."""
    import logging

    found = []
    for point in entry_points(group=ENTRY_GROUP):
        try:
            entry = point.load()
        except ImportError as error:
            logging.getLogger(__name__).warning("model %s cannot be loaded: %s", point.name, error)
            continue
        if not isinstance(entry, SegmenterEntry):
            raise ModelError(f"entry point {point.value} must be a SegmenterEntry, got {type(entry).__name__}")
        found.append(entry)
    return sorted(found, key=lambda entry: entry.name)


def load_segmenter(model: str, *, device: str) -> Segmenter:
    """Load a model by name, by NAME@FILE with other weights, or by the path of its weights file.

    Raises:
        UsageError: no model has this name, or no model opens this file.
        ModelError: its weights are missing or unusable.
    """
    entry, path = find_segmenter(model)
    return entry.load(device, path)


def find_segmenter(model: str) -> tuple[SegmenterEntry, Path | None]:
    """Find a model by name, NAME@FILE or the path of its weights file, which is returned too; nothing is loaded.

    Raises:
        UsageError: no model has this name, no model opens this file, or NAME@FILE names none.
    """
    entries = list_segmenters()
    name, has_file, file = model.partition("@")
    for entry in entries:
        if entry.name == model:
            return entry, None
        if has_file and entry.name == name:
            if not Path(file).is_file():
                raise UsageError(f"--model {name}@FILE must name a weights file, which does not exist: {file}")
            return entry, Path(file)
    path = Path(model)
    if path.is_file():
        for entry in entries:
            if entry.opens(path):
                return entry, path
        raise UsageError(f"no model opens this weights file: {path}; see `python -m wsipipe models`")
    names = ", ".join(entry.name for entry in entries)
    raise UsageError(f"model must be one of {names} or a weights file, got {model!r}")
