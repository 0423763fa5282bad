"""A small decoder beside the prompted one: deep features meet stride-8 and stride-4 features, in steps of two [X].

SAM's `conv` enlarges `F_enc` four times without a look at finer features, and 32 channels of G are all that 16 slice
tokens can read. A branch with room of its own lets outlines follow the finer features before they are squeezed into G.
"""

from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from amasam.model.layers import ConvBn, ResidualBlock


class Fusion(nn.Module):
    """Fuse stride 16 with stride 8, then with stride 4; adds nothing to G until trained.

    Args:
        width: E, channels of `F_enc`.
        early_channels: of the stride-4 and stride-8 features.
        channels: of the branch at stride 4; 3/2 of that at stride 8.
        outputs: channels of G.
    """

    def __init__(self, width: int, early_channels: tuple[int, ...], *, channels: int, outputs: int) -> None:
        super().__init__()
        wide = channels * 3 // 2
        self.deep = ConvBn(width, wide, 1)
        self.stride8 = ConvBn(early_channels[1], wide, 1)
        self.blocks8 = ResidualBlock(wide, adapter=False)
        self.narrow = ConvBn(wide, channels, 1)
        self.stride4 = ConvBn(early_channels[0], channels, 1)
        self.blocks4 = nn.Sequential(*(ResidualBlock(channels, adapter=False) for _ in range(2)))
        self.out = nn.Conv2d(channels, outputs, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(cast(Tensor, self.out.bias))

    def forward(self, features: Tensor, early: tuple[Tensor, ...]) -> Tensor:
        """Return what is added to G, (B, outputs, 4g, 4g), from `F_enc` (B, E, g, g) and the early features."""
        x = functional.relu(_twice(self.deep(features)) + self.stride8(early[1]))
        x = functional.relu(_twice(self.narrow(self.blocks8(x))) + self.stride4(early[0]))
        added: Tensor = self.out(self.blocks4(x))
        return added


def _twice(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
