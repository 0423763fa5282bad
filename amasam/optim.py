"""Optimiser, learning-rate schedule as a function of the step, and the averaged weights (EMA)."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from amasam.trainconfig import AlignConfig, OptimConfig

FINAL_LR = 0.01  # share of the peak at which the cosine ends


def total_steps(config: OptimConfig, n_images: int, n_processes: int = 1) -> int:
    """Count the optimiser steps of a run: `steps`, or `epochs` times the images over the batch of all processes."""
    if config.steps > 0:
        return config.steps
    return config.epochs * steps_per_epoch(config, n_images, n_processes)


def steps_per_epoch(config: OptimConfig, n_images: int, n_processes: int = 1) -> int:
    """Count the steps in which as many patches are seen as there are images; at least 1."""
    return max(1, math.ceil(n_images / (config.batch * config.accumulate * n_processes)))


def peak_lr(config: OptimConfig, n_images: int) -> float:
    """Return the learning rate after warm-up; inversely proportional to the images where lr_images asks for it."""
    return config.lr * config.lr_images / n_images if config.lr_images else config.lr


def lr_factor(config: OptimConfig, step: int, *, steps: int, epoch_steps: int) -> float:
    """Return the share of the peak learning rate at which 0-based step `step` of `steps` is taken."""
    warmup = round(config.warmup * steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if config.schedule == "cosine":
        share = (step - warmup) / max(1, steps - warmup)
        return FINAL_LR + (1 - FINAL_LR) * 0.5 * (1 + math.cos(math.pi * share))
    if config.schedule == "exponential":
        return float(config.decay ** (step // epoch_steps))
    return 1.0


def alignment_strength(config: AlignConfig, share_done: float) -> float:
    """Return lambda at a share of training done: constant, or the ramp of DANN (Ganin et al. 2016)."""
    if config.ramp == "constant":
        return config.strength
    return config.strength * (2 / (1 + math.exp(-10 * share_done)) - 1)


def make_optimiser(config: OptimConfig, model: nn.Module, lr: float) -> torch.optim.Optimizer:
    """Build Adam (no weight decay, as the paper) or AdamW (no decay on biases, norms and embeddings) on what trains."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if config.optimiser == "adam":
        return torch.optim.Adam([p for _, p in trained], lr=lr, fused=True)
    is_matrix = [p.ndim >= 2 and "token" not in name and "embed" not in name for name, p in trained]
    groups = [
        {"params": [p for (_, p), m in zip(trained, is_matrix, strict=True) if m], "weight_decay": config.weight_decay},
        {"params": [p for (_, p), m in zip(trained, is_matrix, strict=True) if not m], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=lr, fused=True)


class Ema:
    """Exponential average of what changes in a model: trained parameters and floating-point buffers.

    The decay rises from 0.1 to `decay` over the first steps, so that the random start is forgotten soon.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Start at the model's present weights; decay 0 keeps the average equal to the weights."""
        self.decay = decay
        self.n_updates = 0
        self._live = _changing(model)
        self.shadow = {name: value.detach().clone() for name, value in self._live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the present weights by one step."""
        self.n_updates += 1
        decay = min(self.decay, self.n_updates / (9 + self.n_updates)) if self.decay else 0.0
        torch._foreach_lerp_(list(self.shadow.values()), list(self._live.values()), 1 - decay)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Put the average into the model for the time of the `with` block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, value in self._live.items():
            kept = value.clone()
            value.copy_(self.shadow[name])
            self.shadow[name].copy_(kept)

    def state_dict(self) -> dict[str, object]:
        """Return everything that `load_state_dict` needs."""
        return {"n_updates": self.n_updates, "shadow": self.shadow}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Continue from a state; its names must be this model's."""
        n_updates, shadow = state["n_updates"], state["shadow"]
        if not isinstance(n_updates, int) or not isinstance(shadow, dict) or set(shadow) != set(self.shadow):
            raise ValueError("averaged weights belong to another model or another choice of trained parameters")
        self.n_updates = n_updates
        for name, value in shadow.items():
            self.shadow[name].copy_(value)


def _changing(model: nn.Module) -> dict[str, Tensor]:
    trained = {name: p.data for name, p in model.named_parameters() if p.requires_grad}
    return trained | {name: b for name, b in model.named_buffers() if b.is_floating_point()}
