"""AMA-SAM: adapted encoder, domain alignment, automatic mask prompt, high-resolution decoder."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from amasam.model.cgrl import Alignment
from amasam.model.config import ModelConfig
from amasam.model.encoder import Encoded
from amasam.model.hr_decoder import Ablation, DecoderInput
from amasam.model.layers import fuse_batch_norms
from amasam.model.prompt import STRIDE, Points, PromptPath
from amasam.model.spgen import SPGen, mask_prompt

PIXEL_MEAN = (123.675, 116.28, 103.53)  # RGB 0..255, ImageNet's, as SAM
PIXEL_STD = (58.395, 57.12, 57.375)


@dataclass(frozen=True, slots=True)
class ForwardOptions:
    """Rarely used switches of a forward pass.

    Attributes:
        strength: lambda of the gradient layer.
        position_offset: tokens (row, column) by which the image lies off the origin of the positional encoding; a
            random one in training lets small crops teach all positions of a large tile.
        ablation: parts to switch off.
    """

    strength: float = 1.0
    position_offset: tuple[int, int] = (0, 0)
    ablation: Ablation = field(default_factory=Ablation)


DEFAULT_OPTIONS = ForwardOptions()


@dataclass(frozen=True, slots=True)
class AmaSamOutput:
    """All maps are logits, float32.

    Attributes:
        fine: (B, 1, H, W) foreground.
        coarse: (B, 1, H/4, W/4) foreground of SPGen.
        maps: (B, K, H, W), in the order of `config.instance_maps`.
        features: `F_enc`, (B, E, H/16, W/16).
        domain: (B,) logits of "is primary", (B, taps) for several taps; None without `is_primary`.
        dense: (B, 1 + K, H/4, W/4) of the auxiliary head; None unless training with one.
        tokens: (B, 16, E) slice tokens after the transformer; (B, 0, E) with SAM's decoder.
    """

    fine: Tensor
    coarse: Tensor
    maps: Tensor
    features: Tensor
    domain: Tensor | None
    dense: Tensor | None
    tokens: Tensor


class AmaSam(nn.Module):
    """The whole model; module names of SAM are SAM's, so that its checkpoints load.

    Attributes:
        config: what it was built from.
        batch_norm_frozen: keep BatchNorm in eval mode even in `train()`.
        is_fused: whether `fuse` was called; such a model can neither train nor be saved.
        base_sha256: of the file with the frozen weights; None for a model that is all its own.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        image_encoder: nn.Module,
        prompt_encoder: PromptPath,
        mask_decoder: nn.Module,
        hr_decoder: nn.Module,
        alignment: Alignment,
    ) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = image_encoder
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder
        self.spgen = SPGen(config.embed_dim)
        self.hr_decoder = hr_decoder
        self.alignment = alignment
        self.batch_norm_frozen = False
        self.base_sha256: str | None = None
        self.is_fused = False
        std = torch.tensor(PIXEL_STD).view(1, 3, 1, 1)
        self.register_buffer("pixel_scale", 1 / std, persistent=False)
        self.register_buffer("pixel_shift", -torch.tensor(PIXEL_MEAN).view(1, 3, 1, 1) / std, persistent=False)
        self.pixel_scale: Tensor
        self.pixel_shift: Tensor

    def forward(
        self,
        images: Tensor,
        *,
        is_primary: Tensor | None = None,
        prompt: Tensor | None = None,
        points: Points | None = None,
        use_prompt: Tensor | None = None,
        options: ForwardOptions = DEFAULT_OPTIONS,
    ) -> AmaSamOutput:
        """Segment nuclei.

        Args:
            images: (B, 3, H, W) RGB 0..255, float or uint8; H and W multiples of 16.
            is_primary: bool (B,); turns the domain discriminator on. Training only.
            prompt: (B, 1, H/4, W/4) mask prompt in place of SPGen's, in the values that `config.prompt_value` says;
                NaN stands for SPGen's.
            points: (B, N, 2) px (x, y) and (B, N) labels 1, 0, or -1 for padding.
            use_prompt: bool (B,); where False, SAM's "no mask" embedding takes the mask prompt's place.
            options: rarely used switches.
        """
        height, width = images.shape[-2:]
        if height % STRIDE or width % STRIDE:
            raise ValueError(f"image sides must be multiples of {STRIDE} px, got {height} x {width}")
        encoded: Encoded = self.image_encoder(self._normalise(images), self.config.tap)
        domain = None if is_primary is None else self.alignment(encoded.taps, is_primary, options.strength)
        coarse = self.spgen(encoded.features)
        own = mask_prompt(coarse, self.config.prompt_value, self.config.prompt_threshold)
        prompt = own if prompt is None else torch.where(prompt.isnan(), own, prompt.to(own.dtype))
        if options.ablation.zero_prompt:
            prompt = torch.zeros_like(prompt)
        offset = options.position_offset
        given = DecoderInput(
            features=encoded.features,
            dense=self.prompt_encoder.dense(prompt, use_prompt),
            sparse=self.prompt_encoder.sparse(points, images.shape[0], (height, width), offset),
            position=self.prompt_encoder.position(height // STRIDE, width // STRIDE, offset),
            early=encoded.early,
        )
        decoded = self.hr_decoder(self.mask_decoder, given, options.ablation)
        return AmaSamOutput(
            fine=decoded.fine,
            coarse=coarse.float() if coarse.dtype == torch.bfloat16 else coarse,
            maps=decoded.maps,
            features=encoded.features,
            domain=domain,
            dense=decoded.dense,
            tokens=decoded.tokens,
        )

    def train(self, mode: bool = True) -> "AmaSam":
        """Set the mode; frozen BatchNorm stays in eval mode."""
        super().train(mode)
        if self.batch_norm_frozen:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def fuse(self) -> "AmaSam":
        """Fold BatchNorm and linear pairs of layers into convolutions, in place, for inference; return self."""
        self.eval()
        fuse_batch_norms(self)
        self.spgen.fuse()
        self.is_fused = True
        return self

    def _normalise(self, images: Tensor) -> Tensor:
        """Subtract the mean and divide by the deviation of each channel; channels-last."""
        images = images.contiguous(memory_format=torch.channels_last).to(self.pixel_scale.dtype)
        return torch.addcmul(self.pixel_shift, images, self.pixel_scale)
