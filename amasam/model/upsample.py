"""The fused form of "upsample, unensemble, multiply, ensemble": spec section 5.3.

Bilinear enlargement works per channel and linearly, the product with a token contracts channels: they commute. Taking
phase (p, q) of a map enlarged `factor` times is a fixed 3x3 stencil on the small map with replicated borders.
"""

import torch
from torch import Tensor
from torch.nn import functional


def phase_taps(factor: int) -> Tensor:
    """Return the weights on neighbours -1, 0, +1 of each phase of a bilinear enlargement, float64 (factor, 3).

    Output px `factor * y + p` has its centre at y + (p + 0.5) / factor - 0.5 (align_corners=False).
    """
    shift = (torch.arange(factor, dtype=torch.float64) + 0.5) / factor - 0.5
    return torch.stack([(-shift).clamp(min=0), 1 - shift.abs(), shift.clamp(min=0)], dim=1)


def phase_stencils(factor: int) -> Tensor:
    """Return the stencil of slice i = factor * p + q, float64 (factor ** 2, 1, 3, 3)."""
    taps = phase_taps(factor)
    return torch.einsum("py,qx->pqyx", taps, taps).reshape(factor**2, 1, 3, 3)


def fused_map(features: Tensor, slices: Tensor, stencils: Tensor) -> Tensor:
    """Multiply each slice of the enlarged features with its vector and put the slices together.

    Args:
        features: G, (B, C, h, w).
        slices: T, (B, factor ** 2, C).
        stencils: `phase_stencils(factor)` in the dtype of the result.

    Returns:
        (B, 1, factor * h, factor * w).
    """
    batch, channels, height, width = features.shape
    rows = features.permute(0, 2, 3, 1).reshape(batch, height * width, channels)  # a view when channels-last
    maps = torch.bmm(rows, slices.transpose(1, 2)).to(stencils.dtype)  # (B, h * w, factor ** 2)
    maps = maps.view(batch, height, width, -1).permute(0, 3, 1, 2)  # (B, factor ** 2, h, w)
    maps = functional.pad(maps, (1, 1, 1, 1), mode="replicate")
    with torch.autocast(maps.device.type, enabled=False):  # the stencils keep their precision
        maps = functional.conv2d(maps, stencils, groups=stencils.shape[0])
    return functional.pixel_shuffle(maps, round(stencils.shape[0] ** 0.5))
