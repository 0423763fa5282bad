"""Make one image look as if another laboratory had stained it and another scanner had read it."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from wsipipe.stain import QUPATH_HE, od_table

Rgb = NDArray[np.uint8]

_BINS_PER_OD = 2048
_INTENSITY = np.round(255 * 10.0 ** (-np.arange(3 * _BINS_PER_OD) / _BINS_PER_OD)).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class ColourConfig:
    """How far colours and sharpness vary; 0 switches a part off.

    Attributes:
        stain_scale: spread (log-uniform, +-) of the strength of hematoxylin and of eosin, drawn apart.
        stain_shift: largest constant OD added to each stain.
        stain_turn: standard deviation of each component of the stain vectors that recompose the image.
        contrast, brightness, gamma: spread of the tone curve (brightness in 1/255, gamma log-uniform).
        tint: spread of the gain of each channel.
        blur, sharpen, noise, jpeg, coarse, grey: probabilities.
        blur_px, noise_level: largest Gaussian sigma, largest noise sd (1/255).
        coarse_factor: largest loss of resolution.
        jpeg_quality: range.
    """

    stain_scale: float = 0.38
    stain_shift: float = 0.04
    stain_turn: float = 0.035
    contrast: float = 0.15
    brightness: float = 15.0
    gamma: float = 0.2
    tint: float = 0.05
    blur: float = 0.2
    sharpen: float = 0.15
    noise: float = 0.15
    jpeg: float = 0.25
    coarse: float = 0.25
    grey: float = 0.05
    blur_px: float = 1.3
    noise_level: float = 8.0
    coarse_factor: float = 2.4
    jpeg_quality: tuple[int, int] = (40, 95)


def jitter_colour(image: Rgb, rng: np.random.Generator, config: ColourConfig) -> Rgb:
    """Change stain, tone and sharpness at random, the pixels' places never.

    Args:
        image: uint8 (H, W, 3) RGB.
        rng: consumed.
        config: strengths.

    Returns:
        A new image of the same shape.
    """
    image = restain(image, *_draw_stain(rng, config))
    image = _as_rgb(cv2.LUT(image, _draw_tones(rng, config)))
    chance = rng.random(6)
    if chance[0] < config.grey:
        image = _fade(image, rng.uniform(0.3, 0.95))
    if chance[1] < config.coarse:
        image = _lose_resolution(image, config.coarse_factor ** rng.uniform(0.3, 1.0))
    if chance[2] < config.blur:
        image = _blur(image, rng.uniform(0.3, config.blur_px))
    elif chance[3] < config.sharpen:
        gain = rng.uniform(0.3, 1.2)
        image = _as_rgb(cv2.addWeighted(image, 1 + gain, _blur(image, 1.0), -gain, 0))
    if chance[4] < config.noise:
        grain = rng.standard_normal(image.shape, np.float32) * np.float32(rng.uniform(1.0, config.noise_level))
        image = _as_rgb(cv2.add(image, grain, dtype=cv2.CV_8U))
    if chance[5] < config.jpeg:
        image = _recompress(image, int(rng.integers(config.jpeg_quality[0], config.jpeg_quality[1] + 1)))
    return image


def restain(image: Rgb, matrix: NDArray[np.float32], shift: NDArray[np.float32]) -> Rgb:
    """Apply an affine map to the optical densities of an image.

    Args:
        image: uint8 (H, W, 3) RGB.
        matrix: float32 (3, 3); od_out[k] = sum_j od_in[j] * matrix[j, k] + shift[k].
        shift: float32 (3,) in OD.

    Returns:
        uint8 (H, W, 3); densities below 0 become white.
    """
    return np.asarray(_restain(np.ascontiguousarray(image), matrix, shift, od_table(), _INTENSITY))


def _draw_stain(rng: np.random.Generator, config: ColourConfig) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Unmix into hematoxylin, eosin and rest, change amounts, recompose with slightly turned vectors."""
    stains = _with_rest(np.array([QUPATH_HE.hematoxylin, QUPATH_HE.eosin]))
    turned = _with_rest(stains[:2] + rng.normal(0, config.stain_turn, (2, 3)))
    amount = np.ones(3)
    amount[:2] = np.exp(rng.uniform(-config.stain_scale, config.stain_scale, 2))
    shift = np.zeros(3)
    shift[:2] = rng.uniform(-config.stain_shift, config.stain_shift, 2)
    matrix = np.linalg.inv(stains) @ np.diag(amount) @ turned
    return matrix.astype(np.float32), (shift @ turned).astype(np.float32)


def _with_rest(stains: NDArray[np.float64]) -> NDArray[np.float64]:
    """Two stain vectors as unit rows, and the direction that neither explains."""
    unit = stains / np.linalg.norm(stains, axis=1, keepdims=True)
    rest = np.cross(unit[0], unit[1])
    return np.vstack([unit, rest / np.linalg.norm(rest)])


def _draw_tones(rng: np.random.Generator, config: ColourConfig) -> Rgb:
    """Brightness, contrast, gamma and channel gains as one table, uint8 (1, 256, 3)."""
    gamma = math.exp(rng.uniform(-config.gamma, config.gamma))
    contrast = 1 + rng.uniform(-config.contrast, config.contrast)
    brightness = rng.uniform(-config.brightness, config.brightness)
    gain = 1 + rng.uniform(-config.tint, config.tint, 3)
    tone = 255 * (np.arange(256) / 255) ** gamma
    tone = (tone - 180) * contrast + 180 + brightness  # 180: about the mean of an H&E image
    return np.clip(np.round(tone[None, :, None] * gain), 0, 255).astype(np.uint8)


def _as_rgb(pixels: object) -> Rgb:
    """OpenCV's result as the uint8 array that it is."""
    return np.asarray(pixels, np.uint8)


def _blur(image: Rgb, sigma: float) -> Rgb:
    return _as_rgb(cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT))


def _fade(image: Rgb, amount: float) -> Rgb:
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return _as_rgb(cv2.addWeighted(image, 1 - amount, grey, amount, 0))


def _lose_resolution(image: Rgb, factor: float) -> Rgb:
    """Average down and enlarge bilinearly: a slide scanned at a coarser mpp and read at the model's."""
    height, width = image.shape[:2]
    small = cv2.resize(image, (round(width / factor), round(height / factor)), interpolation=cv2.INTER_AREA)
    return _as_rgb(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR))


def _recompress(image: Rgb, quality: int) -> Rgb:
    _, code = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return _as_rgb(cv2.imdecode(code, cv2.IMREAD_COLOR_RGB))


@njit(cache=True, nogil=True)
def _restain(image, matrix, shift, od_of, intensity_of):  # type: ignore[no-untyped-def]  # pragma: no cover
    out = np.empty_like(image)
    last = len(intensity_of) - 1
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            red, green, blue = od_of[image[y, x, 0]], od_of[image[y, x, 1]], od_of[image[y, x, 2]]
            for k in range(3):
                od = red * matrix[0, k] + green * matrix[1, k] + blue * matrix[2, k] + shift[k]
                bin_ = int(od * np.float32(_BINS_PER_OD) + np.float32(0.5)) if od > 0 else 0
                out[y, x, k] = intensity_of[min(bin_, last)]
    return out
