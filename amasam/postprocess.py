"""From the model's maps to instances: local, deterministic, exact in windows (`wsipipe.instances`).

The foreground is a threshold. Touching nuclei are split along the valleys of a height map: the predicted distance to
the edge of the nucleus, lowered where a boundary is predicted. A valley shallower than `h` splits nothing (h-maxima).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wsipipe.errors import ModelError
from wsipipe.grid import ALL_SIDES, Sides
from wsipipe.instances import SplitRules, split_instances
from wsipipe.relief import MAX_SMOOTH_PX
from wsipipe.segmenter import InstanceWindow

Height = Literal["foreground", "distance", "distance_boundary"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PostConfig:
    """Parameters of the post-processing, stored in the checkpoint.

    Attributes:
        threshold: foreground probability from which a pixel belongs to a nucleus.
        height: what is split along its valleys; "distance_boundary" = distance * (1 - boundary).
        h: depth of a valley that separates two nuclei, 0..1 of the height.
        smooth_um: radius of the binomial blur of the height map; at most 8 px.
        min_area_um2: smaller instances are dropped.
        fill_holes_um2: background holes up to this area are filled before splitting.
    """

    threshold: float = 0.5
    height: Height = "distance"
    h: float = 0.2
    smooth_um: float = 0.25
    min_area_um2: float = 8.0
    fill_holes_um2: float = 4.0

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        if not 0 < self.threshold < 1 or not 0 <= self.h <= 1:
            raise ValueError(f"threshold must be in (0, 1) and h in 0..1, got {self.threshold} and {self.h}")
        if min(self.smooth_um, self.min_area_um2, self.fill_holes_um2) < 0:
            raise ValueError(f"lengths and areas must be >= 0, got {self}")

    def as_table(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)

    def rules(self, mpp: float) -> SplitRules:
        """Convert to px and uint8 units at `mpp` micrometres per px."""
        area = mpp * mpp
        return SplitRules(
            threshold=max(1, round(self.threshold * 255)),
            h=max(1, round(self.h * 255)),
            smooth_px=min(MAX_SMOOTH_PX, round(self.smooth_um / mpp)),
            min_area_px=max(1, round(self.min_area_um2 / area)),
            fill_holes_px=round(self.fill_holes_um2 / area),
        )


def height_map(maps: NDArray[np.uint8], names: Sequence[str], height: Height) -> NDArray[np.uint8]:
    """Combine maps into the one whose valleys separate nuclei.

    Args:
        maps: uint8 (C, H, W), value / 255 = probability or height.
        names: of the C maps; the first is "foreground".
        height: which combination.

    Returns:
        uint8 (H, W); a view of maps where one map alone is the height.
    """
    needed = ["foreground"] if height == "foreground" else height.split("_")
    missing = [name for name in needed if name not in names]
    if missing:
        raise ModelError(f"post-processing with height {height!r} needs the map {missing[0]!r}; the model has {names}")
    first: NDArray[np.uint8] = maps[names.index(needed[0])]
    if height != "distance_boundary":
        return first
    inside = 255 - maps[names.index("boundary")].astype(np.uint16)
    return np.asarray((first * inside + 127) // 255, np.uint8)


def find_instances(
    maps: NDArray[np.uint8], names: Sequence[str], config: PostConfig, *, mpp: float, sides: Sides = ALL_SIDES
) -> InstanceWindow:
    """Find nuclei in a window of maps.

    Args:
        maps: uint8 (C, H, W).
        names: of the C maps; the first is "foreground".
        config: parameters in micrometres.
        mpp: of the maps.
        sides: which sides of the window are the edge of the whole map.
    """
    height = np.ascontiguousarray(height_map(maps, names, config.height))
    return split_instances(np.ascontiguousarray(maps[0]), height, config.rules(mpp), sides)
