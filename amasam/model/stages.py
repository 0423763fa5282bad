"""Which parameters train in which stage."""

from typing import Literal

from torch import nn

from amasam.model.amasam import AmaSam

Stage = Literal["pretrain", "ama", "finetune"]

_OWN_PARTS = ("spgen", "hr_decoder", "alignment")
_OWN_MODULES = {"adapter", "attention_adapter"}
_SAM_MASK_0 = ("mask_decoder.mask_tokens.", "mask_decoder.output_hypernetworks_mlps.0.")


def is_adaptation(name: str) -> bool:
    """Whether a parameter is AMA-SAM's own: of an adapter, SPGen, the HR-Decoder or the discriminator."""
    parts = name.split(".")
    return parts[0] in _OWN_PARTS or not _OWN_MODULES.isdisjoint(parts)


def trains_in_ama(name: str, *, unfreeze_sam_mask: bool) -> bool:
    """Whether a parameter trains in AMA-SAM proper.

    Args:
        name: of the parameter.
        unfreeze_sam_mask: with SAM's decoder, its mask tokens and first MLP train as well [C, table 3].
    """
    return is_adaptation(name) or (unfreeze_sam_mask and name.startswith(_SAM_MASK_0))


def trainable_parameters(model: AmaSam, stage: Stage) -> list[nn.Parameter]:
    """Freeze what a stage freezes, in place, and return the rest, in the model's order.

    Args:
        model: to set up.
        stage: "pretrain" trains everything; "ama" only adapters, SPGen, HR-Decoder and discriminator [P], BatchNorm
            statistics frozen; "finetune" everything with BatchNorm statistics frozen [X].
    """
    unfreeze = model.config.unfreeze_sam_mask
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(stage != "ama" or trains_in_ama(name, unfreeze_sam_mask=unfreeze))
    model.batch_norm_frozen = stage != "pretrain"
    model.train(model.training)
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
