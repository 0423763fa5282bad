"""One forward pass of training and its losses, for both stages."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from amasam.data.batch import DomainBatch
from amasam.losses import LossConfig, Losses, compute_losses, fine_loss, map_losses
from amasam.model.amasam import AmaSamOutput, ForwardOptions
from amasam.model.spgen import PromptValue
from amasam.promptmix import PromptDraw, PromptKind

LOGIT_EDGE = 0.02  # a prompted probability stays this far from 0 and 1 before it becomes a logit


@dataclass(frozen=True, slots=True)
class StepSettings:
    """What stays the same over a run.

    Attributes:
        loss: which losses.
        map_names: of the instance maps, in the model's order.
        prompt_value: what the model's mask prompts hold.
        use_domain: whether the discriminator runs.
        precision: "bf16" runs the network under autocast.
        device: "cpu" or "cuda".
    """

    loss: LossConfig
    map_names: tuple[str, ...]
    prompt_value: PromptValue
    use_domain: bool
    precision: str
    device: str


def forward_losses(
    model: nn.Module, batch: DomainBatch, draw: PromptDraw | None, options: ForwardOptions, settings: StepSettings
) -> tuple[Losses, AmaSamOutput]:
    """Run the model on a batch and compare with the truth.

    Args:
        model: AmaSam, possibly wrapped by DDP or torch.compile.
        batch: on the model's device.
        draw: prompts; None = SPGen's own for every sample.
        options: strength of the gradient layer, offset of the positions.
        settings: of the run.
    """
    extra = {} if draw is None else prompt_arguments(draw, settings)
    with torch.autocast(settings.device, dtype=torch.bfloat16, enabled=settings.precision == "bf16"):
        output: AmaSamOutput = model(
            batch.images, is_primary=batch.is_primary if settings.use_domain else None, options=options, **extra
        )
    losses = compute_losses(output, batch, settings.loss, settings.map_names)
    return (losses if draw is None else _towards_prompt(losses, output, batch, draw, settings)), output


def prompt_arguments(draw: PromptDraw, settings: StepSettings) -> dict[str, Tensor | tuple[Tensor, Tensor]]:
    """Turn drawn prompts into the model's arguments; NaN stands for SPGen's own prompt."""
    device = settings.device
    kind = draw.kind.view(-1, 1, 1, 1)
    prompt = torch.where(kind == PromptKind.SELF, torch.nan, prompt_in(draw.prob, settings.prompt_value))
    has_points = (draw.point_labels >= 0).any(dim=1) if draw.point_labels.shape[1] else torch.zeros(len(kind)) > 0
    arguments: dict[str, Tensor | tuple[Tensor, Tensor]] = {
        "prompt": prompt.to(device),
        "use_prompt": ((draw.kind != PromptKind.NONE) & ~has_points).to(device),
    }
    if draw.points.shape[1]:
        arguments["points"] = (draw.points.to(device), draw.point_labels.to(device))
    return arguments


def prompt_in(prob: Tensor, value: PromptValue) -> Tensor:
    """Express a mask prompt of probabilities in the values that a model takes."""
    if value == "binary":
        return (prob >= 0.5).float()
    return prob if value == "prob" else torch.logit(prob.clamp(LOGIT_EDGE, 1 - LOGIT_EDGE))


def _towards_prompt(
    losses: Losses, output: AmaSamOutput, batch: DomainBatch, draw: PromptDraw, settings: StepSettings
) -> Losses:
    """Let fine and instance maps aim at the prompted nuclei only; the other terms see all nuclei."""
    if bool(draw.is_target.all()):
        return losses
    is_target = draw.is_target.to(settings.device)
    wanted = replace(batch, foreground=batch.foreground * is_target, maps=batch.maps * is_target)
    config = settings.loss
    with torch.autocast(settings.device, enabled=False):
        fine = fine_loss(output.fine, wanted.foreground, wanted.valid, config)
        maps = map_losses(output.maps, wanted, config, settings.map_names)
        total = losses.total - losses.fine + fine
        if maps:
            total = total + config.maps * (torch.stack(maps).mean() - torch.stack(losses.maps).mean())
    return replace(losses, total=total, fine=fine, maps=maps)


def gradient_norms(losses: Losses, features: Tensor, config: LossConfig) -> dict[str, float]:
    """Norm at F_enc of the gradient of each weighted loss; the graph is kept.

    Args:
        losses: of one forward pass.
        features: F_enc of that pass.
        config: weights of the losses.
    """
    terms = {"fine": losses.fine, "coarse": config.coarse * losses.coarse, "domain": config.domain * losses.domain}
    if losses.maps:
        terms["maps"] = config.maps * torch.stack(losses.maps).mean()
    norms = {}
    for name, term in terms.items():
        if term.requires_grad:
            (gradient,) = torch.autograd.grad(term, features, retain_graph=True, allow_unused=True)
            norms[f"grad_{name}"] = 0.0 if gradient is None else float(gradient.float().norm())
    return norms
