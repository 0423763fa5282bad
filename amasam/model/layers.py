"""Small layers that several parts share."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class LayerNorm2d(nn.Module):
    """Normalise over the channels of (B, C, H, W): SAM's layer of the same name, on PyTorch's fused kernel."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised map, channels-last in memory."""
        rows = x.permute(0, 2, 3, 1)  # (B, C, H, W) -> (B, H, W, C)
        rows = functional.layer_norm(rows, rows.shape[-1:], self.weight, self.bias, self.eps)
        return rows.permute(0, 3, 1, 2)


class Adapter(nn.Module):
    """Linear, ReLU, linear [P], with a zero start [U]: adds nothing until trained.

    Args:
        width: channels D of the tokens.
        hidden: r; D / 4 [U].
        scale: s of the specification; 1 [C].
    """

    def __init__(self, width: int, hidden: int, *, scale: float = 1.0) -> None:
        super().__init__()
        self.down = nn.Linear(width, hidden)
        self.up = nn.Linear(hidden, width)
        self.scale = scale
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (..., D) to what is added to them."""
        delta: Tensor = self.up(functional.relu(self.down(x)))
        return delta if self.scale == 1.0 else delta * self.scale


class ConvBn(nn.Module):
    """Convolution without bias, then BatchNorm; `fuse` folds the second into the first. Child names are TinyViT's."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.c = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(outputs)
        nn.init.kaiming_normal_(self.c.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H / stride, W / stride)."""
        y: Tensor = self.bn(self.c(x))
        return y

    def fuse(self) -> None:
        """Fold the running statistics into the convolution; the eval-mode output stays the same."""
        if isinstance(self.bn, nn.BatchNorm2d):
            self.c = nn.utils.fusion.fuse_conv_bn_eval(self.c.eval(), self.bn.eval())
            self.bn = nn.Identity()


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a skip; optionally a 1x1 adapter parallel to them [X]."""

    def __init__(self, channels: int, *, adapter: bool) -> None:
        super().__init__()
        self.first = ConvBn(channels, channels, 3)
        self.second = ConvBn(channels, channels, 3)
        self.adapter = Adapter(channels, channels // 4) if adapter else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        y = x + self.second(functional.relu(self.first(x), inplace=True))
        if self.adapter is not None:
            y = y + self.adapter(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return functional.relu(y)


def fuse_batch_norms(module: nn.Module) -> None:
    """Fold every BatchNorm below `module` into its convolution, in place; for inference only."""
    for child in module.modules():
        if isinstance(child, ConvBn):
            child.fuse()
