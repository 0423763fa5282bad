"""From a `ModelConfig` to a model."""

import torch
from torch import nn

from amasam.model.amasam import AmaSam
from amasam.model.cgrl import Alignment
from amasam.model.config import ModelConfig, config_from_table, preset
from amasam.model.encoder import ImageEncoder
from amasam.model.hr_decoder import GOptions, HrDecoder
from amasam.model.hybrid import HybridEncoder
from amasam.model.layers import LayerNorm2d
from amasam.model.prompt import PromptPath
from amasam.sam import sam_module
from wsipipe.errors import UsageError

__all__ = ["ModelConfig", "build_model", "config_from_table", "preset"]


def build_model(config: ModelConfig) -> AmaSam:
    """Build an AMA-SAM with random weights, channels-last, in eval mode.

    Raises:
        UsageError: the options do not fit together.
    """
    encoder = _build_encoder(config)
    early = encoder.early_channels if config.early_skip else ()
    if config.early_skip and not encoder.early_channels:
        raise UsageError(f"encoder {config.encoder} has no stride-4 stage; early_skip must be false")
    hr_decoder = _build_hr_decoder(config, early)
    mask_decoder = _build_mask_decoder(config)
    model = AmaSam(
        config,
        image_encoder=encoder,
        prompt_encoder=PromptPath(config.embed_dim, reference=config.position_reference),
        mask_decoder=mask_decoder,
        hr_decoder=hr_decoder,
        alignment=Alignment(encoder.tap_channels[config.tap], kind=config.discriminator, align=config.align),
    )
    replace_layer_norms(model)
    if config.hr_init == "sam":
        hr_decoder.start_from_sam(mask_decoder)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.eval()


def replace_layer_norms(model: nn.Module) -> None:
    """Put the fused `LayerNorm2d` in the place of SAM's below `model`; parameters stay the same objects."""
    slow = sam_module("modeling.common").LayerNorm2d
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, slow):
                fast = LayerNorm2d(child.weight.shape[0], child.eps)
                fast.weight, fast.bias = child.weight, child.bias
                setattr(parent, name, fast)


def _build_encoder(config: ModelConfig) -> ImageEncoder:
    return HybridEncoder(
        channels=config.channels,
        depths=config.depths,
        heads=config.heads,
        window=config.window,
        mlp_ratio=config.mlp_ratio,
        outputs=config.embed_dim,
        adapters=(config.adapters, config.adapters and config.conv_adapters),
        grad_checkpoint=config.grad_checkpoint,
    )


def _build_mask_decoder(config: ModelConfig) -> nn.Module:
    modeling = sam_module("modeling")
    transformer = modeling.TwoWayTransformer(
        depth=2, embedding_dim=config.embed_dim, num_heads=8, mlp_dim=config.decoder_mlp_dim
    )
    decoder: nn.Module = modeling.MaskDecoder(
        transformer_dim=config.embed_dim, transformer=transformer, iou_head_hidden_dim=config.embed_dim
    )
    return decoder


def _build_hr_decoder(config: ModelConfig, early: tuple[int, ...]) -> HrDecoder:
    return HrDecoder(
        config.embed_dim,
        mlp_hidden=config.mlp_hidden,
        map_names=config.instance_maps,
        shared_mlp=config.shared_mlp,
        options=GOptions(config.one_step_conv, config.refine_f_mask, early, config.g_refine, config.aux_head),
    )
