"""One model in one safetensors file: tensors, and as metadata everything needed to use and to trust them."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from amasam.build import build_model, config_from_table, file_sha256, load_base
from amasam.download import find_base
from amasam.model.amasam import AmaSam
from amasam.model.config import ModelConfig
from amasam.model.stages import trains_in_ama
from wsipipe.errors import CheckpointError, UsageError

FORMAT = "amasam"
FORMAT_VERSION = 1
TRAINING_ONLY = ("alignment.", "hr_decoder.aux_head.")  # no part of inference


@dataclass(frozen=True, slots=True)
class Facts:
    """What is true about trained weights beyond their values.

    Attributes:
        mpp: micrometres per px of the training images.
        data: a row per data set: name, images, hash, licence ...; JSON values.
        training: recipe, steps, seed, scores ...; JSON values.
        licence: of the weights.
    """

    mpp: float
    data: tuple[dict[str, Any], ...] = ()
    training: dict[str, Any] = field(default_factory=dict)
    licence: str = "unknown"


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """What a file says about itself.

    Attributes:
        config: the model's shape.
        facts: about its training.
        base_sha256: of the file with the frozen weights; None when everything is in this file.
        has_training_parts: whether discriminator and auxiliary head are in it.
        sha256: of this file.
    """

    config: ModelConfig
    facts: Facts
    base_sha256: str | None
    has_training_parts: bool
    sha256: str

    @property
    def map_names(self) -> tuple[str, ...]:
        """Names of all maps that the model gives, foreground first."""
        return ("foreground", *self.config.instance_maps)


def save_checkpoint(
    path: Path, model: AmaSam, facts: Facts, *, half: bool = False, training_parts: bool = True, whole: bool = False
) -> None:
    """Write a checkpoint, atomically: all tensors of a self-contained model, the adaptation of one on a base.

    Args:
        path: the file.
        model: not fused.
        facts: about its training.
        half: store matrices as float16; vectors, BatchNorm statistics and other buffers stay float32.
        training_parts: store discriminator and auxiliary head, too.
        whole: store everything even for a model on a base, e.g. after its frozen parts were trained.

    Raises:
        CheckpointError: a value does not fit into float16.
    """
    if model.is_fused:
        raise ValueError("a fused model cannot be saved; save the one that it was loaded from")
    base = None if whole else model.base_sha256
    about = {
        "format_version": FORMAT_VERSION,
        "config": asdict(model.config),
        "base_sha256": base,
        "has_training_parts": training_parts,
        "facts": asdict(facts),
    }
    tensors = _tensors_to_save(model, base=base, half=half, training_parts=training_parts)
    partial = path.with_name(path.name + ".partial")
    # One key only: safetensors writes several in random order, and equal models should be equal files.
    save_file(tensors, partial, metadata={FORMAT: json.dumps(about, sort_keys=True)})
    partial.replace(path)


def load_checkpoint(path: Path, *, base: Path | None = None) -> tuple[AmaSam, CheckpointInfo]:
    """Build the model of a checkpoint, in float32 and eval mode.

    Args:
        path: the file.
        base: SAM's file, for a checkpoint that holds only what was trained on top of it; None looks for it in the
            cache, then beside the checkpoint.

    Raises:
        CheckpointError: the file is missing, corrupt, of another format version, or for another base.
    """
    info = read_info(path)
    model = build_model(info.config)
    if info.base_sha256 is not None:
        _load_named_base(model, info.base_sha256, base or find_base(info.config.encoder, path))
    tensors = _read_tensors(path)
    wanted = _names(model, base=info.base_sha256, training_parts=info.has_training_parts)
    own = model.state_dict()
    for name in sorted(wanted | set(tensors)):
        if name not in tensors or name not in wanted or tensors[name].shape != own[name].shape:
            raise CheckpointError(f"weights do not fit their own configuration (at {name}): {path}")
    model.load_state_dict(tensors, strict=False)
    return model, info


def read_info(path: Path) -> CheckpointInfo:
    """Read what a checkpoint says about itself, without its tensors.

    Raises:
        CheckpointError: the file is missing, corrupt or of another format version.
    """
    about = _read_metadata(path)
    version = about.get("format_version")
    if version != FORMAT_VERSION:
        raise CheckpointError(f"checkpoint format version must be {FORMAT_VERSION}, got {version!r}: {path}")
    try:
        facts = dict(about["facts"])
        facts["data"] = tuple(facts["data"])
        return CheckpointInfo(
            config=config_from_table(about["config"]),
            facts=Facts(**facts),
            base_sha256=about["base_sha256"],
            has_training_parts=bool(about["has_training_parts"]),
            sha256=file_sha256(path),
        )
    except (KeyError, TypeError, ValueError, UsageError) as error:
        raise CheckpointError(f"checkpoint metadata is damaged ({error}): {path}") from error


def _read_metadata(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"no such weights file: {path}")
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
        about = json.loads(metadata[FORMAT])
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"weights file is corrupt or no safetensors file ({error}): {path}") from error
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"safetensors file without {FORMAT} metadata: {path}") from error
    if not isinstance(about, dict):
        raise CheckpointError(f"checkpoint metadata is damaged (no table): {path}")
    return about


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"weights file is corrupt ({error}): {path}") from error


def _load_named_base(model: AmaSam, sha256: str, base: Path) -> None:
    """Load the base file after checking that it is the one that the checkpoint was trained on."""
    if not base.is_file():
        raise CheckpointError(f"no such base weights file: {base}")
    found = file_sha256(base)
    if found != sha256:
        raise CheckpointError(f"base weights must have SHA-256 {sha256}, got {found}: {base}")
    load_base(model, base)


def _names(model: AmaSam, *, base: str | None, training_parts: bool) -> set[str]:
    """Return the names of the tensors that belong into a file."""
    names = set(model.state_dict())
    if base is not None:
        unfreeze = model.config.unfreeze_sam_mask
        names = {name for name in names if trains_in_ama(name, unfreeze_sam_mask=unfreeze)}
    return names if training_parts else {name for name in names if not name.startswith(TRAINING_ONLY)}


def _tensors_to_save(model: AmaSam, *, base: str | None, half: bool, training_parts: bool) -> dict[str, Tensor]:
    parameters = {name for name, _ in model.named_parameters()}
    state = model.state_dict()
    chosen = {}
    for name in sorted(_names(model, base=base, training_parts=training_parts)):
        tensor = state[name].detach().cpu()
        if half and name in parameters and tensor.dim() > 1:
            tensor = tensor.to(torch.float16)
            if not tensor.isfinite().all():
                raise CheckpointError(f"{name} has values that float16 cannot hold; save with half=False")
        chosen[name] = tensor.contiguous()
    return chosen
