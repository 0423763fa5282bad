"""How wsipipe finds AMA-SAM's models, and how this package finds any model; imports torch only to load one."""

import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from amasam.shipped import workflows_folder
from wsipipe.errors import CheckpointError, ModelError, UsageError
from wsipipe.segmenter import Segmenter, SegmenterEntry, load_segmenter

if TYPE_CHECKING:
    from amasam.segmenter import Precision

TINY_WEIGHTS = Path(__file__).with_name("weights") / "amasam-tiny.safetensors"
MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit
_LICENCE = "research use: the terms of the training images, see amasam/weights/MODEL_CARD.md"


def opens(path: Path) -> bool:
    """Tell from its header whether a file is a checkpoint of this package; reads no tensor."""
    try:
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            if size > MAX_HEADER_BYTES:
                return False
            header = json.loads(file.read(size))
    except (OSError, struct.error, ValueError):
        return False
    return isinstance(header, dict) and "amasam" in header.get("__metadata__", {})


def load(device: str, path: Path, *, name: str = "", precision: "Precision | None" = None) -> Segmenter:
    """Load a checkpoint as a segmenter.

    Args:
        device: "cpu" or "cuda[:N]".
        path: of the checkpoint.
        name: as named on the command line; the file's stem if empty.
        precision: "fp32" or "bf16"; None = bf16 where the device computes it natively.

    Raises:
        CheckpointError: the file is missing, corrupt or of another kind.
    """
    from amasam.loading import load_model

    return load_model(path, name=name or path.stem, device=device, precision=precision)


def _load_tiny(device: str, path: Path | None) -> Segmenter:
    if path is None and not TINY_WEIGHTS.is_file():
        raise CheckpointError(
            f"the weights of amasam-tiny are not in this installation; expected them at {TINY_WEIGHTS}"
        )
    return load(device, path or TINY_WEIGHTS, name="amasam-tiny" if path is None else "")


def _tiny_weights() -> str:
    return f"in the package: {TINY_WEIGHTS}" if TINY_WEIGHTS.is_file() else f"missing, expected at {TINY_WEIGHTS}"


def _vit_entry(size: str, encoder: str) -> SegmenterEntry:
    """Describe a model on one of SAM's official encoders, for which this project ships no adaptation."""
    name = f"amasam-{size}"
    what = f"no trained weights are shipped; train {workflows_folder() / f'paper-{size}.toml'}, then --model PATH"

    def load_vit(device: str, path: Path | None) -> Segmenter:
        if path is None:
            raise ModelError(f"{name}: {what}")
        return load(device, path)

    def weights() -> str:
        from amasam.download import BASE_WEIGHTS, default_cache

        base = BASE_WEIGHTS[encoder]
        place = default_cache() / base.file
        return f"{what}; SAM's part: {place if place.is_file() else base.url}"

    return SegmenterEntry(
        name=name,
        about=f"AMA-SAM on SAM {size}, trained by you",
        mpp=0.25,
        licence="Apache-2.0 (SAM); of the adaptation: your training data's",
        weights=weights,
        load=load_vit,
    )


TINY = SegmenterEntry(
    name="amasam-tiny",
    about="AMA-SAM with a small hybrid encoder, trained by this project",
    mpp=0.25,
    licence=_LICENCE,
    weights=_tiny_weights,
    load=_load_tiny,
    opens=opens,
)
VIT_B = _vit_entry("vit-b", "vit_b")
VIT_L = _vit_entry("vit-l", "vit_l")
VIT_H = _vit_entry("vit-h", "vit_h")
ENTRIES = (TINY, VIT_B, VIT_L, VIT_H)


def find_segmenter(model: str, *, device: str, precision: "Precision | None" = None) -> Segmenter:
    """Load any model by name or path: this package's own first, then whatever is registered with wsipipe.

    Args:
        model: name, or path of a weights file.
        device: "cpu" or "cuda[:N]".
        precision: of this package's models; None = the device's best.

    Raises:
        UsageError: no model has this name, or no model opens this file.
        ModelError: its weights are missing or unusable.
    """
    for entry in ENTRIES:
        if entry.name == model:
            return entry.load(device, None)
    path = Path(model)
    if path.is_file() and opens(path):
        return load(device, path, precision=precision)
    if path.suffix == ".safetensors" and not path.is_file():
        raise UsageError(f"no such weights file: {path}")
    return load_segmenter(model, device=device)
