"""The small encoder of the default model [X]: residual convolutions down to stride 8, window attention at stride 16.

BatchNorm is used in its convolutional stages and only there. It trains in pre-training; in AMA-SAM proper the encoder
is frozen, its statistics with it, and for inference they are folded into the convolutions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from amasam.model.encoder import Encoded, ImageEncoder, Tap
from amasam.model.layers import Adapter, ConvBn, LayerNorm2d, ResidualBlock
from amasam.model.window import WindowAttention


class WindowBlock(nn.Module):
    """Depthwise convolution across windows, attention within them, MLP with a parallel adapter [C]."""

    def __init__(self, width: int, heads: int, *, window: int, mlp_ratio: float, adapter: bool) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.local = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.norm1 = nn.LayerNorm(width)
        self.attention = WindowAttention(width, heads, window)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, width))
        self.attention.apply(_init_linear)
        self.mlp.apply(_init_linear)
        self.adapter = Adapter(width, width // 4) if adapter else None

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, H, W, D) to the same shape."""
        x = x + self.local(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = x + self.attention(self.norm1(x))
        normed = self.norm2(x)
        y: Tensor = x + self.mlp(normed)
        return y if self.adapter is None else y + self.adapter(normed)


@dataclass(frozen=True, slots=True)
class HybridSize:
    """Widths and depths of the hybrid encoder.

    Attributes:
        channels: of the four stages.
        depths: residual blocks at strides 2, 4, 8, then window-attention blocks at stride 16.
        heads: attention heads.
        window: attention window, tokens.
        mlp_ratio: hidden width of an MLP over its width.
    """

    channels: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    heads: int
    window: int
    mlp_ratio: float


class HybridEncoder(ImageEncoder):
    """Convolutions at strides 2, 4 and 8, window-attention blocks at stride 16, then SAM's output channels.

    Args:
        size: widths and depths.
        outputs: E, channels of `F_enc`.
        adapters: whether attention blocks carry adapters, and whether residual blocks do.
        grad_checkpoint: recompute blocks in the backward pass instead of keeping their activations.
    """

    def __init__(
        self, size: HybridSize, *, outputs: int, adapters: tuple[bool, bool], grad_checkpoint: bool = False
    ) -> None:
        super().__init__()
        attention_adapter, conv_adapter = adapters
        channels = size.channels
        inputs = (3, *channels[:3])
        self.downs = nn.ModuleList(ConvBn(inputs[i], channels[i], 3, stride=2) for i in range(4))
        self.stages = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(channels[i], adapter=conv_adapter) for _ in range(size.depths[i])))
            for i in range(3)
        )
        self.blocks = nn.ModuleList(
            WindowBlock(
                channels[3], size.heads, window=size.window, mlp_ratio=size.mlp_ratio, adapter=attention_adapter
            )
            for _ in range(size.depths[3])
        )
        self.neck = nn.Sequential(
            nn.Conv2d(channels[3], outputs, 1, bias=False),
            LayerNorm2d(outputs),
            nn.Conv2d(outputs, outputs, 3, padding=1, groups=outputs, bias=False),
            LayerNorm2d(outputs),
        )
        self.early_channels = (channels[1], channels[2])
        self.tap_channels = {"neck": (outputs,), "last_block": (channels[3],)}
        self.grad_checkpoint = grad_checkpoint

    def forward(self, x: Tensor, tap: Tap = "neck") -> Encoded:
        """Encode normalised images (B, 3, H, W), H and W multiples of 16."""
        early = []
        for down, stage in zip(self.downs[:3], self.stages, strict=True):
            x = self._run(stage, functional.relu(down(x), inplace=True))
            early.append(x)
        tokens = functional.relu(self.downs[3](x), inplace=True).permute(0, 2, 3, 1)  # (B, D, g, g) -> (B, g, g, D)
        for block in self.blocks:
            tokens = self._run(block, tokens)
        last = tokens.permute(0, 3, 1, 2)
        features: Tensor = self.neck(last)
        return Encoded(features, tuple(early[1:]), (features if tap == "neck" else last,))

    def _run(self, module: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        if self.grad_checkpoint and torch.is_grad_enabled():
            return cast(Tensor, checkpoint(module, x, use_reentrant=False))
        return module(x)


def _init_linear(module: nn.Module) -> None:
    """Start linear layers small, as vision transformers do."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
