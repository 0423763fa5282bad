"""Training: one loop for both stages, stopped and continued at will, the same bits as if it had never stopped."""

import math
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from amasam import rundir
from amasam.data.batch import DomainBatch
from amasam.losses import Losses, domain_accuracy
from amasam.model.amasam import AmaSamOutput, ForwardOptions
from amasam.optim import alignment_strength, lr_factor
from amasam.promptmix import PromptDraw, draw_prompts
from amasam.traindata import make_loader
from amasam.trainlog import TrainLog
from amasam.trainreport import export_weights, report_validation, write_pictures
from amasam.trainrun import Run, RunOptions
from amasam.trainstate import save_state
from amasam.trainstep import forward_losses, gradient_norms
from wsipipe.errors import ModelError


@dataclass(frozen=True, slots=True)
class Status:
    """What a progress display may show after a step.

    Attributes:
        step: optimiser steps done, of `steps`.
        values: of the last log line, or validation means; empty between them.
    """

    step: int
    steps: int
    values: dict[str, float]


@dataclass(slots=True)
class _Window:
    """What happened since the last line of the log."""

    losses: list[Tensor] = field(default_factory=list)
    domain: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    gradients: dict[str, float] = field(default_factory=dict)
    norm: Tensor | None = None
    images: int = 0
    started: float = field(default_factory=time.monotonic)


def train(
    run: Run,
    options: RunOptions,
    *,
    on_step: Callable[[Status], None] = lambda status: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Train until the recipe's last step, the time limit, or a request to stop; then save and draw.

    Args:
        run: from `trainrun.prepare_run`.
        options: the same as there.
        on_step: called after every step, and after validations.
        should_stop: asked after every step.

    Returns:
        whether the recipe is finished.

    Raises:
        ModelError: the loss became NaN or infinite.
    """
    started, before = time.monotonic(), run.progress.seconds
    watch, progress, steps = run.config.watch, run.progress, run.schedule.steps
    log = TrainLog(run.out / rundir.LOG, keep_until=progress.step) if run.process.is_first else None
    window = _Window()
    run.model.train()
    batches = iter(_loader(run))
    while progress.step < steps:
        _optimise(run, batches.__next__, window)
        progress.step += 1
        progress.seconds = before + time.monotonic() - started
        values: dict[str, float] = {}
        is_over = progress.step == steps
        if log and (progress.step % watch.log_every == 0 or is_over):
            values = _summarise(run, window)
            log.write("train", progress.step, values)
            window = _Window()
        if log and (is_over or _is_due(progress.step, watch.validate_every)) and run.data.validation:
            means = report_validation(run, log)
            values = values | means
            window = _Window()
        is_late = options.max_minutes > 0 and time.monotonic() - started > 60 * options.max_minutes
        stops = _agree(run, is_over or is_late or should_stop())
        if log and (stops or _is_due(progress.step, watch.save_every)):
            _save(run)
        on_step(Status(progress.step, steps, values))
        if stops:
            break
    if log:
        log.close()
        export_weights(run, run.out / rundir.LAST)
        write_pictures(run)
    return progress.step >= steps


def _optimise(run: Run, next_batch: Callable[[], DomainBatch], window: _Window) -> None:
    """Take one optimiser step over `accumulate` batches."""
    config, step = run.config, run.progress.step
    factor = lr_factor(config.optim, step, steps=run.schedule.steps, epoch_steps=run.schedule.epoch_steps)
    for group in run.optimiser.param_groups:
        group["lr"] = run.schedule.peak_lr * factor
    for micro in range(config.optim.accumulate):
        batch = next_batch()
        draw, options = _chance(run, batch, micro)
        batch = batch.to(run.settings.device)
        is_last = micro == config.optim.accumulate - 1
        with _sync(run.network, is_last):
            losses, output = forward_losses(run.network, batch, draw, options, run.settings)
            if is_last and _is_due(step + 1, config.watch.gradients_every):
                window.gradients = gradient_norms(losses, output.features, config.loss)
            torch.autograd.backward(losses.total / config.optim.accumulate)
        _note(window, losses, output, batch)
    trained = [p for group in run.optimiser.param_groups for p in group["params"]]
    window.norm = nn.utils.clip_grad_norm_(trained, config.optim.clip or math.inf)
    run.optimiser.step()
    run.optimiser.zero_grad(set_to_none=True)
    run.ema.update()


def _note(window: _Window, losses: Losses, output: AmaSamOutput, batch: DomainBatch) -> None:
    """Keep what the log needs, on the device, so that no step waits for it."""
    terms = [losses.total, losses.fine, losses.coarse, losses.domain, losses.dense, *losses.maps]
    window.losses.append(torch.stack([term.detach().float() for term in terms]))
    if output.domain is not None:
        window.domain.append((output.domain.detach(), batch.is_primary))
    window.images += len(batch)


def _summarise(run: Run, window: _Window) -> dict[str, float]:
    """Average the window for a line of the log.

    Raises:
        ModelError: the loss is NaN or infinite.
    """
    names = ["loss", "fine", "coarse", "domain", "dense", *run.settings.map_names]
    means = torch.stack(window.losses).mean(dim=0).tolist()
    values = dict(zip(names, means, strict=True))
    if not math.isfinite(values["loss"]):
        raise ModelError(f"loss is {values['loss']} near step {run.progress.step}; lower the learning rate or clip")
    if window.domain:
        logits, is_primary = (torch.cat(parts) for parts in zip(*window.domain, strict=True))
        values["accuracy_primary"], values["accuracy_auxiliary"] = domain_accuracy(logits, is_primary)
    values |= window.gradients
    values["grad_norm"] = math.nan if window.norm is None else float(window.norm)
    values["lr"] = run.optimiser.param_groups[0]["lr"]
    seconds = time.monotonic() - window.started
    return values | {
        "images_per_s": window.images * run.process.world / max(seconds, 1e-9),
        "seconds": run.progress.seconds,
    }


def _chance(run: Run, batch: DomainBatch, micro: int) -> tuple[PromptDraw | None, ForwardOptions]:
    """Draw prompts and positions; a function of seed, step and process alone."""
    config, model = run.config, run.model.config
    place = (run.progress.step * config.optim.accumulate + micro) * run.process.world + run.process.rank
    seed = np.random.SeedSequence((config.seed, 3, place)).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(seed) >> 1)
    offset = (0, 0)
    if config.positions and model.position_reference:
        room = max(0, model.position_reference - config.data.patch // 16) + 1
        row, col = torch.randint(0, room, (2,), generator=generator).tolist()
        offset = (row, col)
    strength = alignment_strength(config.align, run.progress.step / run.schedule.steps)
    draw = None if config.prompt.only_self else draw_prompts(batch.labels, config.prompt, generator)
    return draw, ForwardOptions(strength=strength, position_offset=offset)


def _loader(run: Run) -> Iterable[DomainBatch]:
    """Return the batches of this process from the present step on."""
    per_step = run.config.optim.accumulate * run.process.world
    start, stop = run.progress.step * per_step, run.schedule.steps * per_step
    loader = make_loader(run.sampler, run.config.data.workers, run.settings.device, start=start, stop=stop)
    loader.steps = range(start + run.process.rank, stop, run.process.world)
    return loader


def _save(run: Run) -> None:
    key = rundir.recipe_key(run.config)
    save_state(run.out / rundir.STATE, run.model, run.optimiser, run.ema, run.progress, key)


def _is_due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _sync(network: nn.Module, is_last: bool) -> AbstractContextManager[object]:
    """Let DDP exchange gradients only in the last of several accumulated passes."""
    if isinstance(network, nn.parallel.DistributedDataParallel) and not is_last:
        return network.no_sync()
    return nullcontext()


def _agree(run: Run, stops: bool) -> bool:
    """Let every process stop as soon as one wants to."""
    if run.process.world == 1:
        return stops
    flag = torch.tensor(float(stops), device=run.settings.device)
    torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
    return bool(flag)
