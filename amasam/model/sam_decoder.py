"""SAM's own decoder for the ablation of table 3: its first mask token on `F_mask`, enlarged four times."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from amasam.model.hr_decoder import FACTOR, Ablation, Decoded, DecoderInput, run_transformer


class SamDecoder(nn.Module):
    """Holds no parameters: token, MLP and upscaling are those of SAM's mask decoder."""

    def forward(self, mask_decoder: nn.Module, given: DecoderInput, ablation: Ablation) -> Decoded:
        """Decode one batch; of the ablations only the prompt's has a meaning here."""
        tokens, f_mask = run_transformer(mask_decoder, given, None)
        vector: Tensor = mask_decoder.get_submodule("output_hypernetworks_mlps.0")(tokens[:, 1])
        small = torch.einsum("bc,bchw->bhw", vector, f_mask)[:, None].float()
        fine = functional.interpolate(small, scale_factor=FACTOR, mode="bilinear", align_corners=False)
        return Decoded(fine, fine[:, :0], None, tokens[:, :0])
