"""From a `ModelConfig` to a model, and from a file of SAM to its frozen weights."""

import hashlib
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from amasam.model.amasam import AmaSam
from amasam.model.cgrl import Alignment
from amasam.model.config import ModelConfig, config_from_table, preset
from amasam.model.encoder import ImageEncoder
from amasam.model.hr_decoder import GOptions, HrDecoder
from amasam.model.hybrid import HybridEncoder, HybridSize
from amasam.model.layers import LayerNorm2d
from amasam.model.prompt import PromptPath
from amasam.model.sam_decoder import SamDecoder
from amasam.model.stages import is_adaptation
from amasam.model.tiny_vit import TinyVit
from amasam.model.vit import VIT_SIZES, VitEncoder, VitOptions, VitSize
from amasam.sam import sam_module
from wsipipe.errors import CheckpointError, UsageError

__all__ = ["ModelConfig", "build_model", "config_from_table", "file_sha256", "load_base", "preset"]


def build_model(config: ModelConfig) -> AmaSam:
    """Build an AMA-SAM with random weights, channels-last, in eval mode.

    Raises:
        UsageError: the options do not fit together.
    """
    encoder = _build_encoder(config)
    _check(config, encoder)
    model = AmaSam(
        config,
        image_encoder=encoder,
        prompt_encoder=PromptPath(config.embed_dim, reference=config.position_reference),
        mask_decoder=_build_mask_decoder(config),
        hr_decoder=_build_decoder(config, encoder.early_channels),
        alignment=Alignment(encoder.tap_channels[config.tap], kind=config.discriminator, align=config.align),
    )
    _replace_layer_norms(model)
    _start_from_sam(model)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.eval()


def load_base(model: AmaSam, path: Path) -> None:
    """Load SAM's or MobileSAM's weights into the frozen parts, remember their hash, start the HR-Decoder from them.

    Raises:
        CheckpointError: the file cannot be read, or is of another model.
    """
    state = _read_torch_file(path)
    own = {name: tensor for name, tensor in model.state_dict().items() if not is_adaptation(name)}
    wrong = [name for name, tensor in own.items() if name not in state or state[name].shape != tensor.shape]
    if wrong:
        raise CheckpointError(f"not a checkpoint for encoder {model.config.encoder} ({wrong[0]} does not fit): {path}")
    model.load_state_dict({name: state[name] for name in own}, strict=False)
    model.base_sha256 = file_sha256(path)
    _start_from_sam(model)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read_torch_file(path: Path) -> dict[str, Tensor]:
    """Read a state dict without running code from the file."""
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"cannot read weights: {path} ({reason})") from error
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise CheckpointError(f"weights must be a plain state dict of tensors: {path}")
    return state


def _check(config: ModelConfig, encoder: ImageEncoder) -> None:
    """Refuse options that cannot work together."""
    if config.early_skip and not encoder.early_channels:
        raise UsageError(f"encoder {config.encoder} has no stride-4 stage; set early_skip = false")
    if config.fusion and not config.early_skip:
        raise UsageError("fusion needs the early features; set early_skip = true or fusion = 0")
    if config.tap not in encoder.tap_channels:
        raise UsageError(f"tap must be one of {', '.join(encoder.tap_channels)} for {config.encoder}, got {config.tap}")
    if config.decoder == "sam" and config.instance_maps:
        raise UsageError("decoder = 'sam' has no slice tokens; set instance_maps = []")


def _start_from_sam(model: AmaSam) -> None:
    if isinstance(model.hr_decoder, HrDecoder) and model.config.hr_init == "sam":
        model.hr_decoder.start_from_sam(model.mask_decoder)


def _replace_layer_norms(model: nn.Module) -> None:
    """Put the fused `LayerNorm2d` in the place of SAM's; parameters stay the same objects."""
    slow = sam_module("modeling.common").LayerNorm2d
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, slow):
                fast = LayerNorm2d(child.weight.shape[0], child.eps)
                fast.weight, fast.bias = child.weight, child.bias
                setattr(parent, name, fast)


def _build_encoder(config: ModelConfig) -> ImageEncoder:
    adapters = (config.adapters, config.adapters and config.conv_adapters)
    if config.encoder == "hybrid":
        size = HybridSize(config.channels, config.depths, config.heads, config.window, config.mlp_ratio)
        return HybridEncoder(size, outputs=config.embed_dim, adapters=adapters, grad_checkpoint=config.grad_checkpoint)
    if config.encoder == "tiny_vit":
        return TinyVit(outputs=config.embed_dim, adapters=adapters, grad_checkpoint=config.grad_checkpoint)
    own = VitSize(config.vit_width, config.vit_depth, config.vit_heads, config.vit_window, config.vit_global)
    options = VitOptions(
        adapters=config.adapters,
        placement=config.adapter_placement,
        scale=config.adapter_scale,
        folded=config.folded_attention,
        grad_checkpoint=config.grad_checkpoint,
    )
    size_of_vit = VIT_SIZES.get(config.encoder, own)
    return VitEncoder(size_of_vit, input_size=config.input_size, outputs=config.embed_dim, options=options)


def _build_mask_decoder(config: ModelConfig) -> nn.Module:
    modeling = sam_module("modeling")
    transformer = modeling.TwoWayTransformer(
        depth=2, embedding_dim=config.embed_dim, num_heads=8, mlp_dim=config.decoder_mlp_dim
    )
    decoder: nn.Module = modeling.MaskDecoder(
        transformer_dim=config.embed_dim, transformer=transformer, iou_head_hidden_dim=config.embed_dim
    )
    return decoder


def _build_decoder(config: ModelConfig, early_channels: tuple[int, ...]) -> nn.Module:
    if config.decoder == "sam":
        return SamDecoder()
    return HrDecoder(
        config.embed_dim,
        mlp_hidden=config.mlp_hidden,
        map_names=config.instance_maps,
        shared_mlp=config.shared_mlp,
        options=GOptions(
            one_step_conv=config.one_step_conv,
            refine_f_mask=config.refine_f_mask,
            early_channels=early_channels if config.early_skip else (),
            fusion=config.fusion,
            g_refine=config.g_refine,
            aux_head=config.aux_head,
        ),
    )
