"""The resume point of a training run: everything that the next step depends on, written atomically."""

import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from amasam.optim import Ema
from wsipipe.errors import CheckpointError

FORMAT = 1


@dataclass(slots=True)
class Progress:
    """How far a run is.

    Attributes:
        step: optimiser steps done.
        best: highest validation score so far; -1 before the first validation.
        best_step: at which it was reached.
        seconds: spent so far, over all sessions.
    """

    step: int = 0
    best: float = -1.0
    best_step: int = 0
    seconds: float = 0.0


def save_state(
    path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, ema: Ema, progress: Progress, recipe_key: str
) -> None:
    """Write the resume point beside its target, flush it to disk, and only then replace the old one."""
    state = {
        "format": FORMAT,
        "recipe": recipe_key,
        "model": _changing_state(model),
        "optimiser": optimiser.state_dict(),
        "ema": ema.state_dict(),
        "progress": [progress.step, progress.best, progress.best_step, progress.seconds],
        "rng": torch.get_rng_state(),
        "rng_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def load_state(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, ema: Ema, recipe_key: str) -> Progress:
    """Bring a run back to its resume point.

    Raises:
        CheckpointError: the file is corrupt, of another format version or of another recipe.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"cannot read resume point, {str(error).splitlines()[0]}: {path}") from None
    if state.get("format") != FORMAT:
        raise CheckpointError(f"resume point must have format {FORMAT}, got {state.get('format')}: {path}")
    if state["recipe"] != recipe_key:
        raise CheckpointError(f"resume point belongs to another recipe; use another --out or --resume never: {path}")
    missing = model.load_state_dict(state["model"], strict=False).unexpected_keys
    if missing:
        raise CheckpointError(f"resume point holds tensors of another model, e.g. {missing[0]}: {path}")
    optimiser.load_state_dict(state["optimiser"])
    ema.load_state_dict(state["ema"])
    torch.set_rng_state(state["rng"])
    if state["rng_cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["rng_cuda"])
    return Progress(*state["progress"])


def _changing_state(model: nn.Module) -> dict[str, Tensor]:
    """Return what differs from the model as built: trained parameters and all buffers."""
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    buffers = {name for name, _ in model.named_buffers()}
    return {name: value for name, value in model.state_dict().items() if name in trained | buffers}
