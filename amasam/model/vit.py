"""SAM's ViT encoders with an adapter in every block; modules and parameter names are SAM's."""

from dataclasses import dataclass
from functools import partial
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from amasam.model.encoder import Encoded, ImageEncoder, Tap
from amasam.model.folded import folded_attention
from amasam.model.layers import Adapter
from amasam.sam import sam_module


@dataclass(frozen=True, slots=True)
class VitSize:
    """Attributes: width D, depth, heads, window (tokens), global_blocks: blocks that attend over the whole image."""

    width: int
    depth: int
    heads: int
    window: int
    global_blocks: tuple[int, ...]


VIT_SIZES = {
    "vit_b": VitSize(768, 12, 12, 14, (2, 5, 8, 11)),
    "vit_l": VitSize(1024, 24, 16, 14, (5, 11, 17, 23)),
    "vit_h": VitSize(1280, 32, 16, 14, (7, 15, 23, 31)),
}


@dataclass(frozen=True, slots=True)
class VitOptions:
    """Attributes: adapters and their placement and scale; folded: attention form; grad_checkpoint: per block."""

    adapters: bool = True
    placement: Literal["mlp_parallel", "both"] = "mlp_parallel"
    scale: float = 1.0
    folded: bool = True
    grad_checkpoint: bool = False


class VitEncoder(ImageEncoder):
    """SAM's image encoder for images of any size that is a multiple of 16 px.

    Args:
        size: widths and depths.
        input_size: S that the position embeddings are made for; at other sizes they are interpolated.
        outputs: E.
        options: adapters, attention, memory.
    """

    def __init__(self, size: VitSize, *, input_size: int, outputs: int, options: VitOptions) -> None:
        super().__init__()
        source = sam_module("modeling").ImageEncoderViT(
            img_size=input_size,
            embed_dim=size.width,
            depth=size.depth,
            num_heads=size.heads,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=size.window,
            global_attn_indexes=size.global_blocks,
            out_chans=outputs,
        )
        self.patch_embed: nn.Module = source.patch_embed
        self.pos_embed: nn.Parameter = source.pos_embed
        self.blocks: nn.ModuleList = source.blocks
        self.neck: nn.Module = source.neck
        self.options = options
        self.global_blocks = size.global_blocks
        self.early_channels = ()
        self.tap_channels = {
            "neck": (outputs,),
            "last_block": (size.width,),
            "global_blocks": (size.width,) * len(size.global_blocks),
        }
        for block in self.blocks if options.adapters else ():
            block.adapter = Adapter(size.width, size.width // 4, scale=options.scale)
            if options.placement == "both":
                block.attention_adapter = Adapter(size.width, size.width // 4, scale=options.scale)

    def forward(self, x: Tensor, tap: Tap = "neck") -> Encoded:
        """Encode normalised images (B, 3, H, W)."""
        tokens = self.patch_embed(x)  # (B, g, g, D)
        tokens = tokens + self._positions(tokens.shape[1], tokens.shape[2])
        kept = []
        for i, block in enumerate(self.blocks):
            tokens = self._run(block, tokens)
            if tap == "global_blocks" and i in self.global_blocks:
                kept.append(tokens.permute(0, 3, 1, 2))
        last = tokens.permute(0, 3, 1, 2)  # (B, g, g, D) -> (B, D, g, g)
        features: Tensor = self.neck(last)
        taps = {"neck": (features,), "last_block": (last,), "global_blocks": tuple(kept)}
        return Encoded(features, (), taps[tap])

    def _positions(self, height: int, width: int) -> Tensor:
        """Return the position embeddings (1, height, width, D)."""
        if self.pos_embed.shape[1:3] == (height, width):
            return self.pos_embed
        grid = self.pos_embed.permute(0, 3, 1, 2)
        grid = functional.interpolate(grid, size=(height, width), mode="bicubic", align_corners=False)
        return grid.permute(0, 2, 3, 1)

    def _run(self, block: nn.Module, tokens: Tensor) -> Tensor:
        if self.options.grad_checkpoint and torch.is_grad_enabled():
            return cast(Tensor, checkpoint(run_block, block, tokens, self.options.folded, use_reentrant=False))
        return run_block(block, tokens, self.options.folded)


def run_block(block: nn.Module, x: Tensor, folded: bool) -> Tensor:
    """Run one of SAM's transformer blocks with its adapters, if it has any.

    Args:
        block: SAM's `Block`; `adapter` and `attention_adapter` may be attached.
        x: (B, H, W, D).
        folded: use `folded_attention`.
    """
    children = dict(block.named_children())
    attended = _attend(block, children["norm1"](x), folded)
    if "attention_adapter" in children:  # Medical-SAM-Adapter's first adapter, with its own skip
        attended = attended + children["attention_adapter"](attended)
    x = x + attended
    normed = children["norm2"](x)
    y: Tensor = x + children["mlp"](normed)
    return y + children["adapter"](normed) if "adapter" in children else y


def _attend(block: nn.Module, x: Tensor, folded: bool) -> Tensor:
    """Attend within SAM's zero-padded windows, or globally where the block has none."""
    window = int(block.window_size)  # type: ignore[arg-type]
    attention = block.get_submodule("attn")
    if window == 0:
        return folded_attention(attention, x) if folded else cast(Tensor, attention(x))
    sam_encoder = sam_module("modeling.image_encoder")
    windows, padded = sam_encoder.window_partition(x, window)
    windows = folded_attention(attention, windows) if folded else attention(windows)
    return cast(Tensor, sam_encoder.window_unpartition(windows, window, padded, x.shape[1:3]))
