"""Paint any window of a drawn H&E slide, and the exact labels of its nuclei."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

from wsipipe.drawnfield import Canvas, draw_background, hashed, make_texture, sample
from wsipipe.drawnnuclei import nuclei_near, radius_at
from wsipipe.grid import Box

# optical density (R, G, B) per unit of stain, chosen by eye beside scanned slides
HEMATOXYLIN = np.array([0.630, 0.710, 0.315], np.float32)
EOSIN = np.array([0.165, 0.840, 0.515], np.float32)
GLASS = np.array([243.0, 242.0, 244.0], np.float32)  # blank background, RGB
BLUR_UM = 0.22  # sigma of the optics
NOISE = 2.2  # sigma of the camera, grey levels
CHROMATIN_UM = 0.55  # size of its grains
DEBRIS_UM = 26.0  # lattice spacing of apoptotic bits


@dataclass(frozen=True)
class DemoSpec:
    """What to draw.

    Attributes:
        width, height: level-0 px.
        mpp: micrometres per level-0 px; everything is drawn in um.
        flavour: "aperio" (an SVS with levels 1, 4, 16) or "generic" (a tiled TIFF with levels 1, 2, 4, ...).
        seed: another seed, another slide.
        density: factor on the number of nuclei.
        diameter: factor on their size.
        tissue: part of the slide that is tissue, 0..1; 1 leaves no blank background.
        has_mpp: whether the file says its mpp.
        quality: of the JPEG tiles.
    """

    width: int
    height: int
    mpp: float = 0.25
    flavour: Literal["aperio", "generic"] = "aperio"
    seed: int = 0
    density: float = 1.0
    diameter: float = 1.0
    tissue: float = 0.7
    has_mpp: bool = True
    quality: int = 70

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        if min(self.width, self.height) < 1:
            raise ValueError(f"a slide must be at least 1 x 1 px, got {self.width} x {self.height}")
        if min(self.mpp, self.density, self.diameter) <= 0 or not 0 <= self.tissue <= 1:
            raise ValueError(f"mpp, density and diameter must be > 0 and tissue in 0..1, got {self}")
        if self.flavour not in ("aperio", "generic"):
            raise ValueError(f"flavour must be 'aperio' or 'generic', got {self.flavour!r}")


@dataclass(frozen=True, slots=True)
class Painted:
    """One window. rgb: uint8 (h, w, 3). labels: uint32 (h, w), 0 = background; an id is one nucleus of the slide.

    n_nuclei: nuclei whose centre lies in the window, so that windows add up.
    """

    rgb: NDArray[np.uint8]
    labels: NDArray[np.uint32]
    n_nuclei: int


class Painter:
    """Paints windows of one slide; a pixel never depends on the window asked for."""

    def __init__(self, spec: DemoSpec) -> None:
        """Prepare the slide's noise and layout."""
        self.spec = spec
        width_um, height_um = spec.width * spec.mpp, spec.height * spec.mpp
        # a superellipse |u|^4 + |v|^4 < r^4 fills 0.927 r^2 of its square
        radius = {0.0: -9.0, 1.0: 9.0}.get(float(spec.tissue), math.sqrt(spec.tissue / 0.927))
        ragged = min(400.0, max(40.0, min(width_um, height_um) / 5))
        angle = 2 * math.pi * hashed(spec.seed, 0, 0, 90)
        self._canvas = Canvas(width_um, height_um, radius, ragged, angle, spec.seed, spec.density, spec.diameter)
        self._texture = make_texture(spec.seed)

    @cached_property
    def _noise(self) -> NDArray[np.float32]:
        noise = np.random.default_rng([self.spec.seed, 1]).normal(0, NOISE, (521, 509, 3))
        return noise.astype(np.float32)

    def paint(self, box: Box) -> Painted:
        """Paint a window of level-0 px that lies inside the slide."""
        mpp = self.spec.mpp
        pad = math.ceil(4 * BLUR_UM / mpp)
        wide = Box(box.x0 - pad, box.y0 - pad, box.x1 + pad, box.y1 + pad)
        stains = np.zeros((2, wide.height, wide.width), np.float32)
        labels = np.zeros((wide.height, wide.width), np.uint32)
        n_nuclei = 0
        if draw_background(self._canvas, self._texture, (wide.x0, wide.y0), mpp, stains):
            window_um = (wide.x0 * mpp, wide.y0 * mpp, wide.x1 * mpp, wide.y1 * mpp)
            nuclei = nuclei_near(self._canvas, self._texture, window_um)
            size = (self.spec.width, self.spec.height)
            _draw_nuclei(nuclei, self._texture, (wide.x0, wide.y0), size, mpp, labels, stains)
            _draw_debris(self._canvas, (wide.x0, wide.y0), mpp, stains)
            n_nuclei = self._count(nuclei, labels, wide, box)
        inner = box.slices(wide)
        return Painted(self._develop(stains, box, inner), np.ascontiguousarray(labels[inner]), n_nuclei)

    def _count(self, nuclei: NDArray[Any], labels: NDArray[np.uint32], wide: Box, box: Box) -> int:
        col = np.floor(nuclei["x"] / self.spec.mpp).astype(np.int64)
        row = np.floor(nuclei["y"] / self.spec.mpp).astype(np.int64)
        inside = (col >= box.x0) & (col < box.x1) & (row >= box.y0) & (row < box.y1)
        return int(np.sum(labels[row[inside] - wide.y0, col[inside] - wide.x0] == nuclei["id"][inside]))

    def _develop(self, stains: NDArray[np.float32], box: Box, inner: tuple[slice, slice]) -> NDArray[np.uint8]:
        """Turn stain amounts into light (Beer-Lambert), blur it, add the camera's noise."""
        amount = stains.transpose(1, 2, 0) @ np.stack([HEMATOXYLIN, EOSIN])  # (h, w, 2) -> (h, w, 3) optical density
        light = GLASS * np.exp(np.float32(-math.log(10)) * amount)
        light = cv2.GaussianBlur(light, (0, 0), BLUR_UM / self.spec.mpp)[inner]
        rows = np.arange(box.y0, box.y1) % self._noise.shape[0]
        cols = np.arange(box.x0, box.x1) % self._noise.shape[1]
        rgb: NDArray[np.uint8] = np.clip(light + self._noise[rows[:, None], cols] + 0.5, 0, 255).astype(np.uint8)
        return rgb


@njit(cache=True, nogil=True)
def _own_pixels(
    nuclei: NDArray[Any],
    i: int,
    near: NDArray[np.int64],
    corner: tuple[int, int],
    mpp: float,
    radius: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Tell which pixels of a patch belong to nucleus i: inside its outline, and not deeper inside a neighbour's.

    The patch's top left px is corner (x, y); radius is filled with `radius_at`. Only the 4-connected part around the
    centre is returned.
    """
    height, width = radius.shape
    mine = np.zeros((height, width), np.bool_)
    for r in range(height):
        y = (corner[1] + r + 0.5) * mpp
        for c in range(width):
            x = (corner[0] + c + 0.5) * mpp
            radius[r, c] = radius_at(nuclei[i], x, y)
            mine[r, c] = radius[r, c] < 1
            for j in near:
                if not mine[r, c]:
                    break
                other = radius_at(nuclei[j], x, y)
                mine[r, c] = radius[r, c] < other or (radius[r, c] == other and i < j)
    row, col = int(nuclei[i].y / mpp) - corner[1], int(nuclei[i].x / mpp) - corner[0]
    return _connected(mine, row, col)


@njit(cache=True, nogil=True)
def _connected(mask: NDArray[np.bool_], row: int, col: int) -> NDArray[np.bool_]:
    """Return the 4-connected part of mask around (row, col); nothing if that is False."""
    kept = np.zeros_like(mask)
    stack = [(row, col)]
    while stack:
        r, c = stack.pop()
        if 0 <= r < mask.shape[0] and 0 <= c < mask.shape[1] and mask[r, c] and not kept[r, c]:
            kept[r, c] = True
            stack.append((r + 1, c))
            stack.append((r - 1, c))
            stack.append((r, c + 1))
            stack.append((r, c - 1))
    return kept


@njit(cache=True, nogil=True)
def _draw_nuclei(
    nuclei: NDArray[Any],
    texture: NDArray[np.float32],
    origin: tuple[int, int],
    size: tuple[int, int],
    mpp: float,
    labels: NDArray[np.uint32],
    stains: NDArray[np.float32],
) -> None:
    """Draw nuclei into the window at origin (x, y) px of a slide of size (width, height) px."""
    height, width = labels.shape
    body = np.zeros((height, width), np.float32)
    for i in range(len(nuclei)):
        nucleus = nuclei[i]
        reach = max(nucleus.a, nucleus.b) * 1.16 + abs(nucleus.bend) * nucleus.a**2 + 1.0
        x0, x1 = max(0, int((nucleus.x - reach) / mpp)), min(size[0], int((nucleus.x + reach) / mpp) + 1)
        y0, y1 = max(0, int((nucleus.y - reach) / mpp)), min(size[1], int((nucleus.y + reach) / mpp) + 1)
        if x0 >= origin[0] + width or y0 >= origin[1] + height or x1 <= origin[0] or y1 <= origin[1]:
            continue
        dx, dy = nuclei["x"] - nucleus.x, nuclei["y"] - nucleus.y
        near = np.flatnonzero(dx * dx + dy * dy < (nucleus.a + nuclei["a"] + 2.5) ** 2)
        radius = np.empty((y1 - y0, x1 - x0), np.float64)
        mine = _own_pixels(nuclei, i, near[near != i], (x0, y0), mpp, radius)
        for row in range(max(y0, origin[1]), min(y1, origin[1] + height)):
            for col in range(max(x0, origin[0]), min(x1, origin[0] + width)):
                r, c = row - origin[1], col - origin[0]
                if mine[row - y0, col - x0]:
                    labels[r, c] = nucleus.id
                od, cover = _nuclear_stain(
                    nucleus, texture, (col + 0.5) * mpp, (row + 0.5) * mpp, radius[row - y0, col - x0]
                )
                body[r, c] = max(body[r, c], np.float32(od * cover))
                stains[1, r, c] *= np.float32(1 - 0.35 * cover)
    for r in range(height):
        for c in range(width):
            stains[0, r, c] = max(stains[0, r, c], body[r, c] + 0.4 * stains[0, r, c])


@njit(cache=True, nogil=True)
def _nuclear_stain(
    nucleus: Any, texture: NDArray[np.float32], x: float, y: float, radius: float
) -> tuple[float, float]:
    """Return the hematoxylin of a nucleus at (x, y), and how much of the pixel it covers."""
    dx, dy = x - nucleus.x, y - nucleus.y
    inward = math.sqrt(dx * dx + dy * dy) * (1 / max(radius, 0.05) - 1) if radius > 0.05 else nucleus.b
    cover = 1 / (1 + math.exp(min(40.0, -inward / (0.5 * nucleus.edge_um))))
    if cover < 0.01:
        return 0.0, 0.0
    grain = sample(texture, x / CHROMATIN_UM, y / CHROMATIN_UM) + 0.6 * sample(texture, x / 1.4 + 9.3, y / 1.4)
    od = nucleus.od + nucleus.chromatin * grain + nucleus.rim * math.exp(-((inward / 0.55) ** 2))
    if nucleus.nucleolus > 0:
        u, v = dx - 0.25 * nucleus.a * nucleus.cos, dy - 0.3 * nucleus.b * nucleus.sin
        od += nucleus.nucleolus * math.exp(-(((u * u + v * v) / 0.55) ** 2))
    return max(0.1, od), cover


@njit(cache=True, nogil=True)
def _draw_debris(canvas: Canvas, origin: tuple[int, int], mpp: float, stains: NDArray[np.float32]) -> None:
    """Scatter apoptotic bits and pigment, which are no nuclei, over tissue; many are over nuclei."""
    height, width = stains.shape[1], stains.shape[2]
    reach = 2.0
    first_row, first_col = int((origin[1] * mpp - reach) // DEBRIS_UM), int((origin[0] * mpp - reach) // DEBRIS_UM)
    last_row = int(((origin[1] + height) * mpp + reach) // DEBRIS_UM)
    last_col = int(((origin[0] + width) * mpp + reach) // DEBRIS_UM)
    for row in range(first_row, last_row + 1):
        for col in range(first_col, last_col + 1):
            if hashed(canvas.seed, row, col, 60) > 0.45:
                continue
            x, y = (
                (col + hashed(canvas.seed, row, col, 61)) * DEBRIS_UM,
                (row + hashed(canvas.seed, row, col, 62)) * DEBRIS_UM,
            )
            size = 0.35 + 0.85 * hashed(canvas.seed, row, col, 63) ** 2
            for r in range(
                max(0, int((y - reach) / mpp) - origin[1]), min(height, int((y + reach) / mpp) + 2 - origin[1])
            ):
                for c in range(
                    max(0, int((x - reach) / mpp) - origin[0]), min(width, int((x + reach) / mpp) + 2 - origin[0])
                ):
                    dx, dy = (origin[0] + c + 0.5) * mpp - x, (origin[1] + r + 0.5) * mpp - y
                    cover = 1 / (1 + math.exp(min(40.0, (math.sqrt(dx * dx + dy * dy) - size) / 0.12)))
                    if stains[1, r, c] > 0.02:
                        stains[0, r, c] += np.float32(0.8 * cover)
