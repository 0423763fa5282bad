"""Training losses: the paper's three terms [P, U: spec section 6] and those of the instance maps [X].

All terms are computed in float32 whatever the autocast state, and none sees padding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from amasam.data.batch import DomainBatch

if TYPE_CHECKING:
    from amasam.model.amasam import AmaSamOutput

DICE_SHARE, FOCAL_SHARE = 0.8, 0.2  # of the paper's fine loss, as in UN-SAM
FOCAL_ALPHA, FOCAL_GAMMA = 0.8, 2.0
BOUNDARY_POSITIVE_WEIGHT = 2.0  # the rim covers few pixels


@dataclass(frozen=True, slots=True)
class LossConfig:
    """Which losses, and how they add up.

    Attributes:
        fine: "dice_focal" [U] or "bce_dice" [C].
        dice_per_image: Dice per image, averaged, instead of over the whole batch.
        domain: alpha, weight of the domain loss.
        coarse: beta, weight of the coarse loss.
        maps: weight of the mean of the instance-map losses [X].
        dense: weight of the auxiliary dense head, where the model has one [X].
        distance: "bce" or "smooth_l1" (inside nuclei).
    """

    fine: str = "dice_focal"
    dice_per_image: bool = False
    domain: float = 1.0
    coarse: float = 1.0
    maps: float = 1.0
    dense: float = 0.4
    distance: str = "bce"

    def __post_init__(self) -> None:
        """Refuse unknown names."""
        if self.fine not in ("dice_focal", "bce_dice"):
            raise ValueError(f"fine loss must be dice_focal or bce_dice, got {self.fine!r}")
        if self.distance not in ("bce", "smooth_l1"):
            raise ValueError(f"distance loss must be bce or smooth_l1, got {self.distance!r}")


@dataclass(frozen=True, slots=True)
class Losses:
    """Scalar tensors; a term that the model has no output for is 0.

    Attributes:
        total: the weighted sum that is minimised.
        fine, coarse, domain, dense: unweighted terms.
        maps: unweighted term of each instance map, in map order.
    """

    total: Tensor
    fine: Tensor
    coarse: Tensor
    domain: Tensor
    dense: Tensor
    maps: tuple[Tensor, ...]

    def named(self, map_names: Sequence[str]) -> dict[str, float]:
        """All terms as numbers for a log."""
        terms = {"total": self.total, "fine": self.fine, "coarse": self.coarse, "domain": self.domain}
        terms |= {"dense": self.dense} | dict(zip(map_names, self.maps, strict=True))
        values = torch.stack([term.detach() for term in terms.values()]).tolist()  # one wait for the device, not seven
        return dict(zip(terms, values, strict=True))


def compute_losses(
    output: "AmaSamOutput", batch: DomainBatch, config: LossConfig, map_names: Sequence[str] = ()
) -> Losses:
    """Compare a forward pass with its batch.

    Args:
        output: logits of the model.
        batch: truth, on the same device, with one target per map of `map_names`.
        config: which losses.
        map_names: names of `output.maps`, in order.

    Returns:
        All terms.
    """
    with torch.autocast(output.fine.device.type, enabled=False):
        fine = fine_loss(output.fine, batch.foreground, batch.valid, config)
        coarse = coarse_loss(output.coarse, batch.foreground, batch.valid)
        zero = fine.new_zeros(())
        domain = zero if output.domain is None else domain_loss(output.domain, batch.is_primary, batch.weights)
        maps = map_losses(output.maps, batch, config, map_names)
        dense = zero if output.dense is None else dense_loss(output.dense, batch, config, map_names)
        total = fine + config.coarse * coarse + config.domain * domain + config.dense * dense
        if maps:
            total = total + config.maps * torch.stack(maps).mean()
    return Losses(total, fine, coarse, domain, dense, maps)


def fine_loss(logits: Tensor, target: Tensor, valid: Tensor, config: LossConfig) -> Tensor:
    """The paper's 0.8 Dice + 0.2 focal, or BCE + Dice; all inputs (B, 1, S, S)."""
    logits, target, valid = logits.float(), target.float(), valid.float()
    dice = dice_loss(logits, target, valid, per_image=config.dice_per_image)
    bce = masked_mean(F.binary_cross_entropy_with_logits(logits, target, reduction="none"), valid)
    if config.fine == "bce_dice":
        return bce + dice
    return DICE_SHARE * dice + FOCAL_SHARE * focal_of_mean(bce)


def dice_loss(logits: Tensor, target: Tensor, valid: Tensor, *, per_image: bool) -> Tensor:
    """1 - (2 sum(p t) + 1) / (sum p + sum t + 1), over the batch (upstream's form) or per image and averaged."""
    prob = torch.sigmoid(logits) * valid
    target = target * valid
    axes = (1, 2, 3) if per_image else (0, 1, 2, 3)
    overlap, size = (prob * target).sum(axes), prob.sum(axes) + target.sum(axes)
    return (1 - (2 * overlap + 1) / (size + 1)).mean()


def focal_of_mean(bce: Tensor) -> Tensor:
    """UN-SAM's focal form: the modulating factor acts on the batch's mean BCE, not per pixel."""
    return FOCAL_ALPHA * (1 - torch.exp(-bce)) ** FOCAL_GAMMA * bce


def coarse_loss(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Mean BCE of the coarse map (B, 1, s, s) against the mask (B, 1, S, S) reduced to its size by nearest."""
    size = logits.shape[-2:]
    small, counts = (F.interpolate(plane.float(), size=size, mode="nearest") for plane in (target, valid))
    return masked_mean(F.binary_cross_entropy_with_logits(logits.float(), small, reduction="none"), counts)


def domain_loss(logits: Tensor, is_primary: Tensor, weights: Tensor) -> Tensor:
    """(1/N) sum_i w_i BCE(z_i, y_i) with y = 1 for the primary domain (spec Eq. 3); N is the batch size.

    Args:
        logits: (B,), or (B, heads) where several taps have a discriminator each.
        is_primary: bool (B,).
        weights: (B,).
    """
    logits = logits.float().reshape(len(is_primary), -1)
    target = is_primary.float()[:, None].expand_as(logits)
    each = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(dim=1)
    return (each * weights.float()).mean()


def map_losses(logits: Tensor, batch: DomainBatch, config: LossConfig, map_names: Sequence[str]) -> tuple[Tensor, ...]:
    """One loss per instance map; (B, K, S, S) logits against `batch.maps`, where outlines are trusted."""
    if len(map_names) != logits.shape[1] or len(map_names) != batch.maps.shape[1]:
        raise ValueError(
            f"{len(map_names)} map names for {logits.shape[1]} maps and {batch.maps.shape[1]} targets: must be equal"
        )
    return tuple(
        map_loss(
            name, logits[:, k : k + 1].float(), batch.maps[:, k : k + 1].float(), batch.trusted.float(), config.distance
        )
        for k, name in enumerate(map_names)
    )


def map_loss(name: str, logits: Tensor, target: Tensor, trusted: Tensor, distance: str = "bce") -> Tensor:
    """Loss of one instance map; all tensors float32 (B, 1, S, S)."""
    if name == "boundary":
        weight = logits.new_tensor(BOUNDARY_POSITIVE_WEIGHT)
        each = F.binary_cross_entropy_with_logits(logits, target, pos_weight=weight, reduction="none")
        return masked_mean(each, trusted)
    if name == "distance":
        if distance == "smooth_l1":
            each = F.smooth_l1_loss(torch.sigmoid(logits), target, beta=0.1, reduction="none")
            return masked_mean(each, trusted * (target > 0))
        return masked_mean(F.binary_cross_entropy_with_logits(logits, target, reduction="none"), trusted)
    if name in ("horizontal", "vertical"):
        return _offset_loss(logits, target, trusted, axis=3 if name == "horizontal" else 2)
    raise ValueError(f"no loss for a map named {name!r}")


def _offset_loss(values: Tensor, target: Tensor, trusted: Tensor, axis: int) -> Tensor:
    """HoVer-Net's pair: squared error everywhere, squared error of the gradient along the axis inside nuclei."""
    error = masked_mean((values - target) ** 2, trusted)
    inside = trusted * (target != 0)
    slope = torch.diff(values, dim=axis) - torch.diff(target, dim=axis)
    both = inside.narrow(axis, 1, inside.shape[axis] - 1) * inside.narrow(axis, 0, inside.shape[axis] - 1)
    return error + masked_mean(slope**2, both)


def dense_loss(logits: Tensor, batch: DomainBatch, config: LossConfig, map_names: Sequence[str]) -> Tensor:
    """Auxiliary head (B, 1 + K, s, s): foreground BCE plus the map losses against targets averaged to its size."""
    factor = batch.foreground.shape[-1] // logits.shape[-1]
    logits = logits.float()

    def reduce(plane: Tensor) -> Tensor:
        return F.avg_pool2d(plane.float(), factor)

    valid, trusted = (reduce(batch.valid) == 1).float(), (reduce(batch.trusted) == 1).float()
    each = F.binary_cross_entropy_with_logits(logits[:, :1], reduce(batch.foreground), reduction="none")
    terms = [masked_mean(each, valid)]
    for k, name in enumerate(map_names):
        target = reduce(batch.maps[:, k : k + 1])
        terms.append(map_loss(name, logits[:, k + 1 : k + 2], target, trusted, config.distance))
    return torch.stack(terms).mean()


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of values where mask is 1; 0 where it is 0 everywhere."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


@torch.no_grad()
def domain_accuracy(logits: Tensor, is_primary: Tensor) -> tuple[float, float]:
    """Share of primary and of auxiliary patches that the discriminator recognises; NaN where the batch has none."""
    hit = (logits.float().reshape(len(is_primary), -1).mean(dim=1) > 0) == is_primary
    primary, auxiliary = hit[is_primary].float().mean(), hit[~is_primary].float().mean()
    return float(primary), float(auxiliary)
