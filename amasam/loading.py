"""From a checkpoint file to a segmenter, to a file to ship, to a description."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from amasam.build import file_sha256
from amasam.checkpoint import CheckpointInfo, load_checkpoint, read_info, save_checkpoint
from amasam.postprocess import PostConfig
from amasam.recipe import config_from_table
from amasam.segmenter import AmaSamSegmenter, ModelFacts, Precision, best_precision
from wsipipe.errors import UsageError


def load_model(path: Path, *, name: str, device: str, precision: Precision | None = None) -> AmaSamSegmenter:
    """Load a checkpoint, fold its BatchNorm, move it to the device.

    Args:
        path: of the checkpoint.
        name: of the model.
        device: "cpu" or "cuda[:N]".
        precision: None = the device's best.

    Raises:
        CheckpointError: the file is missing, corrupt, or needs a SAM file that is not in its place.
    """
    model, info = load_checkpoint(path)
    model = model.fuse().to(device)
    model.requires_grad_(requires_grad=False)
    facts = ModelFacts(
        name=name,
        mpp=info.facts.mpp,
        sha256=info.sha256,
        licence=info.facts.licence,
        post=stored_post(info),
        path=path,
        input_size=info.config.input_size,
    )
    return AmaSamSegmenter(model, facts, device=device, precision=precision or best_precision(device))


def stored_post(info: CheckpointInfo) -> PostConfig:
    """Return the post-processing that a checkpoint was tuned with; the default if it names none."""
    return config_from_table(PostConfig, dict(info.facts.training.get("post", {})), "post-processing of the checkpoint")


def export_checkpoint(source: Path, target: Path, post_file: Path | None) -> str:
    """Write a checkpoint to ship: float16, without discriminator and auxiliary head, with tuned post-processing.

    The same checkpoint gives the same bytes; of the files that its training started from only RUN/FILE is kept.

    Args:
        source: checkpoint of a training run.
        target: file to write.
        post_file: JSON file of `amasam tune`; None keeps the checkpoint's own post-processing.

    Returns:
        SHA-256 of the target.
    """
    model, info = load_checkpoint(source)
    training = _without_folders(info.facts.training)
    if post_file is not None:
        training["post"] = _read_post(post_file, info.sha256).as_table()
    target.parent.mkdir(parents=True, exist_ok=True)
    facts = replace(info.facts, training=training)
    save_checkpoint(target, model, facts, half=True, training_parts=False, whole=info.base_sha256 is None)
    target.chmod(0o644)
    return file_sha256(target)


def _without_folders(training: Mapping[str, Any]) -> dict[str, Any]:
    """Name the files that a training started from as RUN/FILE: where they lay is nobody else's business."""
    recipe = dict(training.get("recipe", {}))
    named = {key: "/".join(Path(recipe[key]).parts[-2:]) for key in ("init", "base") if recipe.get(key)}
    return {**training, "recipe": recipe | named} if recipe else dict(training)


def _read_post(path: Path, sha256: str) -> PostConfig:
    """Read the best setting of a tuning; it must be of the same weights."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        best, tuned = dict(record["best"]), record["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"--post must be a JSON file of `amasam tune` ({error}): {path}") from None
    if tuned != sha256:
        raise UsageError(f"post-processing was tuned for the weights {tuned[:12]}, not {sha256[:12]}: {path}")
    return config_from_table(PostConfig, best, str(path))


def describe_checkpoint(path: Path, *, as_json: bool) -> str:
    """Tell what a checkpoint holds, as text for people or as JSON with everything."""
    info = read_info(path)
    if as_json:
        return json.dumps(asdict(info), indent=1, default=str)
    training = info.facts.training
    lines = {
        "file": f"{path} ({path.stat().st_size / 1e6:.1f} MB)",
        "SHA-256": info.sha256,
        "encoder": info.config.encoder,
        "maps": ", ".join(info.map_names),
        "mpp": f"{info.facts.mpp:g}",
        "SAM base": info.base_sha256 or "none, everything is in this file",
        "for training": "with discriminator and auxiliary head" if info.has_training_parts else "no",
        "steps": training.get("steps", "unknown"),
        "best validation": training.get("best_validation", "unknown"),
        "code": training.get("git_commit", "unknown"),
        "post-processing": stored_post(info),
        "data": "; ".join(f"{row.get('name')} ({row.get('images')} images)" for row in info.facts.data) or "unknown",
        "licence": info.facts.licence,
    }
    return "\n".join(f"{key:16} {value}" for key, value in lines.items())
