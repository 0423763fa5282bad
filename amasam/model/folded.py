"""SAM's attention with its decomposed position bias folded into longer vectors: spec section 5.4.

softmax(q.k * scale + q.R_h + q.R_w) v equals softmax(q'.k') v with q' = [q * scale, q R_h, q R_w] and
k' = [k, onehot(row), onehot(column)]: no N x N bias, so a fused attention kernel can be used.
"""

from torch import Tensor, cat, einsum, nn
from torch.nn import functional

from amasam.sam import sam_module


def folded_attention(attention: nn.Module, x: Tensor) -> Tensor:
    """Compute what SAM's `Attention` computes.

    Args:
        attention: SAM's module, with relative positions.
        x: (B, H, W, D).

    Returns:
        (B, H, W, D).
    """
    batch, height, width, channels = x.shape
    heads = int(attention.num_heads)  # type: ignore[arg-type]
    qkv = attention.get_submodule("qkv")(x).view(batch, height * width, 3, heads, -1)
    query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, heads, H * W, d)
    query, key = _fold(attention, query, key, (height, width))
    head = value.shape[-1]
    # Fused kernels want q, k and v of one width; without the zeros PyTorch falls back to an N x N matrix.
    value = functional.pad(value, (0, query.shape[-1] - head))
    mixed = functional.scaled_dot_product_attention(query, key, value, scale=1.0)[..., :head]
    mixed = mixed.transpose(1, 2).reshape(batch, height, width, channels)
    out: Tensor = attention.get_submodule("proj")(mixed)
    return out


def _fold(attention: nn.Module, query: Tensor, key: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Lengthen queries and keys from d to d + H + W."""
    height, width = grid
    relative = sam_module("modeling.image_encoder").get_rel_pos
    rows = relative(height, height, attention.get_parameter("rel_pos_h"))  # (H, H, d)
    columns = relative(width, width, attention.get_parameter("rel_pos_w"))
    grid_query = query.view(*query.shape[:2], height, width, -1)  # (B, heads, H, W, d)
    to_rows = einsum("bnhwc,hkc->bnhwk", grid_query, rows).flatten(2, 3)
    to_columns = einsum("bnhwc,wkc->bnhwk", grid_query, columns).flatten(2, 3)
    scale = query.shape[-1] ** -0.5
    long_query = cat([query * scale, to_rows.to(query.dtype), to_columns.to(query.dtype)], dim=-1)
    places = _one_hot_places(grid, key).expand(*key.shape[:2], -1, -1)
    return long_query, cat([key, places], dim=-1)


def _one_hot_places(grid: tuple[int, int], like: Tensor) -> Tensor:
    """Return one-hot row and column of every token, (H * W, H + W)."""
    height, width = grid
    row = like.new_ones(height).diag().repeat_interleave(width, dim=0)
    column = like.new_ones(width).diag().repeat(height, 1)
    return cat([row, column], dim=1)
