"""How many micrometres one level-0 px is, and when that number is not to be trusted.

The order is: what the user passed > the slide's own property > an error. Nothing is ever assumed.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wsipipe.errors import ScaleError, UsageError

MPP_RANGE = (0.05, 2.0)  # um per px of anything that was scanned to see nuclei
MAX_ANISOTROPY = 0.01  # x and y may differ by this share
MAX_POWER_CONFLICT = 0.30  # mpp may differ from 10 / objective power by this share
UM_POWER = 10.0  # um per px times objective power on common scanners: 40x is about 0.25 mpp
MAX_UPSAMPLING = 2.5  # a slide coarser than the model by more than this holds no nuclei that the model knows


@dataclass(frozen=True, slots=True)
class Mpp:
    """Micrometres per level-0 px, and who said so. stated: what the slide says, where the user passed a value."""

    x: float
    y: float
    source: Literal["option", "slide"]
    stated: float | None = None

    @property
    def mean(self) -> float:
        """Geometric mean of x and y."""
        return math.sqrt(self.x * self.y)


def slide_mpp(properties: Mapping[str, str], override: float | None, path: Path) -> Mpp:
    """Decide the slide's mpp.

    Args:
        properties: OpenSlide's.
        override: what the user passed for this slide, or None. It wins over everything, plausible or not.
        path: named in the error.

    Raises:
        ScaleError: no mpp, or one that is implausible or contradicts the objective power.
        UsageError: override is not a positive number.
    """
    x, y = (_positive(properties.get(f"openslide.mpp-{axis}")) for axis in "xy")
    if override is not None:
        if not (math.isfinite(override) and override > 0):
            raise UsageError(f"mpp must be a positive number of micrometres per px, got {override}: {path}")
        return Mpp(override, override, "option", x)
    if x is None or y is None:
        raise ScaleError(
            f"slide does not tell its mpp (micrometres per px); pass it, e.g. --mpp 0.25 for a 40x scan: {path}"
        )
    doubt = _doubt(x, y, objective_power(properties))
    if doubt:
        raise ScaleError(f"{doubt}; if you know the right value, pass it, e.g. --mpp 0.25 for a 40x scan: {path}")
    return Mpp(x, y, "slide")


def override_flags(mpp: Mpp) -> tuple[str, ...]:
    """Return a short text if what the user passed is far from a plausible value that the slide states."""
    low, high = MPP_RANGE
    if mpp.stated is None or not low <= mpp.stated <= high:
        return ()
    if abs(mpp.x / mpp.stated - 1) <= MAX_POWER_CONFLICT:
        return ()
    return (f"mpp {mpp.x:g} was passed, the slide says {mpp.stated:g}; check which is right",)


def parse_mpp(text: str, where: str) -> float:
    """Turn text into micrometres per px.

    Args:
        text: as the user wrote it.
        where: it stood, for the error.

    Raises:
        UsageError: it is no positive number.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isfinite(value) and value > 0:
        return value
    hint = f"; write a point: {text.replace(',', '.')}" if re.fullmatch(r"\s*\d*,\d+\s*", text) else ", e.g. 0.25"
    raise UsageError(f"{where} must be a positive number of micrometres per px{hint}, got {text!r}")


def objective_power(properties: Mapping[str, str]) -> float | None:
    """Return the objective's magnification as the slide tells it, or None."""
    return _positive(properties.get("openslide.objective-power"))


def check_scale(
    l0_mpp: tuple[float, float], model_mpp: float, *, allow_upsampling: bool = False, path: Path | None = None
) -> None:
    """Refuse a slide that is much coarser than the model was trained for.

    Args:
        l0_mpp: the slide's (x, y) micrometres per level-0 px.
        model_mpp: what the model wants.
        allow_upsampling: let it pass.
        path: named in the error.

    Raises:
        ScaleError: the slide is coarser by more than MAX_UPSAMPLING.
    """
    mpp = math.sqrt(l0_mpp[0] * l0_mpp[1])
    if allow_upsampling or mpp <= MAX_UPSAMPLING * model_mpp:
        return
    raise ScaleError(
        f"slide has {mpp:g} mpp, {mpp / model_mpp:.1f} times coarser than the model's {model_mpp:g}"
        f" (limit {MAX_UPSAMPLING:g}); use a model for coarser slides, or pass --allow-upsampling"
        + (f": {path}" if path else "")
    )


def _positive(text: str | None) -> float | None:
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def _doubt(x: float, y: float, power: float | None) -> str | None:
    if max(x, y) > min(x, y) * (1 + MAX_ANISOTROPY + 1e-9):
        return f"mpp must be the same in x and y within {MAX_ANISOTROPY:.0%}, slide says {x:g} and {y:g}"
    low, high = MPP_RANGE
    if not (low <= x <= high and low <= y <= high):
        return f"mpp must be {low:g} to {high:g}, slide says {x:g}"
    if power is None:
        return None
    expected = UM_POWER / power
    if abs(x / expected - 1) > MAX_POWER_CONFLICT:
        return (
            f"mpp {x:g} contradicts the objective power {power:g}x"
            f" (expected about {expected:g} mpp, within {MAX_POWER_CONFLICT:.0%})"
        )
    return None
