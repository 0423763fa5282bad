"""The only place where level-0 px, work px and micrometres are converted into each other.

`l0` is QuPath's frame: level 0 of the slide cut to its bounds (`openslide.bounds-*`), origin top left, pixel (i, j)
covers [i, i+1) x [j, j+1). `w` is the work grid: the same rectangle at about the model's mpp. Both share their origin.
"""

import math
from dataclasses import dataclass

SNAP = 0.05  # a slide level this close to the model's mpp is used as it is: resampling would only blur it


@dataclass(frozen=True, slots=True)
class WorkFrame:
    """The work grid of one slide.

    Attributes:
        l0_width, l0_height: slide size in level-0 px.
        l0_mpp_x, l0_mpp_y: micrometres per level-0 px.
        scale_x, scale_y: level-0 px per work px.
        width, height: work grid size; its last column and row may reach beyond the slide by less than 1 work px.
    """

    l0_width: int
    l0_height: int
    l0_mpp_x: float
    l0_mpp_y: float
    scale_x: float
    scale_y: float

    def __post_init__(self) -> None:
        """Refuse frames without extent."""
        if min(self.l0_width, self.l0_height) < 1 or min(self.scale_x, self.scale_y, self.l0_mpp_x, self.l0_mpp_y) <= 0:
            raise ValueError(f"work frame must have positive sizes and scales, got {self}")

    @property
    def width(self) -> int:
        """Work px columns."""
        return max(1, math.ceil(self.l0_width / self.scale_x - 1e-6))

    @property
    def height(self) -> int:
        """Work px rows."""
        return max(1, math.ceil(self.l0_height / self.scale_y - 1e-6))

    @property
    def mpp_x(self) -> float:
        """Micrometres per work px along x."""
        return self.l0_mpp_x * self.scale_x

    @property
    def mpp_y(self) -> float:
        """Micrometres per work px along y."""
        return self.l0_mpp_y * self.scale_y

    @property
    def mpp(self) -> float:
        """Geometric mean of mpp_x and mpp_y: the one number for lengths that have no direction."""
        return math.sqrt(self.mpp_x * self.mpp_y)


def work_frame(
    l0_size: tuple[int, int], l0_mpp: tuple[float, float], model_mpp: float, downsamples: tuple[float, ...] = (1.0,)
) -> WorkFrame:
    """Lay the work grid of a slide for a model.

    Args:
        l0_size: (width, height) in level-0 px.
        l0_mpp: (x, y) micrometres per level-0 px.
        model_mpp: micrometres per px that the model was trained for.
        downsamples: level-0 px per px of each pyramid level.

    Returns:
        A frame at model_mpp, or at the mpp of a level that is within SNAP of it.
    """
    if model_mpp <= 0:
        raise ValueError(f"model_mpp must be > 0, got {model_mpp}")
    mean_mpp = math.sqrt(l0_mpp[0] * l0_mpp[1])
    nearest = min(downsamples, key=lambda d: abs(math.log(d * mean_mpp / model_mpp)))
    if abs(nearest * mean_mpp / model_mpp - 1) <= SNAP:
        return WorkFrame(*l0_size, *l0_mpp, nearest, nearest)
    return WorkFrame(*l0_size, *l0_mpp, model_mpp / l0_mpp[0], model_mpp / l0_mpp[1])
