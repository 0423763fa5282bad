"""HR-Decoder: 16 slice tokens through SAM's two-way transformer, a map at the image's own size."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from amasam.model.fusion import Fusion
from amasam.model.layers import LayerNorm2d
from amasam.model.token_mlps import TokenMlps
from amasam.model.upsample import fused_map, phase_stencils

FACTOR = 4  # G has stride 4
SLICES = FACTOR**2
SAM_MASK_MLP = "output_hypernetworks_mlps.0"
OWN_TOKENS = 5  # SAM's iou token and four mask tokens come first


@dataclass(frozen=True, slots=True)
class DecoderInput:
    """What a decoder reads.

    Attributes:
        features: `F_enc`, (B, E, g, g).
        dense: embedded mask prompt, (B, E, g, g).
        sparse: embedded points, (B, N, E); N may be 0.
        position: dense positional encoding, (1, E, g, g).
        early: stride-4 and stride-8 features, or empty.
    """

    features: Tensor
    dense: Tensor
    sparse: Tensor
    position: Tensor
    early: tuple[Tensor, ...] = ()


@dataclass(frozen=True, slots=True)
class Ablation:
    """Parts to switch off in a forward pass, to show what they contribute.

    Attributes:
        zero_prompt: the mask prompt is all zero.
        zero_f_mask: G goes without SAM's `F_mask`.
        freeze_tokens: the slice tokens do not look at the image: their start values, normalised, or `fixed_tokens`.
        fixed_tokens: (16, E), e.g. the mean of the `tokens` of other images.
    """

    zero_prompt: bool = False
    zero_f_mask: bool = False
    freeze_tokens: bool = False
    fixed_tokens: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Decoded:
    """Logits fine (B, 1, S, S), maps (B, K, S, S), dense (B, 1 + K, 4g, 4g) or None; tokens (B, 16, E)."""

    fine: Tensor
    maps: Tensor
    dense: Tensor | None
    tokens: Tensor


class EarlySkip(nn.Module):
    """Bring stride-4 and stride-8 features to the channels of G [X]."""

    def __init__(self, early_channels: tuple[int, ...], channels: int) -> None:
        super().__init__()
        self.stride4 = nn.Conv2d(early_channels[0], channels, 1)
        self.stride8 = nn.Conv2d(early_channels[1], channels, 1)

    def forward(self, early: tuple[Tensor, ...]) -> Tensor:
        """Return (B, C, 4g, 4g)."""
        near: Tensor = self.stride4(early[0])
        far = functional.interpolate(self.stride8(early[1]), scale_factor=2, mode="bilinear", align_corners=False)
        return near + far


class Refine(nn.Module):
    """Two 3x3 convolutions beside a skip, the second zero at the start [X]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(cast(Tensor, self.second.bias))

    def forward(self, x: Tensor) -> Tensor:
        """Map G to the same shape."""
        y: Tensor = self.second(functional.gelu(self.first(x)))
        return x + y


def run_transformer(mask_decoder: nn.Module, given: DecoderInput, extra: Tensor | None) -> tuple[Tensor, Tensor]:
    """Run SAM's two-way transformer and upscaling, one prompt per image.

    SAM's own `predict_masks` repeats every image once per prompt and so fails for batches with one prompt each.

    Args:
        mask_decoder: SAM's.
        given: its input.
        extra: more output tokens (N, E), put after SAM's own five and before the sparse prompts.

    Returns:
        tokens (B, 5 + N + sparse, E), and `F_mask` (B, E / 8, 4g, 4g).
    """
    batch, width, height, columns = given.features.shape
    own = [cast(Tensor, mask_decoder.get_parameter(f"{name}.weight")) for name in ("iou_token", "mask_tokens")]
    output_tokens = torch.cat(own if extra is None else [*own, extra]).expand(batch, -1, -1)
    tokens = torch.cat([output_tokens, given.sparse.to(output_tokens.dtype)], dim=1)
    position = given.position.expand(batch, -1, -1, -1)
    transformer = mask_decoder.get_submodule("transformer")
    tokens, source = transformer(given.features + given.dense, position, tokens)
    source = source.transpose(1, 2).view(batch, width, height, columns)
    return tokens, mask_decoder.get_submodule("output_upscaling")(source)


@dataclass(frozen=True, slots=True)
class GOptions:
    """How G is made.

    Attributes:
        one_step_conv: `conv` as a single 4x4 transposed convolution instead of SAM-HQ's two [U].
        refine_f_mask: SAM-HQ's refinement of `F_mask` before it is added; not in Eq. 4.
        early_channels: of the stride-4 and stride-8 features for the early skip [X]; empty switches it off.
        fusion: channels of the branch that fuses deep with early features [X]; 0 switches it off.
        g_refine: two residual convolutions on G [X].
        aux_head: a dense head on G at stride 4, computed in training only [X].
    """

    one_step_conv: bool = False
    refine_f_mask: bool = False
    early_channels: tuple[int, ...] = ()
    fusion: int = 0
    g_refine: bool = False
    aux_head: bool = False


class HrDecoder(nn.Module):
    """The trainable part of the HR-Decoder; SAM's mask decoder is handed in at each call.

    Args:
        width: E.
        mlp_hidden: hidden width of the token MLPs; E [U].
        map_names: instance maps [X], each from its own MLPs on the same tokens.
        shared_mlp: one MLP for all 16 tokens.
        options: how G is made.
    """

    def __init__(
        self,
        width: int,
        *,
        mlp_hidden: int,
        map_names: tuple[str, ...],
        shared_mlp: bool,
        options: GOptions,
    ) -> None:
        super().__init__()
        channels = width // 8
        self.slice_tokens = nn.Embedding(SLICES, width)
        widths = (width, mlp_hidden, channels)
        self.mlps = TokenMlps(SLICES, widths, shared=shared_mlp)
        self.map_mlps = nn.ModuleDict({name: TokenMlps(SLICES, widths, shared=shared_mlp) for name in map_names})
        self.conv = _feature_conv(width, one_step=options.one_step_conv)
        self.f_mask_refine = _sam_hq_refine(channels) if options.refine_f_mask else None
        self.early_skip = EarlySkip(options.early_channels, channels) if options.early_channels else None
        self.fusion = (
            Fusion(width, options.early_channels, channels=options.fusion, outputs=channels) if options.fusion else None
        )
        self.refine = Refine(channels) if options.g_refine else None
        self.aux_head = _aux_head(channels, 1 + len(map_names)) if options.aux_head else None
        self.register_buffer("stencils", phase_stencils(FACTOR).float(), persistent=False)
        self.stencils: Tensor

    def forward(self, mask_decoder: nn.Module, given: DecoderInput, ablation: Ablation) -> Decoded:
        """Decode one batch; the fine map does not depend on which instance maps there are."""
        tokens, f_mask = run_transformer(mask_decoder, given, self.slice_tokens.weight)
        tokens = tokens[:, OWN_TOKENS : OWN_TOKENS + SLICES]
        if ablation.freeze_tokens or ablation.fixed_tokens is not None:
            tokens = self._frozen_tokens(mask_decoder, ablation).expand_as(tokens).to(tokens.dtype)
        features = self._features(given, torch.zeros_like(f_mask) if ablation.zero_f_mask else f_mask)
        fine = self._map(features, self.mlps(tokens))
        maps = [self._map(features, mlps(tokens)) for mlps in self.map_mlps.values()]
        joined = torch.cat(maps, dim=1) if maps else fine[:, :0]
        dense = self.aux_head(features).float() if self.training and self.aux_head is not None else None
        return Decoded(fine, joined, dense, tokens)

    def _features(self, given: DecoderInput, f_mask: Tensor) -> Tensor:
        """Return G, (B, E / 8, 4g, 4g): Eq. 4, then the extensions."""
        if self.f_mask_refine is not None:
            f_mask = self.f_mask_refine(f_mask)
        total: Tensor = self.conv(given.features) + f_mask
        if self.early_skip is not None:
            total = total + self.early_skip(given.early)
        if self.fusion is not None:
            total = total + self.fusion(given.features, given.early)
        if self.refine is not None:
            total = self.refine(total)
        return total.contiguous(memory_format=torch.channels_last)

    def _map(self, features: Tensor, slices: Tensor) -> Tensor:
        """Return one map (B, 1, S, S), in float32 or better."""
        dtype = torch.promote_types(features.dtype, torch.float32)
        return fused_map(features, slices.to(features.dtype), self.stencils.to(dtype))

    def _frozen_tokens(self, mask_decoder: nn.Module, ablation: Ablation) -> Tensor:
        if ablation.fixed_tokens is not None:
            return ablation.fixed_tokens
        normed: Tensor = mask_decoder.get_submodule("transformer.norm_final_attn")(self.slice_tokens.weight)
        return normed

    @torch.no_grad()
    def start_from_sam(self, mask_decoder: nn.Module) -> None:
        """Start as SAM's first mask [C]: tokens near its token, MLPs copies of its MLP where widths agree, `conv` 0."""
        token = mask_decoder.get_parameter("mask_tokens.weight")[0]
        self.slice_tokens.weight.copy_(token + 0.02 * torch.randn_like(self.slice_tokens.weight))
        layers = [
            module for module in mask_decoder.get_submodule(SAM_MASK_MLP).modules() if isinstance(module, nn.Linear)
        ]
        for mlps in cast(list[TokenMlps], [self.mlps, *self.map_mlps.values()]):
            if mlps.weights[0].shape[1:] == layers[0].weight.T.shape:
                mlps.copy_from(layers)
        last = list(self.conv.modules())[-1]
        for parameter in last.parameters():
            parameter.zero_()


def _feature_conv(width: int, *, one_step: bool) -> nn.Module:
    if one_step:
        return nn.ConvTranspose2d(width, width // 8, 4, 4)
    return nn.Sequential(
        nn.ConvTranspose2d(width, width // 4, 2, 2),
        LayerNorm2d(width // 4),
        nn.GELU(),
        nn.ConvTranspose2d(width // 4, width // 8, 2, 2),
    )


def _sam_hq_refine(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, 2 * channels, 3, padding=1),
        LayerNorm2d(2 * channels),
        nn.GELU(),
        nn.Conv2d(2 * channels, channels, 3, padding=1),
    )


def _aux_head(channels: int, maps: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, maps, 1))
