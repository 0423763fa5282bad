"""What every image encoder returns."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

Tap = Literal["neck", "last_block", "global_blocks"]


@dataclass(frozen=True, slots=True)
class Encoded:
    """One batch of encoded images.

    Attributes:
        features: `F_enc`, (B, E, S/16, S/16), after the neck.
        early: (B, C4, S/4, S/4) and (B, C8, S/8, S/8); empty for encoders without such stages.
        taps: maps (B, C, S/16, S/16) that the domain discriminator reads.
    """

    features: Tensor
    early: tuple[Tensor, ...]
    taps: tuple[Tensor, ...]


class ImageEncoder(nn.Module):
    """What `AmaSam` asks of an encoder; `forward(normalised images, tap) -> Encoded`.

    Attributes:
        early_channels: of the stride-4 and stride-8 features, or empty.
        tap_channels: channels of the maps of each tap that the encoder offers.
    """

    early_channels: tuple[int, ...]
    tap_channels: dict[Tap, tuple[int, ...]]
