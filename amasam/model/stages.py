"""Which parameters train in which stage."""

from typing import Literal

from torch import nn

from amasam.model.amasam import AmaSam

Stage = Literal["pretrain", "ama", "finetune"]

_AMA_PARTS = ("spgen", "hr_decoder", "alignment")


def trainable_parameters(model: AmaSam, stage: Stage) -> list[nn.Parameter]:
    """Freeze what a stage freezes, in place, and return the rest, in the model's order.

    Args:
        model: to set up.
        stage: "pretrain" trains everything; "ama" only adapters, SPGen, HR-Decoder and discriminator [P], BatchNorm
            statistics frozen; "finetune" everything with BatchNorm statistics frozen [X].
    """
    for name, parameter in model.named_parameters():
        parts = name.split(".")
        parameter.requires_grad_(stage != "ama" or parts[0] in _AMA_PARTS or "adapter" in parts)
    model.batch_norm_frozen = stage != "pretrain"
    model.train(model.training)
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
