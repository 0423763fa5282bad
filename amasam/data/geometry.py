"""Cut one patch out of a sample: resampling to the wanted mpp and every geometric change in a single affine warp."""

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from amasam.data.samples import Sample

Affine = NDArray[np.float64]

MAX_SPAN = 1.25  # a patch never spans more than this many times its image's shorter side; beyond lies only reflection
SHARP_ENLARGING = 0.7  # source px per patch px below which a patch is enlarged bilinearly, as slides are read


@dataclass(frozen=True, slots=True)
class GeometryConfig:
    """How patches vary in place, size and direction.

    Attributes:
        scale: log-uniform range of magnification; 0.4 shows nuclei as a slide of 0.25 / 0.4 = 0.62 um/px would.
        near_scale, near_share: this share of the patches is drawn from the narrow range instead.
        any_angle: share of patches turned by any angle; the others by quarter turns, which do not blur.
        stretch: largest relative difference of x and y size.
        shear: largest shear, px per px.
        flips: mirror and quarter turns at all; False leaves the patch upright.
    """

    scale: tuple[float, float] = (0.4, 1.25)
    near_scale: tuple[float, float] = (0.8, 1.25)
    near_share: float = 0.6
    any_angle: float = 0.5
    stretch: float = 0.08
    shear: float = 0.05
    flips: bool = True

    def __post_init__(self) -> None:
        """Refuse empty ranges."""
        for low, high in (self.scale, self.near_scale):
            if not 0 < low <= high:
                raise ValueError(f"scale ranges must be 0 < low <= high, got {self.scale} and {self.near_scale}")


UPRIGHT = GeometryConfig((1.0, 1.0), (1.0, 1.0), 0.0, 0.0, 0.0, 0.0, flips=False)


def draw_shape(
    rng: np.random.Generator, config: GeometryConfig, sample: Sample, *, mpp: float, size: int
) -> tuple[Affine, float]:
    """Draw how patch directions map to source directions.

    Args:
        rng: consumed by a fixed number of draws.
        config: ranges.
        sample: whose mpp and size matter.
        mpp: of the patch at magnification 1.
        size: patch side, px.

    Returns:
        (2, 2) matrix, source px per patch px in (x, y) order, and the magnification drawn.
    """
    u_near, u_scale, u_angle, turn, u_any, u_stretch, u_shear, u_mirror = rng.random(8)
    low, high = config.near_scale if u_near < config.near_share else config.scale
    step = mpp / sample.mpp
    zoom = low * (high / low) ** u_scale
    zoom = max(zoom, size * step / (MAX_SPAN * min(sample.labels.shape)))
    quarter = math.floor(4 * turn) * math.pi / 2
    angle = 2 * math.pi * u_angle if u_any < config.any_angle else quarter * config.flips
    cos, sin = math.cos(angle), math.sin(angle)
    stretch = (1 + config.stretch) ** (u_stretch - 0.5)
    shear = config.shear * (2 * u_shear - 1)
    mirror = -1.0 if config.flips and u_mirror < 0.5 else 1.0
    turned = np.round([[cos, -sin], [sin, cos]], 12)  # quarter turns come out exact
    shape = turned @ np.array([[stretch * mirror, shear], [0.0, 1.0 / stretch]])
    return shape * (step / zoom), zoom


def draw_centre(
    rng: np.random.Generator, sample: Sample, shape: Affine, size: int, aim: tuple[float, float] | None
) -> tuple[float, float]:
    """Draw the source pixel under the patch's middle, so that the upright patch would stay inside the image.

    Args:
        rng: consumed by two draws.
        sample: the source.
        shape: as drawn by `draw_shape`.
        size: patch side, px.
        aim: (x, y) of a nucleus that shall be somewhere in the middle half of the patch, or None for any place.

    Returns:
        (x, y) in pixel-centre coordinates (0, 0 is the middle of the first pixel).
    """
    reach = 0.5 * size * math.sqrt(abs(np.linalg.det(shape)))
    centre = []
    for u, side, at in zip(rng.random(2), sample.labels.shape[::-1], aim or (None, None), strict=True):
        low, high = min(reach, side / 2) - 0.5, max(side - reach, side / 2) - 0.5
        place = low + u * (high - low) if at is None else at + (u - 0.5) * reach
        centre.append(min(max(place, low), high))
    if _is_grid_aligned(shape):
        half = (size - 1) / 2 % 1  # then pixels meet pixels and nothing is interpolated
        return math.floor(centre[0]) + half, math.floor(centre[1]) + half
    return centre[0], centre[1]


def _is_grid_aligned(shape: Affine) -> bool:
    """Whether patch px are source px, at most turned or mirrored."""
    return bool(np.all(np.isin(shape, (-1.0, 0.0, 1.0))))


def warp_patch(
    sample: Sample, shape: Affine, centre: tuple[float, float], *, size: int, margin: int
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Cut image and labels with the same affine map; outside the image both are mirrored at its edge.

    Args:
        sample: the source.
        shape: (2, 2) source px per patch px.
        centre: (x, y) source px under the patch's middle.
        size: patch side, px.
        margin: extra label px on every side, for `targets.make_targets`.

    Returns:
        uint8 (size, size, 3) image and int32 (size + 2 margin, size + 2 margin) labels.
    """
    step = math.sqrt(abs(np.linalg.det(shape)))
    window, corner = _source_window(sample.image, shape, centre, size)
    if step > 1.1:  # a Gaussian of the variance of an average over `step` px keeps shrinking free of aliases
        sigma = math.sqrt((step * step - 1) / 12)
        window = np.asarray(cv2.GaussianBlur(window, (0, 0), sigma, borderType=cv2.BORDER_REFLECT), np.uint8)
    method = cv2.INTER_CUBIC if SHARP_ENLARGING < step <= 1.1 else cv2.INTER_LINEAR
    moved = (centre[0] - corner[0], centre[1] - corner[1])
    image = _warp(window, _matrix(shape, moved, size), size, method)
    wide = size + 2 * margin
    labels = _warp(sample.labels, _matrix(shape, centre, wide), wide, cv2.INTER_NEAREST)
    return np.asarray(image, np.uint8), np.asarray(labels, np.int32)


def _matrix(shape: Affine, centre: tuple[float, float], size: int) -> Affine:
    """(2, 3) map from patch px to source px, both in pixel-centre coordinates."""
    middle = np.full(2, (size - 1) / 2)
    return np.hstack([shape, (np.asarray(centre) - shape @ middle)[:, None]])


def _warp(source: NDArray[np.integer[Any]], matrix: Affine, size: int, method: int) -> NDArray[np.generic]:
    flags = method | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(source, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REFLECT))


def _source_window(
    image: NDArray[np.uint8], shape: Affine, centre: tuple[float, float], size: int
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """The part of the image that a patch can see, grown by what it sees mirrored, and its (x, y) corner."""
    reach = np.abs(shape).sum(axis=1) * size / 2 + 8
    spans = []
    for middle, half, side in zip(centre, reach, image.shape[1::-1], strict=True):
        beyond = max(0.0, half - middle, middle + half - side)
        spans.append((max(0, math.floor(middle - half - beyond)), min(side, math.ceil(middle + half + beyond) + 1)))
    (x0, x1), (y0, y1) = spans
    return image[y0:y1, x0:x1], (x0, y0)
