"""Mask prompts for promptable training [X]: SPGen's own, a perturbed truth, some of the nuclei, or none.

Were every prompt SPGen's own, the decoder could learn to ignore it: the same features hold everything that it says. A
prompt that names only some nuclei, with only those in the target, carries what features alone cannot tell.
"""

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor
from torch.nn import functional

from amasam.trainconfig import PromptConfig

SUBSET_SHARE = (0.15, 0.7)  # of the nuclei, drawn per sample
POINTS_SHARE = 0.3  # of the subset prompts that are points instead of a mask
MAX_POINTS = 24
MAX_BLOBS = 4  # discs dropped from, and added to, a perturbed mask
STRIDE = 4  # px per prompt px


class PromptKind(IntEnum):
    """What prompts a sample."""

    SELF = 0
    TRUTH = 1
    SUBSET = 2
    NONE = 3


@dataclass(frozen=True, slots=True)
class PromptDraw:
    """Prompts of one batch.

    Attributes:
        kind: int64 (B,) PromptKind.
        prob: float32 (B, 1, S/4, S/4), the prompted mask as probability; 0 where the kind has none.
        points: float32 (B, P, 2), (x, y) px of the patch; P may be 0.
        point_labels: int64 (B, P), 1 = inside a wanted nucleus, -1 = not a point.
        is_target: bool (B, 1, S, S), False on nuclei that the prompt leaves out.
    """

    kind: Tensor
    prob: Tensor
    points: Tensor
    point_labels: Tensor
    is_target: Tensor


def draw_prompts(labels: Tensor, config: PromptConfig, generator: torch.Generator) -> PromptDraw:
    """Draw the prompt of each sample of a batch.

    Args:
        labels: int (B, S, S), 0 = background, on the CPU.
        config: weights of the kinds.
        generator: CPU generator; the same state gives the same prompts.
    """
    weights = torch.tensor([config.self_weight, config.truth, config.subset, config.none], dtype=torch.float32)
    kind = torch.multinomial(weights, len(labels), replacement=True, generator=generator)
    prob = torch.zeros(len(labels), 1, labels.shape[1] // STRIDE, labels.shape[2] // STRIDE)
    points = torch.zeros(len(labels), MAX_POINTS, 2)
    point_labels = torch.full((len(labels), MAX_POINTS), -1, dtype=torch.int64)
    is_target = torch.ones(len(labels), 1, *labels.shape[1:], dtype=torch.bool)
    for i, k in enumerate(kind.tolist()):
        if k == PromptKind.TRUTH:
            prob[i] = perturbed_mask(labels[i] > 0, generator)
        if k == PromptKind.SUBSET:
            wanted = _some_nuclei(labels[i], generator)
            is_target[i, 0] = wanted | (labels[i] == 0)
            if torch.rand((), generator=generator) < POINTS_SHARE:
                points[i], point_labels[i] = _points_in(labels[i] * wanted, generator)
            else:
                prob[i] = perturbed_mask(wanted, generator, blobs=False)
    has_points = bool((point_labels >= 0).any())
    n = MAX_POINTS if has_points else 0
    return PromptDraw(kind, prob, points[:, :n], point_labels[:, :n], is_target)


def perturbed_mask(mask: Tensor, generator: torch.Generator, *, blobs: bool = True) -> Tensor:
    """Reduce a mask to the prompt grid, then grow or shrink it and, with blobs, drop and add discs.

    Args:
        mask: bool (S, S).
        generator: source of randomness.
        blobs: whether discs are dropped and added.

    Returns:
        float32 (1, S/4, S/4) in 0..1.
    """
    small = functional.avg_pool2d(mask[None].float(), STRIDE)
    change = int(torch.randint(0, 4, (), generator=generator))
    if change == 1:
        small = functional.max_pool2d(small, 3, stride=1, padding=1)
    if change == 2:
        small = -functional.max_pool2d(-small, 3, stride=1, padding=1)
    if blobs:
        for value in (0.0, 1.0):
            for _ in range(int(torch.randint(0, MAX_BLOBS + 1, (), generator=generator))):
                small = torch.where(_disc(small.shape[-1], generator), torch.tensor(value), small)
    return small


def _disc(size: int, generator: torch.Generator) -> Tensor:
    """Draw a disc of 1 to size / 8 px radius: bool (1, size, size)."""
    centre = torch.rand(2, generator=generator) * size
    radius = 1 + torch.rand((), generator=generator) * max(0, size / 8 - 1)
    axis = torch.arange(size) + 0.5
    return ((axis[:, None] - centre[0]) ** 2 + (axis[None] - centre[1]) ** 2 < radius**2)[None]


def _some_nuclei(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Choose some of the nuclei, at least one where there is any: bool (S, S), the chosen ones' px."""
    ids = torch.unique(labels)
    ids = ids[ids > 0]
    low, high = SUBSET_SHARE
    share = low + (high - low) * torch.rand((), generator=generator)
    count = max(1, round(float(share) * len(ids)))
    chosen = ids[torch.randperm(len(ids), generator=generator)[:count]]
    return torch.isin(labels, chosen)


def _points_in(labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw one point in each of up to MAX_POINTS nuclei: float32 (P, 2) x, y of px; int64 (P,) 1 or -1."""
    points, kinds = torch.zeros(MAX_POINTS, 2), torch.full((MAX_POINTS,), -1, dtype=torch.int64)
    ids = torch.unique(labels)
    ids = ids[ids > 0]
    for slot, label in enumerate(ids[torch.randperm(len(ids), generator=generator)[:MAX_POINTS]]):
        pixels = torch.nonzero(labels == label)
        row, col = pixels[int(torch.randint(len(pixels), (), generator=generator))].tolist()
        points[slot, 0], points[slot, 1], kinds[slot] = col, row, 1
    return points, kinds
