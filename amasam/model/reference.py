"""The HR-Decoder's last steps as the paper writes them: what the fused form is tested against."""

import torch
from torch import Tensor
from torch.nn import functional


def materialised_map(features: Tensor, slices: Tensor, factor: int) -> Tensor:
    """Enlarge, unensemble, multiply, ensemble: steps 13 to 17 of the specification.

    Args:
        features: G, (B, C, h, w).
        slices: T, (B, factor ** 2, C).
        factor: of the enlargement.

    Returns:
        (B, 1, factor * h, factor * w).
    """
    batch, channels, height, width = features.shape
    large = functional.interpolate(features, scale_factor=factor, mode="bilinear", align_corners=False)
    parts = functional.pixel_unshuffle(large, factor)  # (B, C * factor ** 2, h, w)
    parts = parts.view(batch, channels, factor**2, height, width)
    return functional.pixel_shuffle(torch.einsum("bic,bcihw->bihw", slices, parts), factor)
