"""Everything that decides a model's shape, as one frozen value that fits into a TOML table."""

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from amasam.model.cgrl import Align
from amasam.model.encoder import Tap
from amasam.model.spgen import PromptValue
from wsipipe.errors import UsageError

EncoderName = Literal["hybrid", "tiny_vit", "vit_b", "vit_l", "vit_h", "vit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The shape of an AMA-SAM. Defaults are the paper's (preset `paper`), where it says something.

    Attributes:
        encoder: which image encoder; "vit" takes its sizes from the `vit_*` fields.
        input_size: S in px that position embeddings of ViT encoders are made for; others take any multiple of 16.
        embed_dim: E, channels of `F_enc`.
        channels, depths, heads, window, mlp_ratio: of the hybrid encoder.
        vit_width, vit_depth, vit_heads, vit_window, vit_global: of the encoder "vit".
        adapters: build the adapters; without them the model is for pre-training.
        adapter_placement: "mlp_parallel" or "both" (one more after attention).
        adapter_scale: s.
        conv_adapters: 1x1 adapters in residual convolution blocks, too [X].
        folded_attention: SAM's attention with its position bias folded into longer vectors.
        grad_checkpoint: recompute encoder blocks in the backward pass (unfrozen BatchNorm then counts a batch twice).
        prompt_value, prompt_threshold: the mask prompt; {0, 1} at 0.95 [P].
        position_reference: tokens that the mask decoder's positional encoding spans; None = the image, as SAM.
        decoder: "hr", or "sam" for the ablation of table 3.
        unfreeze_sam_mask: with "sam", train its mask tokens and first MLP.
        decoder_mlp_dim: hidden width of the two-way transformer's MLPs.
        mlp_hidden: hidden width of the token MLPs.
        shared_mlp: one MLP for all 16 tokens.
        hr_init: "sam" starts the HR-Decoder as SAM's first mask [C].
        one_step_conv, refine_f_mask: options of section 5.1.
        instance_maps: names of extra maps on the same 16 tokens [X].
        early_skip, g_refine, aux_head: extensions of G [X].
        fusion: channels of a branch that fuses deep with early features into G [X]; 0 = none; needs `early_skip`.
        align: "cgrl" [P], "grl" or "none".
        tap, discriminator: where and what the domain discriminator is [C].
    """

    encoder: EncoderName = "vit_b"
    input_size: int = 1024
    embed_dim: int = 256
    channels: tuple[int, int, int, int] = (24, 48, 96, 192)
    depths: tuple[int, int, int, int] = (0, 1, 2, 6)
    heads: int = 6
    window: int = 8
    mlp_ratio: float = 4.0
    vit_width: int = 64
    vit_depth: int = 2
    vit_heads: int = 2
    vit_window: int = 4
    vit_global: tuple[int, ...] = (1,)
    adapters: bool = True
    adapter_placement: Literal["mlp_parallel", "both"] = "mlp_parallel"
    adapter_scale: float = 1.0
    conv_adapters: bool = False
    folded_attention: bool = True
    grad_checkpoint: bool = False
    prompt_value: PromptValue = "binary"
    prompt_threshold: float = 0.95
    position_reference: int | None = None
    decoder: Literal["hr", "sam"] = "hr"
    unfreeze_sam_mask: bool = False
    decoder_mlp_dim: int = 2048
    mlp_hidden: int = 256
    shared_mlp: bool = False
    hr_init: Literal["sam", "random"] = "sam"
    one_step_conv: bool = False
    refine_f_mask: bool = False
    instance_maps: tuple[str, ...] = ()
    early_skip: bool = False
    fusion: int = 0
    g_refine: bool = False
    aux_head: bool = False
    align: Align = "cgrl"
    tap: Tap = "neck"
    discriminator: Literal["gap_mlp", "conv"] = "gap_mlp"


PRESETS: dict[str, ModelConfig] = {
    "paper": ModelConfig(),
    "tiny": ModelConfig(
        encoder="hybrid",
        mlp_ratio=2.0,
        prompt_value="prob",
        position_reference=64,
        decoder_mlp_dim=1024,
        mlp_hidden=64,
        hr_init="random",
        instance_maps=("distance", "boundary"),
        early_skip=True,
        g_refine=True,
        aux_head=True,
    ),
    "tiny_vit": ModelConfig(
        encoder="tiny_vit",
        prompt_value="prob",
        position_reference=64,
        instance_maps=("distance", "boundary"),
        early_skip=True,
        g_refine=True,
        aux_head=True,
    ),
    "test": ModelConfig(
        encoder="hybrid",
        input_size=64,
        embed_dim=64,
        channels=(8, 12, 16, 32),
        depths=(0, 1, 1, 2),
        heads=2,
        window=4,
        mlp_ratio=2.0,
        prompt_value="prob",
        position_reference=64,
        decoder_mlp_dim=64,
        mlp_hidden=32,
        hr_init="random",
        instance_maps=("distance", "boundary"),
        early_skip=True,
        g_refine=True,
        aux_head=True,
    ),
}


def preset(name: str, **changes: Any) -> ModelConfig:
    """Return a named size, with fields changed.

    Raises:
        UsageError: no preset has this name.
    """
    if name not in PRESETS:
        raise UsageError(f"model preset must be one of {', '.join(PRESETS)}, got {name!r}")
    return replace(PRESETS[name], **changes)


def config_from_table(table: dict[str, Any]) -> ModelConfig:
    """Read a TOML or JSON table: optional `preset`, then fields of `ModelConfig`.

    Raises:
        UsageError: a key is unknown.
    """
    table = dict(table)
    name = table.pop("preset", "paper")
    known = {field.name for field in fields(ModelConfig)}
    if unknown := sorted(set(table) - known):
        raise UsageError(f"unknown model option {unknown[0]!r}; options are: {', '.join(sorted(known))}")
    return preset(name, **{key: tuple(value) if isinstance(value, list) else value for key, value in table.items()})
