"""Self-attention inside square windows of a token grid of any size."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class WindowAttention(nn.Module):
    """Multi-head attention among the tokens of one window, with a learned bias per relative position.

    Args:
        width: channels D.
        heads: number of heads.
        window: side of a window, tokens.
    """

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.bias_table = nn.Parameter(torch.zeros(heads, (2 * window - 1) ** 2))
        self.register_buffer("bias_index", _relative_index(window), persistent=False)
        self.bias_index: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Attend within windows.

        Args:
            x: (B, H, W, D). Sides that are no multiple of the window are padded; padded tokens are never attended to.
        """
        height, width = x.shape[1:3]
        bias = self.bias_table[:, self.bias_index][None]  # (1, heads, N, N)
        pad_y, pad_x = -height % self.window, -width % self.window
        if pad_y or pad_x:
            x = functional.pad(x, (0, 0, 0, pad_x, 0, pad_y))
            bias = bias + _padding_bias(height, width, self.window, x.device)  # (windows, heads, N, N)
            bias = bias.repeat(x.shape[0], 1, 1, 1)
        windows = split_windows(x, self.window)  # (B * windows, N, D)
        count, tokens, channels = windows.shape
        qkv = self.qkv(windows).view(count, tokens, 3, self.heads, channels // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B * windows, heads, N, D / heads)
        # Windows are small: plain products take half the time of scaled_dot_product_attention with a bias on a CPU.
        scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
        mixed = (scores + bias.to(scores.dtype)).softmax(-1).to(value.dtype) @ value
        mixed = self.proj(mixed.transpose(1, 2).reshape(count, tokens, channels))
        return join_windows(mixed, self.window, x.shape[1], x.shape[2])[:, :height, :width]


def split_windows(x: Tensor, window: int) -> Tensor:
    """Cut (B, H, W, D) into (B * windows, window * window, D); H and W are multiples of the window."""
    batch, height, width, channels = x.shape
    x = x.view(batch, height // window, window, width // window, window, channels)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, window * window, channels)


def join_windows(windows: Tensor, window: int, height: int, width: int) -> Tensor:
    """Undo `split_windows`: (B * windows, window * window, D) -> (B, H, W, D)."""
    channels = windows.shape[-1]
    x = windows.view(-1, height // window, width // window, window, window, channels)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, height, width, channels)


def _relative_index(window: int) -> Tensor:
    """Index of the relative position of every pair of tokens: int64 (N, N) into (2 * window - 1) ** 2 entries."""
    axis = torch.arange(window)
    row, column = (part.flatten() for part in torch.meshgrid(axis, axis, indexing="ij"))
    delta_row = row[:, None] - row[None, :] + window - 1
    delta_column = column[:, None] - column[None, :] + window - 1
    return delta_row * (2 * window - 1) + delta_column


def _padding_bias(height: int, width: int, window: int, device: torch.device) -> Tensor:
    """Return 0 for real keys and -inf for padded ones: float32 (windows, 1, 1, N)."""
    real = torch.zeros(1, height, width, 1, device=device)
    padded = functional.pad(real, (0, 0, 0, -width % window, 0, -height % window), value=float("-inf"))
    return split_windows(padded, window)[:, None, None, :, 0]
