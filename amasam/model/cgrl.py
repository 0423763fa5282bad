"""CGRL: reverse the domain discriminator's gradient for auxiliary images only, and the discriminator itself."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

Align = Literal["cgrl", "grl", "none"]


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, coefficient: Tensor) -> Tensor:
        ctx.save_for_backward(coefficient)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (coefficient,) = ctx.saved_tensors
        gradient = gradients[0]
        return gradient * coefficient.to(gradient.dtype).view(-1, *(1,) * (gradient.dim() - 1)), None


def gradient_coefficient(is_primary: Tensor, align: Align, strength: float) -> Tensor:
    """Return c of each sample, float32 (B,): what the gradient that leaves the discriminator is multiplied by.

    Args:
        is_primary: bool (B,).
        align: "cgrl" gives 0 for primary and -strength for auxiliary samples [P]; "grl" -strength for all; "none" 0.
        strength: lambda, >= 0.
    """
    zeros = torch.zeros(is_primary.shape[0], device=is_primary.device)
    if align == "none":
        return zeros
    reversed_ = torch.full_like(zeros, -strength)
    return reversed_ if align == "grl" else torch.where(is_primary.bool(), zeros, reversed_)


def scale_gradient(x: Tensor, coefficient: Tensor) -> Tensor:
    """Return x; in the backward pass its gradient is multiplied by coefficient (B,), per sample."""
    scaled: Tensor = _ScaleGradient.apply(x, coefficient)  # type: ignore[no-untyped-call]
    return scaled


class GapMlp(nn.Sequential):
    """Mean over space, then two linear layers [C]: aligns mean statistics such as stain and brightness."""

    def __init__(self, channels: int) -> None:
        hidden = max(channels // 2, 1)
        super().__init__(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, 1)
        )


class ConvDiscriminator(nn.Sequential):
    """Two strided 3x3 convolutions, mean, linear [C]: sees local texture as well."""

    def __init__(self, channels: int) -> None:
        hidden = max(channels // 4, 1)
        super().__init__(
            nn.Conv2d(channels, hidden, 3, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(hidden, hidden, 3, 2, 1),
            nn.LeakyReLU(0.2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(hidden, 1),
        )


class Alignment(nn.Module):
    """The gradient layer and one discriminator per tapped map; always in float32.

    The layer sits below the discriminator, so the discriminator learns from both kinds of image in every variant. With
    `align="none"` its logits are a probe: they reach no feature.

    Args:
        channels: of each tapped map.
        kind: "gap_mlp" or "conv".
        align: which samples' gradients are reversed.
    """

    def __init__(self, channels: Sequence[int], *, kind: Literal["gap_mlp", "conv"], align: Align) -> None:
        super().__init__()
        make = GapMlp if kind == "gap_mlp" else ConvDiscriminator
        self.heads = nn.ModuleList(make(count) for count in channels)
        self.align: Align = align

    def forward(self, taps: Sequence[Tensor], is_primary: Tensor, strength: float) -> Tensor:
        """Return logits of "is primary": (B,) for one tapped map, (B, taps) for several."""
        coefficient = gradient_coefficient(is_primary, self.align, strength)
        with torch.autocast(taps[0].device.type, enabled=False):
            logits = [
                head(scale_gradient(tap.float(), coefficient)) for head, tap in zip(self.heads, taps, strict=True)
            ]
        joined = torch.cat(logits, dim=1)
        return joined[:, 0] if len(logits) == 1 else joined
