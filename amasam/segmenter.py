"""AMA-SAM as a wsipipe segmenter: from uint8 tiles to uint8 maps, and from maps to instances."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from amasam.model.amasam import AmaSam, ForwardOptions
from amasam.model.hr_decoder import Ablation
from amasam.postprocess import PostConfig, find_instances
from wsipipe.errors import ModelError
from wsipipe.grid import Sides
from wsipipe.segmenter import InstanceWindow

Precision = Literal["fp32", "bf16"]
TILE, HALO = 1024, 64
SIDES = (256, 512, 768, TILE)  # input sides of encoders without fixed position embeddings
ABLATIONS = {
    "zero_prompt": Ablation(zero_prompt=True),
    "zero_f_mask": Ablation(zero_f_mask=True),
    "freeze_tokens": Ablation(freeze_tokens=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What a segmenter tells about its model.

    Attributes:
        name: as named on the command line.
        mpp: micrometres per px that it was trained at.
        sha256: of the weights.
        licence: of the weights.
        post: its post-processing.
        path: its checkpoint; None for a model in training.
        input_size: side that a ViT's position embeddings are made for.
    """

    name: str
    mpp: float
    sha256: str
    licence: str
    post: PostConfig
    path: Path | None = None
    input_size: int = 1024


def best_precision(device: str) -> Precision:
    """Choose bf16 where the device computes it natively: CUDA, and CPUs with AVX512-BF16 or AMX."""
    if device.startswith("cuda"):
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if has_bf16 else "fp32"


class AmaSamSegmenter:
    """A loaded AMA-SAM.

    Image b's maps depend on nothing else in the batch: the network has no layer across images, and on a CPU every image
    runs by itself, so that they do not even differ in the last bit.

    Attributes:
        sides: input sides that `maps` takes, rising; the last one is `tile`.
        post: parameters of the post-processing.
        options: of the forward pass; replaced only to show what parts of the model contribute.
    """

    class_names = ("Nucleus",)

    def __init__(self, model: AmaSam, facts: ModelFacts, *, device: str, precision: Precision) -> None:
        """Take a model over; it must be in eval mode and on the device.

        Args:
            model: fused for inference or not.
            facts: its name, scale and post-processing.
            device: "cpu" or "cuda[:N]".
            precision: of the network; maps are uint8 in any case.
        """
        self.name, self.mpp, self.sha256, self.licence = facts.name, facts.mpp, facts.sha256, facts.licence
        self.map_names = ("foreground", *model.config.instance_maps)
        self.post = facts.post
        self.device = torch.device(device)
        self.precision: Precision = precision
        self.options = ForwardOptions()
        has_fixed_size = model.config.encoder.startswith("vit")  # its position embeddings are made for one size
        self.tile = facts.input_size if has_fixed_size else TILE
        self.halo = min(HALO, self.tile // 8)
        self.sides: tuple[int, ...] = (self.tile,) if has_fixed_size else SIDES
        self._model = model
        self._facts = facts

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Return everything that changes the result."""
        return {"precision": self.precision, "device": self.device.type, **self.post.as_table()}

    def fitted(self, sample: NDArray[np.uint8]) -> "AmaSamSegmenter":
        """Return self: nothing is adapted to a slide."""
        return self

    @torch.inference_mode()
    def maps(self, images: NDArray[np.uint8]) -> Tensor:
        """Compute uint8 (B, C, S, S) maps on the model's device from uint8 (B, 3, S, S) RGB."""
        batch = torch.from_numpy(np.ascontiguousarray(images)).to(self.device, non_blocking=True)
        parts = [batch] if self.device.type == "cuda" else [image[None] for image in batch]
        with self._autocast():
            return torch.cat([self._forward(part) for part in parts])

    def instances(self, maps: NDArray[np.uint8], *, mpp: float, sides: Sides) -> InstanceWindow:
        """Find nuclei in a window of maps."""
        return find_instances(maps, self.map_names, self.post, mpp=mpp, sides=sides)

    def with_post(self, post: PostConfig) -> "AmaSamSegmenter":
        """Return a segmenter that shares the weights and post-processes differently."""
        facts = replace(self._facts, post=post)
        return AmaSamSegmenter(self._model, facts, device=str(self.device), precision=self.precision)

    def with_ablation(self, part: str) -> "AmaSamSegmenter":
        """Return a segmenter that shares the weights, with a part of ABLATIONS switched off."""
        changed = self.with_post(self.post)
        changed.options = ForwardOptions(ablation=ABLATIONS[part])
        changed.name = f"{self.name} ({part})"
        return changed

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to other processes as path, device and precision; the weights are read again there."""
        if self._facts.path is None:
            raise TypeError("a segmenter without a checkpoint file cannot be sent to another process")
        return _reload, (self._facts, str(self.device), self.precision)

    def _forward(self, images: Tensor) -> Tensor:
        output = self._model(images, options=self.options)
        logits = torch.cat([output.fine, output.maps], dim=1).float()
        if not logits.isfinite().all():  # as uint8 it would look like a result
            raise ModelError(f"maps of {self.name} hold NaN or infinity; try fp32, or check the checkpoint")
        return logits.sigmoid_().mul_(255).round_().to(torch.uint8)

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16")


def _reload(facts: ModelFacts, device: str, precision: Precision) -> AmaSamSegmenter:
    from amasam.loading import load_model

    assert facts.path is not None, "only segmenters with a checkpoint file are pickled"
    return load_model(facts.path, name=facts.name, device=device, precision=precision).with_post(facts.post)
