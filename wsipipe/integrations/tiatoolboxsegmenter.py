"""A nucleus network of TIAToolbox as a segmenter: patches in, uint8 maps out, nuclei out of stitched maps.

A tile is cut into the network's own patches: patch inputs overlap, what it returns for them does not, and each patch
goes through its pre-processing and `infer_batch`. So a pixel's maps are TIAToolbox's for the patch that owns it. (For
MicroNet, whose outputs overlap, TIAToolbox takes the mean; here the central part of each patch counts.) A tile holds
many patches because files, reading and post-processing want tiles of about 1000 px.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wsipipe.errors import ModelError
from wsipipe.grid import Sides
from wsipipe.instances import SplitRules, split_instances
from wsipipe.integrations.tiatoolboxhover import FOREGROUND, GRADIENT_LIMITS, HoverRules, hover_instances
from wsipipe.segmenter import InstanceWindow

CORE_PX = 1000  # about how much of the slide a tile owns, along one side
PATCHES = 8  # patches per call of the network on a GPU; on a CPU they go one by one, so that batches cannot matter
WHITE = 240  # patches of one colour, no channel below: beyond the slide, whatever stain normalisation made of white
BASE_MPP = 0.25  # HoVer-Net's rules are for this
UNCLASSIFIED = "Nucleus"
# MicroNet's: TIAToolbox drops regions below 50 px, then fills every hole; here holes up to 800 px (50 um2) are filled
# first, since whether a larger one is closed can depend on what lies far away.
MICRONET = SplitRules(threshold=FOREGROUND, h=255, smooth_px=0, min_area_px=50, fill_holes_px=800)


@dataclass(frozen=True, slots=True)
class TiaFacts:
    """What TIAToolbox's registry says about a model, and where its weights come from.

    Attributes:
        name: as named on the command line.
        registry_name: in TIAToolbox's registry.
        mpp: micrometres per px that it wants.
        patch, core: sides of its input, and of the part that a patch owns, px.
        type_names: from background on; empty if it tells no types.
        is_hover: whether it is a HoVer-Net, else a MicroNet.
        version: of TIAToolbox.
        weights: file that they were read from.
        sha256: of that file.
        licence: of the weights.
    """

    name: str
    registry_name: str
    mpp: float
    patch: int
    core: int
    type_names: tuple[str, ...]
    is_hover: bool
    version: str
    weights: Path
    sha256: str
    licence: str


class TiaSegmenter:
    """Implements `wsipipe.segmenter.Segmenter`.

    Attributes:
        tile: as many patch cores as make up about CORE_PX, and the margin of the outer ones.
        halo: margin between a patch and its core.
    """

    def __init__(self, network: Any, facts: TiaFacts, *, device: str) -> None:
        """Take a network of TIAToolbox over; it is in eval mode.

        Args:
            network: with `preproc_func` and `infer_batch`.
            facts: what it is.
            device: "cpu" or "cuda[:N]".
        """
        self.facts = facts
        self.name, self.mpp, self.sha256, self.licence = facts.name, facts.mpp, facts.sha256, facts.licence
        self.halo = (facts.patch - facts.core) // 2
        self.tile = facts.core * round(CORE_PX / facts.core) + 2 * self.halo
        self.device = device
        # nn.Module's own `to`: TIAToolbox's would spread the network over every GPU that it sees
        self._network = torch.nn.Module.to(network, device)
        self._infer: Callable[..., tuple[NDArray[np.float32], ...]] = type(network).infer_batch
        self._flat: dict[bytes, NDArray[np.uint8]] = {}
        self._rules = HoverRules.at_scale(BASE_MPP / facts.mpp, len(facts.type_names))

    @property
    def map_names(self) -> tuple[str, ...]:
        """Foreground; for HoVer-Net distances, and types if it has any."""
        if not self.facts.is_hover:
            return ("foreground",)
        return ("foreground", "horizontal", "vertical", *(("type",) if self.facts.type_names else ()))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Nucleus for the unclassified, then TIAToolbox's names of the types."""
        return (UNCLASSIFIED, *self.facts.type_names[1:])

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Return everything that changes the result."""
        limits = {"gradient_limits": GRADIENT_LIMITS[self._rules.ksize]} if self.facts.is_hover else {}
        kind = "cuda" if self.device.startswith("cuda") else self.device
        return {"tiatoolbox": self.facts.version, "device": kind, **limits}

    def fitted(self, sample: NDArray[np.uint8]) -> "TiaSegmenter":
        """Return self: nothing is adapted to a slide."""
        return self

    def maps(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Compute uint8 (B, C, S, S) maps from uint8 (B, 3, S, S) RGB; the halo is left 0, since no patch owns it."""
        out = np.zeros((len(images), len(self.map_names), self.tile, self.tile), np.uint8)
        patch, core, halo = self.facts.patch, self.facts.core, self.halo
        starts = range(0, self.tile - 2 * halo, core)
        places = [(b, y, x) for b in range(len(images)) for y in starts for x in starts]
        step = PATCHES if self.device.startswith("cuda") else 1
        full = []
        for b, y, x in places:
            image = images[b, :, y : y + patch, x : x + patch]
            if image[:, 0, 0].min() >= WHITE and (image == image[:, :1, :1]).all():
                out[b, :, y + halo : y + halo + core, x + halo : x + halo + core] = self._flat_maps(image)
            else:
                full.append((b, y, x))
        for first in range(0, len(full), step):
            some = full[first : first + step]
            found = self.patch_maps(np.stack([images[b, :, y : y + patch, x : x + patch] for b, y, x in some]))
            for (b, y, x), maps in zip(some, found, strict=True):
                out[b, :, y + halo : y + halo + core, x + halo : x + halo + core] = maps
        return out

    def patch_maps(self, patches: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Run patches through the network.

        Args:
            patches: uint8 (N, 3, P, P) RGB.

        Returns:
            uint8 (N, C, core, core): probability times 255, distances of -1..1 as 0..255, types as they are.
        """
        inputs = [self._network.preproc_func(np.ascontiguousarray(p.transpose(1, 2, 0))) for p in patches]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Implicit dimension choice for softmax")  # MicroNet's own code
            outputs = self._infer(self._network, torch.from_numpy(np.stack(inputs)), device=self.device)
        if not all(np.isfinite(output).all() for output in outputs):  # as uint8 it would look like a result
            raise ModelError(f"maps of {self.name} hold NaN or infinity; check the weights: {self.facts.weights}")
        maps = self._quantised(outputs)  # (N, h, w, C)
        margin = (maps.shape[1] - self.facts.core) // 2
        part = slice(margin, margin + self.facts.core)
        return np.ascontiguousarray(maps[:, part, part].transpose(0, 3, 1, 2))

    def instances(self, maps: NDArray[np.uint8], *, mpp: float, sides: Sides) -> InstanceWindow:
        """Find nuclei in a window of maps; TIAToolbox's rules are in px of the model's own mpp."""
        if self.facts.is_hover:
            return hover_instances(maps, self._rules, sides)
        return split_instances(maps[0], np.zeros_like(maps[0]), MICRONET, sides)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to other processes as name, device and file; the weights are read again there."""
        from wsipipe.integrations.tiatoolboxmodels import load_model

        return load_model, (self.facts.registry_name, self.device, self.facts.weights)

    def _flat_maps(self, patch: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the maps of a patch of one white; computed once for each, since tiles reach beyond the slide."""
        colour = patch[:, 0, 0].tobytes()
        if colour not in self._flat:
            self._flat[colour] = self.patch_maps(patch[None])[0]
        return self._flat[colour]

    def _quantised(self, outputs: tuple[NDArray[np.float32], ...]) -> NDArray[np.uint8]:
        """Turn (N, h, w, c) outputs of the heads into (N, h, w, C) uint8."""
        probability = _to_uint8(outputs[0][..., -1:])  # MicroNet's first channel is the background
        if not self.facts.is_hover:
            return probability
        distances = _to_uint8((outputs[1] + 1) / 2)
        types = [outputs[2].astype(np.uint8)] if self.facts.type_names else []
        return np.concatenate([probability, distances, *types], axis=-1)


def _to_uint8(values: Any) -> NDArray[np.uint8]:
    return np.asarray(np.rint(np.clip(values, 0, 1) * 255), np.uint8)


def read_facts(
    name: str, info: Mapping[str, Any], weights: Path, sha256: str, *, version: str, licence: str
) -> TiaFacts:
    """Read an entry of TIAToolbox's registry.

    Raises:
        ModelError: it is not of the shape that this version of wsipipe knows.
    """
    io, architecture = info["ioconfig"]["kwargs"], info["architecture"]
    types = architecture["kwargs"].get("nuc_type_dict") or {}
    (patch, _), (stride, _) = io["patch_input_shape"], io["stride_shape"]
    resolution = io["input_resolutions"][0]
    if resolution["units"] != "mpp" or (patch - stride) % 2 or sorted(types) != list(range(len(types))):
        raise ModelError(f"registry of TIAToolbox {version} holds {name} in a shape that wsipipe does not know: {info}")
    return TiaFacts(
        name=name,
        registry_name=name.partition(":")[2],
        mpp=float(resolution["resolution"]),
        patch=patch,
        core=stride,
        type_names=tuple(types[k] for k in sorted(types)),
        is_hover=architecture["class"].startswith("hovernet"),
        version=version,
        weights=weights,
        sha256=sha256,
        licence=licence,
    )
