"""One small MLP per slice token, run as batched matrix products."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class TokenMlps(nn.Module):
    """`count` separate three-layer MLPs [U], or one for all tokens [option: the paper says "an MLP"].

    Args:
        count: tokens.
        widths: (input, hidden, output) channels.
        shared: one MLP for all tokens.
    """

    def __init__(self, count: int, widths: tuple[int, int, int], *, shared: bool) -> None:
        super().__init__()
        first, hidden, last = widths
        self.count = count
        sets = 1 if shared else count
        sizes = ((first, hidden), (hidden, hidden), (hidden, last))
        self.weights = nn.ParameterList(nn.Parameter(torch.empty(sets, fan_in, out)) for fan_in, out in sizes)
        self.biases = nn.ParameterList(nn.Parameter(torch.empty(sets, 1, out)) for _, out in sizes)
        for weight, bias in zip(self.weights, self.biases, strict=True):
            bound = 1 / math.sqrt(weight.shape[1])  # the default of nn.Linear
            nn.init.uniform_(weight, -bound, bound)
            nn.init.uniform_(bias, -bound, bound)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, count, E) to (B, count, C)."""
        x = tokens.transpose(0, 1)  # (count, B, E)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            weight, bias = weight.expand(self.count, -1, -1), bias.expand(self.count, -1, -1)
            x = torch.baddbmm(bias, functional.relu(x) if i else x, weight)
        return x.transpose(0, 1)

    @torch.no_grad()
    def copy_from(self, layers: Sequence[nn.Linear]) -> None:
        """Make every MLP a copy of one given as its linear layers."""
        for weight, bias, layer in zip(self.weights, self.biases, layers, strict=True):
            weight.copy_(layer.weight.T)
            bias.copy_(layer.bias)
