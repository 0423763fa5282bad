"""TinyViT-5M with SAM's neck: the encoder of MobileSAM, its state-dict names, for images of any size.

Architecture: Wu et al., TinyViT (ECCV 2022); widths and windows of MobileSAM. Written from the published description
and the list of parameter names and shapes. BatchNorm belongs to the encoder, which is frozen in AMA-SAM proper.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from amasam.model.encoder import Encoded, ImageEncoder, Tap
from amasam.model.layers import Adapter, ConvBn, LayerNorm2d
from amasam.model.window import join_windows, split_windows

WIDTHS = (64, 128, 160, 320)
DEPTHS = (2, 2, 6, 2)
HEADS = (4, 5, 10)  # of the three attention stages
WINDOWS = (7, 14, 7)
STRIDES = (2, 2, 1)  # of the three merging steps; MobileSAM keeps stride 16 in the last stage
UNUSED = ("norm_head.", "head.")  # the ImageNet classifier, part of MobileSAM's files


class MbConv(nn.Module):
    """Inverted bottleneck with a skip; optionally an adapter parallel to it [X]."""

    def __init__(self, width: int, *, adapter: bool) -> None:
        super().__init__()
        self.conv1 = ConvBn(width, 4 * width, 1)
        self.conv2 = ConvBn(4 * width, 4 * width, 3, groups=4 * width)
        self.conv3 = ConvBn(4 * width, width, 1)
        self.adapter = Adapter(width, width // 4) if adapter else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        y = x + self.conv3(functional.gelu(self.conv2(functional.gelu(self.conv1(x)))))
        if self.adapter is not None:
            y = y + self.adapter(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return functional.gelu(y)


class Merge(nn.Module):
    """Change of width, and of resolution by a strided depthwise convolution."""

    def __init__(self, width: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvBn(width, outputs, 1)
        self.conv2 = ConvBn(outputs, outputs, 3, stride=stride, groups=outputs)
        self.conv3 = ConvBn(outputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H / stride, W / stride)."""
        y: Tensor = self.conv3(functional.gelu(self.conv2(functional.gelu(self.conv1(x)))))
        return y


class BiasedAttention(nn.Module):
    """Attention within one window with a learned bias per absolute offset; its LayerNorm comes first."""

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window**2))
        self.register_buffer("bias_index", _offset_index(window), persistent=False)
        self.bias_index: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Map windows (N, tokens, D) to the same shape."""
        count, tokens, width = x.shape
        qkv = self.qkv(self.norm(x)).view(count, tokens, self.heads, 3, -1)  # q, k, v lie side by side in each head
        query, key, value = qkv.permute(3, 0, 2, 1, 4).unbind(0)  # each (N, heads, tokens, d)
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        scores = scores + self.attention_biases[:, self.bias_index].to(scores.dtype)
        mixed = scores.softmax(-1).to(value.dtype) @ value
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(count, tokens, width))
        return out


class Mlp(nn.Module):
    """Two linear layers; the LayerNorm before them is `norm`, applied by the block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, normed: Tensor) -> Tensor:
        """Map normalised tokens (..., D) to the same shape."""
        y: Tensor = self.fc2(functional.gelu(self.fc1(normed)))
        return y


class TinyVitBlock(nn.Module):
    """Window attention, depthwise convolution, MLP with a parallel adapter [C]."""

    def __init__(self, width: int, heads: int, *, window: int, adapter: bool) -> None:
        super().__init__()
        self.window = window
        self.attn = BiasedAttention(width, heads, window)
        self.mlp = Mlp(width)
        self.local_conv = ConvBn(width, width, 3, groups=width)
        self.adapter = Adapter(width, width // 4) if adapter else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        tokens = x.permute(0, 2, 3, 1)
        tokens = tokens + self._attend(tokens)
        mixed: Tensor = self.local_conv(tokens.permute(0, 3, 1, 2))
        tokens = mixed.permute(0, 2, 3, 1)
        normed = self.mlp.norm(tokens)
        tokens = tokens + self.mlp(normed)
        if self.adapter is not None:
            tokens = tokens + self.adapter(normed)
        out: Tensor = tokens.permute(0, 3, 1, 2)
        return out

    def _attend(self, tokens: Tensor) -> Tensor:
        """Attend within windows; as in MobileSAM, zero tokens fill up the last ones and are attended to."""
        height, width = tokens.shape[1:3]
        padded = functional.pad(tokens, (0, 0, 0, -width % self.window, 0, -height % self.window))
        mixed = self.attn(split_windows(padded, self.window))
        return join_windows(mixed, self.window, padded.shape[1], padded.shape[2])[:, :height, :width]


class Stage(nn.Module):
    """Blocks of one width, then the merge to the next."""

    def __init__(self, blocks: list[nn.Module], merge: Merge | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        if merge is not None:
            self.downsample = merge


class TinyVit(ImageEncoder):
    """Convolutions at stride 4, attention at strides 8, 16 and 16, then SAM's neck.

    Args:
        outputs: E.
        adapters: whether attention blocks carry adapters, and whether convolution blocks do.
        grad_checkpoint: recompute blocks in the backward pass.
    """

    def __init__(self, *, outputs: int, adapters: tuple[bool, bool], grad_checkpoint: bool = False) -> None:
        super().__init__()
        first = WIDTHS[0]
        self.patch_embed = nn.Module()
        self.patch_embed.seq = nn.Sequential(
            ConvBn(3, first // 2, 3, stride=2), nn.GELU(), ConvBn(first // 2, first, 3, stride=2)
        )
        self.layers = nn.ModuleList(_make_stage(i, adapters) for i in range(len(WIDTHS)))
        self.neck = nn.Sequential(
            nn.Conv2d(WIDTHS[-1], outputs, 1, bias=False),
            LayerNorm2d(outputs),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            LayerNorm2d(outputs),
        )
        self.early_channels = WIDTHS[:2]
        self.tap_channels = {"neck": (outputs,), "last_block": (WIDTHS[-1],)}
        self.grad_checkpoint = grad_checkpoint
        self.register_load_state_dict_pre_hook(_drop_classifier)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor, tap: Tap = "neck") -> Encoded:
        """Encode normalised images (B, 3, H, W), H and W multiples of 16."""
        x = self.patch_embed.get_submodule("seq")(x)
        early = []
        for stage in cast(list[Stage], list(self.layers)):
            for block in stage.blocks:
                x = self._run(block, x)
            early.append(x)
            if hasattr(stage, "downsample"):
                x = stage.downsample(x)
        features: Tensor = self.neck(x)
        return Encoded(features, tuple(early[:2]), (features if tap == "neck" else x,))

    def _run(self, module: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        if self.grad_checkpoint and torch.is_grad_enabled():
            return cast(Tensor, checkpoint(module, x, use_reentrant=False))
        return module(x)


def _make_stage(index: int, adapters: tuple[bool, bool]) -> Stage:
    attention_adapter, conv_adapter = adapters
    width = WIDTHS[index]
    blocks: list[nn.Module] = []
    for _ in range(DEPTHS[index]):
        if index == 0:
            blocks.append(MbConv(width, adapter=conv_adapter))
        else:
            heads, window = HEADS[index - 1], WINDOWS[index - 1]
            blocks.append(TinyVitBlock(width, heads, window=window, adapter=attention_adapter))
    last = index == len(WIDTHS) - 1
    return Stage(blocks, None if last else Merge(width, WIDTHS[index + 1], STRIDES[index]))


def _offset_index(window: int) -> Tensor:
    """Index of |row difference| * window + |column difference| for every pair of tokens, int64 (N, N)."""
    axis = torch.arange(window)
    row, column = (part.flatten() for part in torch.meshgrid(axis, axis, indexing="ij"))
    return (row[:, None] - row).abs() * window + (column[:, None] - column).abs()


def _drop_classifier(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Take MobileSAM's classifier out of a state dict; nothing here uses it."""
    for key in [key for key in state if key.startswith(tuple(prefix + name for name in UNUSED))]:
        del state[key]
