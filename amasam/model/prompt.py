"""SAM's prompt encoder at any image size: positional encoding, points, mask prompts with drop-out."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from amasam.sam import sam_module

STRIDE = 16  # px per token of F_enc
Points = tuple[Tensor, Tensor]


class PromptPath(nn.Module):
    """SAM's `PromptEncoder` with its own parameter names, called in parts so that no size is fixed.

    Args:
        width: E.
        reference: tokens that the positional encoding's unit square spans. A number gives absolute token units, so
            that a crop and a tile encode distances alike; None stretches the square over the image, as SAM does. Both
            are the same at `reference` tokens.
    """

    def __init__(self, width: int, *, reference: int | None) -> None:
        super().__init__()
        source = sam_module("modeling").PromptEncoder(
            embed_dim=width, image_embedding_size=(1, 1), input_image_size=(STRIDE, STRIDE), mask_in_chans=16
        )
        for name, child in source.named_children():
            self.add_module(name, child)
        self.width = width
        self.reference = reference
        self._cached: dict[tuple[object, ...], Tensor] = {}

    def position(self, height: int, width: int, offset: tuple[int, int] = (0, 0)) -> Tensor:
        """Return the dense positional encoding of a token grid, (1, E, height, width).

        Args:
            height: rows of the grid.
            width: columns of the grid.
            offset: tokens (row, column) by which the grid lies off the origin; only with a reference.
        """
        matrix = self._matrix()
        version = 0 if matrix.is_inference() else matrix._version  # counts changes in place
        key = (height, width, offset, matrix.device, matrix.dtype, version)
        if key not in self._cached:
            if len(self._cached) >= 8:
                self._cached.clear()
            with torch.inference_mode(False), torch.no_grad():
                self._cached[key] = self._make_position(height, width, offset)
        return self._cached[key]

    def sparse(self, points: Points | None, batch: int, size: tuple[int, int], offset: tuple[int, int]) -> Tensor:
        """Embed points as SAM does, its closing "not a point" included.

        Args:
            points: (B, N, 2) px (x, y) and (B, N) labels: 1 inside, 0 outside, -1 padding; None gives no tokens.
            batch: B.
            size: height and width of the images, px.
            offset: as of `position`.

        Returns:
            (B, N + 1, E), or (B, 0, E) without points.
        """
        if points is None:
            return torch.zeros(batch, 0, self.width, device=self._matrix().device)
        coords = functional.pad(points[0].float() + 0.5, (0, 0, 0, 1))  # centre of the px; one padding point
        labels = functional.pad(points[1], (0, 1), value=-1)[..., None]
        shift = torch.tensor([offset[1], offset[0]], device=coords.device) * STRIDE
        encoded = self._encode((coords + shift) / self._span(size, coords.device))
        outside, inside = (self.get_parameter(f"point_embeddings.{label}.weight") for label in (0, 1))
        nowhere = self.get_parameter("not_a_point_embed.weight")
        encoded = torch.where(labels == -1, nowhere, encoded)
        return encoded + (labels == 0) * outside + (labels == 1) * inside

    def dense(self, mask: Tensor, use_mask: Tensor | None) -> Tensor:
        """Embed mask prompts.

        Args:
            mask: (B, 1, 4h, 4w).
            use_mask: bool (B,); where False, the embedding of "no mask" takes its place. None means all True.

        Returns:
            (B, E, h, w).
        """
        embedded: Tensor = self.get_submodule("mask_downscaling")(mask)
        if use_mask is None:
            return embedded
        nothing = self.get_parameter("no_mask_embed.weight").view(1, -1, 1, 1).to(embedded.dtype)
        return torch.where(use_mask.view(-1, 1, 1, 1), embedded, nothing)

    def _matrix(self) -> Tensor:
        return self.get_buffer("pe_layer.positional_encoding_gaussian_matrix")

    def _encode(self, unit: Tensor) -> Tensor:
        """Encode (..., 2) positions (x, y) of the unit square by random Fourier features, (..., E)."""
        angle = 2 * torch.pi * ((2 * unit - 1) @ self._matrix())
        return torch.cat([angle.sin(), angle.cos()], dim=-1)

    def _make_position(self, height: int, width: int, offset: tuple[int, int]) -> Tensor:
        device = self._matrix().device
        row = torch.arange(height, device=device) + 0.5 + offset[0]
        column = torch.arange(width, device=device) + 0.5 + offset[1]
        y, x = torch.meshgrid(row, column, indexing="ij")
        unit = torch.stack([x, y], dim=-1) * STRIDE / self._span((height * STRIDE, width * STRIDE), device)
        return self._encode(unit).permute(2, 0, 1)[None]  # (h, w, E) -> (1, E, h, w)

    def _span(self, size: tuple[int, int], device: torch.device) -> Tensor:
        """Return the px (x, y) that the unit square covers."""
        if self.reference is None:
            return torch.tensor([size[1], size[0]], device=device)
        return torch.tensor([self.reference * STRIDE] * 2, device=device)
