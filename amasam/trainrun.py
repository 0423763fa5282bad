"""Assemble a training run: processes, data, model, optimiser, and where an interrupted one had come to."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn

from amasam import rundir
from amasam.build import ModelConfig, build_model, load_base, preset
from amasam.checkpoint import load_checkpoint
from amasam.data.sampler import CropSampler
from amasam.download import Progress as DownloadProgress
from amasam.download import fetch_base
from amasam.model.amasam import AmaSam
from amasam.model.stages import is_adaptation, trainable_parameters
from amasam.optim import Ema, make_optimiser, peak_lr, steps_per_epoch, total_steps
from amasam.recipe import config_from_table
from amasam.trainconfig import TrainConfig
from amasam.traindata import TrainingData, load_training_data, make_sampler
from amasam.trainstate import Progress, load_state
from amasam.trainstep import StepSettings
from wsipipe.errors import CheckpointError, OutputError


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How and where a recipe is run; nothing here changes the weights, apart from the device's arithmetic.

    Attributes:
        data_root: folder that the sets' image folders are relative to.
        descriptions: folder of the sets' TOML files.
        resume: "auto" continues where the folder's run stopped, "never" refuses a folder that holds one.
        threads: of torch; 0 = torch's own choice.
        max_minutes: stop cleanly after this time, to be continued; 0 = no limit.
        device: "cpu" or "cuda"; under torchrun each process takes its own GPU.
    """

    data_root: Path
    descriptions: Path
    resume: Literal["auto", "never"] = "auto"
    threads: int = 0
    max_minutes: float = 0.0
    device: str = "cpu"


@dataclass(frozen=True, slots=True)
class Process:
    """This process among those of torchrun."""

    rank: int = 0
    world: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process logs, validates and saves."""
        return self.rank == 0


@dataclass(frozen=True, slots=True)
class Schedule:
    """Length and learning rate of a run, and whether every parameter trains."""

    steps: int
    epoch_steps: int
    peak_lr: float
    trains_all: bool


@dataclass(slots=True)
class Run:
    """Everything that the training loop works with.

    Attributes:
        described: names and hashes of the data.
        model: the bare model; network: the same, wrapped by torch.compile or DDP where asked for.
        process: this process; schedule: of the run; settings: of a step.
    """

    config: TrainConfig
    out: Path
    data: TrainingData
    described: dict[str, Any]
    sampler: CropSampler
    model: AmaSam
    network: nn.Module
    optimiser: torch.optim.Optimizer
    ema: Ema
    progress: Progress
    process: Process
    schedule: Schedule
    settings: StepSettings


def prepare_run(
    config: TrainConfig, out: Path, options: RunOptions, *, on_download: DownloadProgress | None = None
) -> Run:
    """Build a run, or bring it back to its resume point.

    Args:
        config: the recipe.
        out: folder of the run.
        options: how and where it is run.
        on_download: told about every chunk of SAM's weights, in the process that fetches them.

    Raises:
        OutputError: the folder holds a run and resume is "never".
        CheckpointError: the resume point belongs to another recipe, or a checkpoint is unusable.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    process, device = _join_processes(options.device)
    state = out / rundir.STATE
    if state.exists() and options.resume == "never":
        raise OutputError(f"folder holds a training run; use --resume auto or another --out: {out}")
    data = load_training_data(config.data, options.descriptions, options.data_root, seed=config.seed)
    torch.manual_seed(config.seed)
    model = _make_model(config, process, on_download).to(device)
    sampler = make_sampler(config, data.sets, model.config.instance_maps)
    n_images = sampler.n_images
    schedule = Schedule(
        total_steps(config.optim, n_images, process.world),
        steps_per_epoch(config.optim, n_images, process.world),
        peak_lr(config.optim, n_images),
        training_stage(config) != "ama",
    )
    optimiser = make_optimiser(config.optim, model, schedule.peak_lr)
    ema = Ema(model, config.optim.ema)
    progress = load_state(state, model, optimiser, ema, rundir.recipe_key(config)) if state.exists() else Progress()
    out.mkdir(parents=True, exist_ok=True)
    run = Run(
        config=config,
        out=out,
        data=data,
        described=rundir.describe_data(data.sets, data.validation),
        sampler=sampler,
        model=model,
        network=_wrap(model, config, process, device),
        optimiser=optimiser,
        ema=ema,
        progress=progress,
        process=process,
        schedule=schedule,
        settings=_step_settings(config, model.config, device),
    )
    if process.is_first and not (out / rundir.RECORD).exists():
        _record(run)
    return run


def model_config(config: TrainConfig) -> ModelConfig:
    """Return the model that a recipe describes: a preset with single fields replaced."""
    base = preset(config.preset)
    table = {name: getattr(base, name) for name in base.__dataclass_fields__} | config.model
    checked = config_from_table(ModelConfig, table, "model")
    return replace(checked, align=config.align.align, grad_checkpoint=config.optim.grad_checkpoint)


def training_stage(config: TrainConfig) -> Literal["pretrain", "ama", "finetune"]:
    """Return what `model.stages` calls the recipe's choice of trained parameters."""
    return "finetune" if config.stage == "ama" and config.trainable == "all" else config.stage


def _make_model(config: TrainConfig, process: Process, on_download: DownloadProgress | None) -> AmaSam:
    """Build the model, on SAM's weights or from a checkpoint where asked for, with the right parameters frozen."""
    model = build_model(model_config(config))
    if config.base:
        is_official = config.base == "official"
        load_base(model, fetch_once(model.config.encoder, process, on_download) if is_official else Path(config.base))
    if config.init:
        start_from(model, Path(config.init))
    trainable_parameters(model, training_stage(config))
    if not config.optim.channels_last:
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return model


def fetch_once(encoder: str, process: Process, on_download: DownloadProgress | None) -> Path:
    """Return SAM's file of an encoder; the first process fetches it where it is missing, the others wait for that."""
    place = fetch_base(encoder, progress=on_download) if process.is_first else None
    if process.world > 1:
        torch.distributed.barrier()
    return place or fetch_base(encoder)


def start_from(model: AmaSam, path: Path) -> None:
    """Take every tensor of a checkpoint whose name and shape the model knows; parts new to it keep their fresh start.

    Raises:
        CheckpointError: the checkpoint is unusable, or its encoder is another one.
    """
    source, _ = load_checkpoint(path)
    own, theirs = model.state_dict(), source.state_dict()
    fitting = {name: value for name, value in theirs.items() if name in own and own[name].shape == value.shape}
    unmet = [name for name in own if name not in fitting and not is_adaptation(name)]
    if unmet:
        raise CheckpointError(f"checkpoint is of another model than the recipe's ({unmet[0]} does not fit): {path}")
    model.load_state_dict(fitting, strict=False)
    model.base_sha256 = source.base_sha256


def _join_processes(device: str) -> tuple[Process, str]:
    """Join the other processes of torchrun, if it started this one."""
    if "LOCAL_RANK" not in os.environ:
        return Process(), device
    if device != "cpu":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    torch.distributed.init_process_group("gloo" if device == "cpu" else "nccl")
    return Process(torch.distributed.get_rank(), torch.distributed.get_world_size()), device


def leave_processes() -> None:
    """Part from the other processes of torchrun, if there are any."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _wrap(model: AmaSam, config: TrainConfig, process: Process, device: str) -> nn.Module:
    network = cast(nn.Module, torch.compile(model)) if config.optim.compile else model
    if process.world == 1:
        return network
    ids = None if device == "cpu" else [torch.device(device)]
    return nn.parallel.DistributedDataParallel(network, device_ids=ids, find_unused_parameters=True)


def _step_settings(config: TrainConfig, model: ModelConfig, device: str) -> StepSettings:
    return StepSettings(
        loss=config.loss,
        map_names=model.instance_maps,
        prompt_value=model.prompt_value,
        use_domain=len(config.data.auxiliary) > 0 and (config.align.align != "none" or config.align.probe),
        precision=config.optim.precision,
        device=device,
    )


def _record(run: Run) -> None:
    parameters = list(run.model.parameters())
    facts = {
        "steps": run.schedule.steps,
        "steps_per_epoch": run.schedule.epoch_steps,
        "peak_lr": run.schedule.peak_lr,
        "processes": run.process.world,
        "parameters": sum(p.numel() for p in parameters),
        "trained_parameters": sum(p.numel() for p in parameters if p.requires_grad),
    }
    rundir.write_record(run.out, run.config, run.described, facts)
