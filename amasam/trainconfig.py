"""What a training recipe may say: frozen dataclasses, every value checked once (`amasam.recipe` reads them)."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from amasam.data.colour import ColourConfig
from amasam.data.geometry import GeometryConfig
from amasam.losses import LossConfig
from wsipipe.errors import UsageError

Stage = Literal["pretrain", "ama"]
Trainable = Literal["ama", "all"]


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise UsageError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """Which images are trained on, and how patches are cut from them (`amasam.data` says it in full).

    Attributes:
        primary: name of the primary domain's set, described by data/NAME.toml beside the recipe.
        auxiliary: the other domains.
        aux_all: auxiliary sets give their held-out patients to training, too.
        split: "patient" holds out the patients that the descriptions name; "random" is UN-SAM's 80 / 10 / 10 % of the
            images by the seed, across patients: only to compare with papers, never for weights that ship.
        final: the primary set's validation patients are trained on as well; only for a recipe that is frozen.
        mpp: every image is resampled to this before patches are cut.
        patch: side of a training patch, px.
        augment: "robust", "plain", or the paper's whole images resized to `patch`.
        sampler: "share", "balanced" or "shuffle".
        primary_share: of the patches, for "share".
        aux_shares: (set, relative share) pairs; sets not named have 1.
        nucleus_share: of the patches that are drawn around a nucleus.
        workers: threads (on a CPU) or processes (for a GPU) that cut patches; 0 = none.
    """

    primary: str = "monuseg_train"
    auxiliary: tuple[str, ...] = ("tnbc", "cpm15", "gbm40")
    aux_all: bool = False
    split: Literal["patient", "random"] = "patient"
    final: bool = False
    mpp: float = 0.25
    patch: int = 256
    augment: Literal["robust", "plain", "paper"] = "robust"
    sampler: Literal["share", "balanced", "shuffle"] = "share"
    primary_share: float = 0.5
    aux_shares: tuple[tuple[str, float], ...] = ()
    nucleus_share: float = 0.25
    workers: int = 1
    geometry: GeometryConfig = field(default_factory=GeometryConfig)
    colour: ColourConfig = field(default_factory=ColourConfig)

    def __post_init__(self) -> None:
        """Refuse sizes and shares out of range."""
        _check(self.mpp > 0, f"data.mpp must be > 0, got {self.mpp}")
        _check(self.patch >= 32, f"data.patch must be >= 32 px, got {self.patch}")
        _check(0 <= self.primary_share <= 1, f"data.primary_share must be in 0..1, got {self.primary_share}")
        _check(self.workers >= 0, f"data.workers must be >= 0, got {self.workers}")


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimConfig:
    """Optimiser, schedule and numerics.

    Attributes:
        lr: peak learning rate; with lr_images > 0 it is lr * lr_images / (number of training images), spec §6.
        schedule: "cosine" to 1 % of lr over all steps, "exponential" by `decay` per epoch, or "constant".
        warmup: share of all steps with linearly rising lr.
        clip: largest gradient norm; 0 = off.
        steps: optimiser steps; with 0, `epochs` passes over as many patches as there are images.
        batch: patches per process and forward pass.
        accumulate: forward passes per optimiser step.
        ema: decay of the averaged weights that are validated and shipped; 0 = off.
        precision: "bf16" runs the network under autocast; losses and discriminator stay fp32.
    """

    optimiser: Literal["adam", "adamw"] = "adamw"
    lr: float = 1e-3
    lr_images: int = 0
    weight_decay: float = 0.02
    schedule: Literal["cosine", "exponential", "constant"] = "cosine"
    decay: float = 0.98
    warmup: float = 0.04
    clip: float = 1.0
    steps: int = 0
    epochs: int = 30
    batch: int = 4
    accumulate: int = 1
    ema: float = 0.998
    precision: Literal["fp32", "bf16"] = "fp32"
    channels_last: bool = False
    grad_checkpoint: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        _check(self.lr > 0, f"optim.lr must be > 0, got {self.lr}")
        _check(0 <= self.ema < 1, f"optim.ema must be in [0, 1), got {self.ema}")
        _check(0 <= self.warmup < 1, f"optim.warmup must be in [0, 1), got {self.warmup}")
        _check(min(self.batch, self.accumulate) >= 1, "optim.batch and optim.accumulate must be >= 1")
        _check(self.steps > 0 or self.epochs > 0, "optim.steps or optim.epochs must be > 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptConfig:
    """Which mask prompt a training sample gets: relative weights of the four kinds, drawn per sample.

    Attributes:
        self_weight: SPGen's own detached map, as at inference.
        truth: the true mask, perturbed (dilated, eroded, blobs dropped and added).
        subset: mask or points of some nuclei, and only those are the target of the fine map.
        none: SAM's embedding for "no mask".
    """

    self_weight: float = 1.0
    truth: float = 0.0
    subset: float = 0.0
    none: float = 0.0

    def __post_init__(self) -> None:
        """Refuse weights that draw nothing."""
        weights = (self.self_weight, self.truth, self.subset, self.none)
        _check(min(weights) >= 0 and sum(weights) > 0, f"prompt weights must be >= 0 and not all 0, got {weights}")

    @property
    def only_self(self) -> bool:
        """Whether every sample gets SPGen's own prompt."""
        return self.truth == self.subset == self.none == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignConfig:
    """Adversarial alignment, spec §3.

    Attributes:
        align: "none", "grl" or "cgrl".
        strength: lambda, the factor on the gradient that reaches the features.
        ramp: "constant", or "dann" = strength * (2 / (1 + exp(-10 p)) - 1) with p the share of training done.
        weights: of the domains in the discriminator's loss; "one" where the sampler already balances them.
        probe: with align "none", train the discriminator on detached features, only to log its accuracy.
    """

    align: Literal["none", "grl", "cgrl"] = "cgrl"
    strength: float = 1.0
    ramp: Literal["constant", "dann"] = "constant"
    weights: Literal["one", "two_class", "per_dataset"] = "one"
    probe: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchConfig:
    """What is looked at during training, and how often (steps; 0 = never, but at the end).

    Attributes:
        log_every: steps between lines of log.jsonl.
        gradients_every: steps between measurements of each loss's gradient norm at F_enc.
        save_every: steps between resume points.
        validate_every: steps between validations on whole images.
        validate_images: at most so many validation images, spread over the list; 0 = all.
        select: the validation metric (mean) that picks best.safetensors.
    """

    log_every: int = 20
    gradients_every: int = 0
    save_every: int = 200
    validate_every: int = 2000
    validate_images: int = 0
    select: Literal["dsc", "aji", "pq", "aji+pq"] = "dsc"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """A whole recipe.

    Attributes:
        stage: "pretrain" trains everything; "ama" is AMA-SAM proper: adapters, SPGen, HR-decoder, discriminator.
        trainable: "ama" freezes what the paper freezes; "all" trains every parameter all the same, BatchNorm statistics
            apart.
        base: SAM file of the frozen parts, "official" to fetch it once, "" for a model that is all its own.
        init: checkpoint whose weights are taken where names and shapes fit; "" = fresh weights.
        positions: draw where on the largest tile a patch lies, so that small patches teach all positions.
        preset: named size of `amasam.build`.
        model: single fields of that preset, replaced.
        post: single fields of the post-processing, replaced.
    """

    stage: Stage = "ama"
    trainable: Trainable = "ama"
    base: str = ""
    init: str = ""
    seed: int = 0
    positions: bool = False
    preset: str = "tiny"
    model: dict[str, Any] = field(default_factory=dict)
    post: dict[str, Any] = field(default_factory=dict)
    data: DataConfig = DataConfig()
    optim: OptimConfig = OptimConfig()
    loss: LossConfig = field(default_factory=LossConfig)
    prompt: PromptConfig = PromptConfig()
    align: AlignConfig = AlignConfig()
    watch: WatchConfig = WatchConfig()

    def __post_init__(self) -> None:
        """Refuse stages that contradict their other settings."""
        _check(
            self.stage == "ama" or self.align.align == "none",
            f"stage pretrain trains without alignment, got align.align = {self.align.align!r}",
        )

    def as_table(self) -> dict[str, Any]:
        """Return plain dicts, lists and scalars, as TOML or JSON hold them."""
        return dataclasses.asdict(self)
