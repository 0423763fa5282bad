"""The value that training steps eat."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from amasam.data.augment import Patch
from amasam.data.samples import Sample
from amasam.targets import make_targets


@dataclass(frozen=True, slots=True)
class DomainBatch:
    """Patches of several domains with all their targets; tensors share one device.

    Attributes:
        images: uint8 (B, 3, S, S) RGB.
        labels: int32 (B, S, S), 0 = background; ids are those of the source images.
        foreground: uint8 (B, 1, S, S) target of the fine and coarse maps.
        maps: float16 (B, K, S, S) targets of the instance maps.
        valid: uint8 (B, 1, S, S), 0 on padding: no loss there.
        trusted: uint8 (B, 1, S, S), 0 on padding and on nuclei of doubtful outline: no instance-map loss there.
        is_primary: bool (B,).
        domain: int64 (B,) index into the sampler's sets.
        weights: float32 (B,) weights of the domain loss, spec 3.4.
        zoom: float32 (B,) magnification beyond the model's mpp.
    """

    images: Tensor
    labels: Tensor
    foreground: Tensor
    maps: Tensor
    valid: Tensor
    trusted: Tensor
    is_primary: Tensor
    domain: Tensor
    weights: Tensor
    zoom: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str) -> "DomainBatch":
        """The same batch on another device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "DomainBatch":
        """The same batch in page-locked memory; torch's DataLoader calls this by name."""
        return self._map(lambda tensor: tensor.pin_memory())

    def part(self, rows: slice) -> "DomainBatch":
        """Some rows, for gradient accumulation."""
        return self._map(lambda tensor: tensor[rows])

    def _map(self, change: Callable[[Tensor], Tensor]) -> "DomainBatch":
        return DomainBatch(*(change(getattr(self, item.name)) for item in fields(self)))


@dataclass(frozen=True, slots=True)
class DomainOf:
    """What a batch says about the domain of one patch."""

    index: int
    is_primary: bool
    weight: float


def stack(
    patches: Sequence[Patch], sources: Sequence[Sample], domains: Sequence[DomainOf], map_names: Sequence[str]
) -> DomainBatch:
    """Paint the targets of patches and stack them.

    Args:
        patches: B patches of one size.
        sources: the sample of each.
        domains: the domain of each.
        map_names: of `targets.MAP_NAMES`.

    Returns:
        A batch on the CPU.
    """
    margin = (len(patches[0].labels) - len(patches[0].image)) // 2
    core = slice(margin, margin + len(patches[0].image))
    painted = [make_targets(patch.labels, map_names, margin=margin) for patch in patches]
    labels = np.stack([patch.labels[core, core] for patch in patches])
    valid = np.stack([patch.valid for patch in patches])
    doubt = np.stack([_doubt(cut, source) for cut, source in zip(labels, sources, strict=True)])
    return DomainBatch(
        torch.from_numpy(np.stack([patch.image for patch in patches])).permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(labels),
        torch.from_numpy(np.stack([target.foreground for target in painted]))[:, None],
        torch.from_numpy(np.stack([target.maps for target in painted])),
        torch.from_numpy(valid)[:, None],
        torch.from_numpy(valid * ~doubt)[:, None],
        torch.tensor([domain.is_primary for domain in domains]),
        torch.tensor([domain.index for domain in domains]),
        torch.tensor([domain.weight for domain in domains], dtype=torch.float32),
        torch.tensor([patch.zoom for patch in patches], dtype=torch.float32),
    )


def _doubt(labels: NDArray[np.int32], sample: Sample) -> NDArray[np.bool_]:
    """Bool (S, S), True on labels of doubtful outline."""
    if not len(sample.doubtful):
        return np.zeros(labels.shape, np.bool_)
    return np.isin(labels, sample.doubtful)
