"""From a sample to a patch: geometry and colour together, image and labels never out of step."""

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from amasam.data.colour import ColourConfig, jitter_colour
from amasam.data.geometry import UPRIGHT, GeometryConfig, draw_centre, draw_shape, warp_patch
from amasam.data.samples import Sample

Aim = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Patch:
    """A training patch.

    Attributes:
        image: uint8 (S, S, 3) RGB.
        labels: int32 (S + 2 margin, S + 2 margin).
        valid: uint8 (S, S), 0 on padding.
        zoom: magnification beyond the wanted mpp.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.int32]
    valid: NDArray[np.uint8]
    zoom: float


@dataclass(frozen=True, slots=True)
class AugmentConfig:
    """A preset, and the strengths of the robust one.

    Attributes:
        preset: "robust" patches at the model's mpp [X]; "plain" such patches upright and unchanged; "paper" whole
            images resized to the input side, flips and quarter turns [C, spec decision 13].
        geometry, colour: of "robust".
    """

    preset: str = "robust"
    geometry: GeometryConfig = field(default_factory=GeometryConfig)
    colour: ColourConfig = field(default_factory=ColourConfig)

    def __post_init__(self) -> None:
        """Refuse unknown presets."""
        if self.preset not in ("robust", "plain", "paper"):
            raise ValueError(f"augmentation preset must be robust, plain or paper, got {self.preset!r}")


@dataclass(frozen=True, slots=True)
class PatchSize:
    """What a patch measures.

    Attributes:
        size: input side S, px.
        mpp: of the model; the paper preset does not use it.
        margin: extra label px on every side, so that cut nuclei keep their true distances.
    """

    size: int = 256
    mpp: float = 0.25
    margin: int = 32


def cut_patch(
    sample: Sample, rng: np.random.Generator, config: AugmentConfig, patch: PatchSize, aim: Aim | None = None
) -> Patch:
    """Draw one patch.

    Args:
        sample: the source.
        rng: the only source of chance.
        config: what varies.
        patch: what a patch measures.
        aim: (x, y) px of a nucleus that shall be seen, None for any place; ignored by the paper preset.

    Returns:
        The patch.
    """
    if config.preset == "paper":
        return _whole_image(sample, rng, patch)
    geometry = config.geometry if config.preset == "robust" else UPRIGHT
    shape, zoom = draw_shape(rng, geometry, sample, mpp=patch.mpp, size=patch.size)
    centre = draw_centre(rng, sample, shape, patch.size, aim)
    image, labels = warp_patch(sample, shape, centre, size=patch.size, margin=patch.margin)
    if config.preset == "robust":
        image = jitter_colour(image, rng, config.colour)
    return Patch(image, labels, np.ones(image.shape[:2], np.uint8), zoom)


def resize_whole(sample: Sample, size: int) -> Patch:
    """Resize a sample so that its longer side is `size`; pad right and bottom with the normalisation mean.

    SAM pads with 0 *after* normalisation, which is the mean pixel before it.
    """
    height, width = sample.labels.shape
    factor = size / max(height, width)
    inner = (max(1, round(width * factor)), max(1, round(height * factor)))
    image = np.empty((size, size, 3), np.uint8)
    image[:] = PAD_RGB
    labels = np.zeros((size, size), np.int32)
    valid = np.zeros((size, size), np.uint8)
    image[: inner[1], : inner[0]] = cv2.resize(sample.image, inner, interpolation=cv2.INTER_LINEAR)
    labels[: inner[1], : inner[0]] = _resize_nearest(sample.labels, inner)
    valid[: inner[1], : inner[0]] = 1
    return Patch(image, labels, valid, factor)


PAD_RGB = (124, 116, 104)  # SAM's pixel mean, rounded to what uint8 can hold


def _resize_nearest(labels: NDArray[np.int32], size: tuple[int, int]) -> NDArray[np.int32]:
    """Labels at (width, height), each output pixel taking the source pixel under its middle."""
    rows = ((np.arange(size[1]) + 0.5) * labels.shape[0] / size[1]).astype(np.intp)
    cols = ((np.arange(size[0]) + 0.5) * labels.shape[1] / size[0]).astype(np.intp)
    return np.asarray(labels[rows[:, None], cols])


def _whole_image(sample: Sample, rng: np.random.Generator, patch: PatchSize) -> Patch:
    """The paper preset: horizontal flip 0.5, vertical flip 0.5, quarter turns, of the whole padded image."""
    whole = resize_whole(sample, patch.size)
    turns, rows, cols = int(rng.integers(4)), *rng.choice((-1, 1), 2)

    def turn(plane: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(np.rot90(plane, turns)[::rows, ::cols])

    return Patch(turn(whole.image), np.pad(turn(whole.labels), patch.margin), turn(whole.valid), whole.zoom)
