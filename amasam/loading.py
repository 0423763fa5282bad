"""From a checkpoint file to a segmenter."""

from pathlib import Path

from amasam.checkpoint import CheckpointInfo, load_checkpoint, read_info
from amasam.download import BASE_WEIGHTS, default_cache
from amasam.postprocess import PostConfig
from amasam.recipe import config_from_table
from amasam.segmenter import AmaSamSegmenter, ModelFacts, Precision, best_precision


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
    model, info = load_checkpoint(path, base=_base_in_cache(path))
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


def _base_in_cache(path: Path) -> Path | None:
    """Return SAM's file for a checkpoint that was trained on top of it, where it would be; None if it needs none."""
    info = read_info(path)
    if info.base_sha256 is None or info.config.encoder not in BASE_WEIGHTS:
        return None
    return default_cache() / BASE_WEIGHTS[info.config.encoder].file
