"""SPGen: a coarse foreground map from the encoder's features, turned into SAM's mask prompt (UN-SAM's form [U])."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from amasam.model.layers import LayerNorm2d

PromptValue = Literal["binary", "prob", "logit"]


class SPGen(nn.Module):
    """Four branches at half to four times the token grid; their logits are enlarged and added.

    Args:
        width: E, channels of `F_enc`.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        quarter, sixteenth = width // 4, width // 16
        self.half_size = nn.Sequential(nn.MaxPool2d(2, ceil_mode=True), nn.Conv2d(width, 1, 1))
        self.same_size = nn.Conv2d(width, 1, 1)
        self.double_size = nn.Sequential(nn.ConvTranspose2d(width, quarter, 2, 2), nn.Conv2d(quarter, 1, 1))
        self.fourfold_size = nn.Sequential(
            nn.ConvTranspose2d(width, quarter, 2, 2),
            LayerNorm2d(quarter),
            nn.GELU(),
            nn.ConvTranspose2d(quarter, sixteenth, 2, 2),
            nn.Conv2d(sixteenth, 1, 1),
        )

    def fuse(self) -> None:
        """Merge each linear pair of layers at a branch's end into one, in place; for inference only."""
        self.double_size = _merge_last_two(self.double_size)
        self.fourfold_size = _merge_last_two(self.fourfold_size)

    def forward(self, features: Tensor) -> Tensor:
        """Map `F_enc` (B, E, g, g) to coarse logits (B, 1, 4g, 4g)."""
        coarse: Tensor = self.fourfold_size(features)
        for branch in (self.half_size, self.same_size, self.double_size):
            logits = branch(features)
            coarse = coarse + functional.interpolate(
                logits, size=coarse.shape[-2:], mode="bilinear", align_corners=True
            )
        return coarse


def mask_prompt(coarse: Tensor, value: PromptValue, threshold: float) -> Tensor:
    """Turn coarse logits into the mask prompt; no gradient flows back [P].

    Args:
        coarse: (B, 1, 4g, 4g) logits.
        value: "binary" gives {0, 1} [P]; "prob" and "logit" keep more of what SPGen knows [C].
        threshold: probability from which "binary" is 1; 0.95 [P].
    """
    logits = coarse.detach().float()
    if value == "logit":
        return logits
    prob = torch.sigmoid(logits)
    return (prob >= threshold).to(prob.dtype) if value == "binary" else prob


@torch.no_grad()
def _merge_last_two(branch: nn.Sequential) -> nn.Sequential:
    """Replace a transposed convolution and the 1x1 convolution after it by their product."""
    *kept, first, second = branch
    if not (isinstance(first, nn.ConvTranspose2d) and isinstance(second, nn.Conv2d)):
        return branch
    merged = nn.ConvTranspose2d(first.in_channels, second.out_channels, first.kernel_size, first.stride)  # type: ignore[arg-type]
    mixing = second.weight[:, :, 0, 0]
    merged.weight.copy_(torch.einsum("iokl,po->ipkl", first.weight, mixing))
    if first.bias is not None and second.bias is not None and merged.bias is not None:
        merged.bias.copy_(mixing @ first.bias + second.bias)
    return nn.Sequential(*kept, merged)
