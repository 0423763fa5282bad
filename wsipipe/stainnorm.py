"""Colour normalisation in front of the model: one transform for each slide, applied to each tile pixel by pixel.

A transform is fitted once, by an optional package, and kept with the slide's plan, so that every tile and every worker
uses the same one and nothing changes at a seam.
"""

import hashlib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from wsipipe.errors import UsageError

NONE = "none"
METHODS = ("macenko", "reinhard", "vahadane")
FITTER = "wsipipe.integrations.tiatoolboxstain"  # imported when a transform is asked for, like the formats of exports
DEFAULT_METHOD = "macenko"  # of a target image named without a method
_MIN_OD = 1e-6  # as TIAToolbox
_LAB_SCALE, _LAB_SHIFT = (2.55, 1.0, 1.0), (0.0, 128.0, 128.0)  # 8-bit LAB = value * scale + shift


@dataclass(frozen=True, slots=True)
class StainNorm:
    """What `--stain-norm` asks for.

    Attributes:
        method: how.
        target: image whose colours are aimed at; None takes the one that TIAToolbox ships.
    """

    method: str
    target: Path | None

    @property
    def identity(self) -> str:
        """Method and content of the target, for the run key."""
        if self.target is None:
            return self.method
        return f"{self.method}@{hashlib.sha256(self.target.read_bytes()).hexdigest()}"


def parse_stain_norm(text: str) -> StainNorm | None:
    """Turn none, METHOD, TARGET.png or METHOD@TARGET.png into what is to be done; None for none.

    Raises:
        UsageError: it is something else, or the image does not exist.
    """
    if text == NONE:
        return None
    method, has_target, target = text.partition("@")
    if method not in METHODS:
        method, has_target, target = DEFAULT_METHOD, "@", text
    if has_target and not Path(target).is_file():
        raise UsageError(
            f"--stain-norm must be none, {', '.join(METHODS)}, an existing image or METHOD@image, got {text!r}"
        )
    return StainNorm(method, Path(target) if has_target else None)


def load_fitter(text: str) -> "Callable[[NDArray[np.uint8]], ColourTransform | None]":
    """Return what fits a transform to a slide: a function of tissue tiles, uint8 (N, 3, S, S) RGB.

    Args:
        text: as `parse_stain_norm` takes it, not none.

    Raises:
        MissingExtraError: the package that it needs is not installed.
    """
    fitter: Callable[[NDArray[np.uint8]], ColourTransform | None]
    fitter = importlib.import_module(FITTER).make_fitter(parse_stain_norm(text))
    return fitter


@dataclass(frozen=True)
class ColourTransform:
    """A transform of RGB that looks at each pixel alone.

    Attributes:
        method: that it was fitted with.
        kind: "density": rgb = 255 exp(-od(rgb) M), 9 values, M row by row; "lab": per channel of LAB (L 0..100, a and b
            around 0) the source's mean, the ratio of the deviations and the target's mean, 3 times 3 values.
        values: see kind.
    """

    method: str
    kind: Literal["density", "lab"]
    values: tuple[float, ...]

    def apply(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return (H, W, 3) uint8 RGB in the target's colours."""
        if self.kind == "density":
            od = cv2.LUT(rgb, _OD)
            return np.asarray(255 * np.exp(-cv2.transform(od, self._matrix))).clip(0, 255).astype(np.uint8)
        lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)
        return np.asarray(cv2.cvtColor(cv2.LUT(lab, self._curves), cv2.COLOR_LAB2RGB), np.uint8)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; `from_json` takes them."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ColourTransform":
        """Return what `to_json` told."""
        return cls(values["method"], values["kind"], tuple(values["values"]))

    @cached_property
    def _matrix(self) -> NDArray[np.float64]:
        """Rows are output channels, as `cv2.transform` wants them."""
        return np.reshape(self.values, (3, 3)).T

    @cached_property
    def _curves(self) -> NDArray[np.uint8]:
        """What becomes of each 8-bit LAB value, (1, 256, 3) uint8."""
        levels = np.arange(256, dtype=np.float32)
        curves = []
        for (mean, ratio, target), scale, shift in zip(
            np.reshape(self.values, (3, 3)).tolist(), _LAB_SCALE, _LAB_SHIFT, strict=True
        ):
            value = ((levels - np.float32(shift)) / np.float32(scale) - mean) * ratio + target
            curves.append(np.clip(value * scale + shift, 0, 255).astype(np.uint8))
        return np.stack(curves, axis=-1)[None]


_OD = np.maximum(-np.log(np.maximum(np.arange(256), 1) / 255), _MIN_OD)  # optical density, natural logarithm
