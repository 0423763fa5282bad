"""The tissue of a drawn slide without its nuclei: blank glass, glands with lumens, fibrous stroma, vessels.

Everything is a function of the position alone (micrometres from the slide's top left corner) and of the seed, so any
window of the slide can be drawn alone and fits its neighbours exactly.
"""

import math
from typing import NamedTuple

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

TEXTURE_PX = 512  # side of the periodic texture that all fields are looked up in; a power of 2
GRAIN_PX = 6.0  # its correlation length
BLANK, STROMA, EPITHELIUM, LUMEN, VESSEL, LYMPHOID = range(6)
EPITHELIUM_FROM, LUMEN_FROM = 0.15, 1.45  # of the nest field, in standard deviations
VESSEL_FROM, LYMPHOID_FROM = 1.75, 1.0


class Canvas(NamedTuple):
    """What the slide's fields depend on.

    Attributes:
        width_um, height_um: slide size.
        radius: of the tissue's superellipse, 1 = touches the slide's edges; > 2 = tissue everywhere, < -1 = none.
        ragged_um: size of the bays in the tissue's edge.
        angle: main direction of the stroma fibres, radians.
        seed: of all hashes.
        density: factor on the number of nuclei.
        diameter: factor on the size of nuclei.
    """

    width_um: float
    height_um: float
    radius: float
    ragged_um: float
    angle: float
    seed: int
    density: float
    diameter: float


def make_texture(seed: int) -> NDArray[np.float32]:
    """Return smooth periodic noise, float32 (TEXTURE_PX, TEXTURE_PX), mean 0, standard deviation 1."""
    noise = np.random.default_rng(seed).standard_normal((TEXTURE_PX, TEXTURE_PX)).astype(np.float32)
    tiled = cv2.GaussianBlur(np.tile(noise, (3, 3)), (0, 0), GRAIN_PX / 2)
    smooth = tiled[TEXTURE_PX : 2 * TEXTURE_PX, TEXTURE_PX : 2 * TEXTURE_PX]
    return np.ascontiguousarray((smooth - smooth.mean()) / smooth.std())


@njit(cache=True, nogil=True)
def sample(texture: NDArray[np.float32], u: float, v: float) -> float:
    """Look the texture up at (u, v), in units of its correlation length, bilinear and periodic."""
    px, py = u * GRAIN_PX, v * GRAIN_PX
    floor_x, floor_y = math.floor(px), math.floor(py)
    fx, fy = np.float32(px - floor_x), np.float32(py - floor_y)
    mask = TEXTURE_PX - 1
    x0, y0 = int(floor_x) & mask, int(floor_y) & mask
    x1, y1 = (x0 + 1) & mask, (y0 + 1) & mask
    top = texture[y0, x0] + fx * (texture[y0, x1] - texture[y0, x0])
    bottom = texture[y1, x0] + fx * (texture[y1, x1] - texture[y1, x0])
    return float(top + fy * (bottom - top))


@njit(cache=True, nogil=True)
def hashed(seed: int, row: int, col: int, salt: int) -> float:
    """Return a number in [0, 1) that depends on all arguments (splitmix64 by Steele et al., OOPSLA 2014)."""
    z = np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(row) * np.uint64(0xD1B54A32D192ED03)
    z += np.uint64(col) * np.uint64(0xABC98388FB8FAC03) + np.uint64(salt) * np.uint64(0x8CB92BA72F3D8DD7)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return float(z >> np.uint64(11)) * 2.0**-53


@njit(cache=True, nogil=True)
def tissue_depth(canvas: Canvas, texture: NDArray[np.float32], x: float, y: float) -> float:
    """Return how far inside the tissue (x, y) lies, in units of the slide's half size; < 0 is blank glass."""
    if canvas.radius > 2:
        return 1.0
    u, v = 2 * x / canvas.width_um - 1, 2 * y / canvas.height_um - 1
    depth = canvas.radius - math.sqrt(math.sqrt(u**4 + v**4))
    if abs(depth) > 0.3:
        return depth
    bay = sample(texture, x / canvas.ragged_um + 0.3, y / canvas.ragged_um + 0.7)
    return depth + 0.06 * bay + 0.004 * sample(texture, x / 14 + 3.1, y / 14 + 6.2)


@njit(cache=True, nogil=True)
def nest_field(texture: NDArray[np.float32], x: float, y: float) -> float:
    """Return the field whose hills are epithelial nests and whose summits are their lumens."""
    return 0.9 * sample(texture, x / 85 + 11.2, y / 85 + 3.9) + 0.3 * sample(texture, x / 28 + 5.1, y / 28 + 17.4)


@njit(cache=True, nogil=True)
def fibre_across(canvas: Canvas, texture: NDArray[np.float32], x: float, y: float) -> float:
    """Return the coordinate across the stroma fibres, um: fibres run along its level lines."""
    bend = 16 * sample(texture, x / 70 + 2.7, y / 70 + 9.1) + 4 * sample(texture, x / 24 + 13.0, y / 24 + 1.9)
    return y * math.cos(canvas.angle) - x * math.sin(canvas.angle) + bend


@njit(cache=True, nogil=True)
def fibre_angle(canvas: Canvas, texture: NDArray[np.float32], x: float, y: float) -> float:
    """Return the direction of the fibres at (x, y), radians from the x axis towards the y axis."""
    here = fibre_across(canvas, texture, x, y)
    dx, dy = fibre_across(canvas, texture, x + 1, y) - here, fibre_across(canvas, texture, x, y + 1) - here
    return math.atan2(-dx, dy)


@njit(cache=True, nogil=True)
def place(canvas: Canvas, texture: NDArray[np.float32], x: float, y: float) -> int:
    """Tell which kind of place (x, y) is: BLANK, STROMA, EPITHELIUM, LUMEN, VESSEL or LYMPHOID."""
    if tissue_depth(canvas, texture, x, y) <= 0:
        return BLANK
    nest = nest_field(texture, x, y)
    if nest > LUMEN_FROM:
        return LUMEN
    if nest > EPITHELIUM_FROM:
        return EPITHELIUM
    if nest < -0.1 and sample(texture, x / 40 + 7.7, y / 40 + 21.3) > VESSEL_FROM:
        return VESSEL
    return LYMPHOID if sample(texture, x / 75 + 19.1, y / 75 + 8.8) > LYMPHOID_FROM else STROMA


@njit(cache=True, nogil=True)
def _step(value: float, start: float, end: float) -> float:
    """Rise smoothly from 0 at start to 1 at end."""
    t = min(1.0, max(0.0, (value - start) / (end - start)))
    return t * t * (3 - 2 * t)


@njit(cache=True, nogil=True)
def _stroma(canvas: Canvas, texture: NDArray[np.float32], x: float, y: float) -> tuple[float, float]:
    """Return (hematoxylin, eosin) of collagen: wavy fibres, clefts between them."""
    across = fibre_across(canvas, texture, x, y)
    along = x * math.cos(canvas.angle) + y * math.sin(canvas.angle)
    bundle = sample(texture, along / 45, across / 4.5) + 0.6 * sample(texture, x / 120 + 4.4, y / 120)
    fibre = sample(texture, along / 16 + 6.5, across / 1.3 + 2.5)
    fuzz = sample(texture, x / 0.9 + 23.0, y / 0.9 + 29.0)
    cleft = _step(bundle + 0.35 * fibre, -2.3, -1.8)
    return 0.05 * cleft, cleft * max(0.05, 0.32 + 0.06 * bundle + 0.06 * fibre + 0.022 * fuzz)


@njit(cache=True, nogil=True)
def _epithelium(texture: NDArray[np.float32], x: float, y: float, nest: float) -> tuple[float, float]:
    """Return (hematoxylin, eosin) of cytoplasm, apical vacuoles and lumen content."""
    foam = sample(texture, x / 1.1 + 3.3, y / 1.1 + 7.9)
    patch = sample(texture, x / 16 + 9.9, y / 16 + 15.5)
    h, e = 0.15 + 0.03 * foam + 0.05 * patch, 0.24 + 0.03 * foam - 0.04 * patch
    air = _step(nest + 0.05 * foam, LUMEN_FROM - 0.06, LUMEN_FROM + 0.05)
    shrunk = 0.7 * _step(nest + 0.04 * patch, EPITHELIUM_FROM + 0.13, EPITHELIUM_FROM + 0.04)
    keep = (1 - air) * (1 - shrunk * _step(patch, 0.2, 0.9))
    secretion = air * 0.08 * _step(patch + 0.2 * foam, -0.5, 2.2)
    return h * keep + 0.3 * secretion, e * keep + secretion


@njit(cache=True, nogil=True)
def _red_cells(canvas: Canvas, x: float, y: float) -> float:
    """Return the eosin of red blood cells packed on a jittered lattice (they have no nucleus)."""
    cell = 6.5
    col, row = math.floor(x / cell), math.floor(y / cell)
    best = 9.0
    for r in range(row - 1, row + 2):
        for c in range(col - 1, col + 2):
            dx = x - (c + 0.2 + 0.6 * hashed(canvas.seed, r, c, 71)) * cell
            dy = y - (r + 0.2 + 0.6 * hashed(canvas.seed, r, c, 72)) * cell
            if hashed(canvas.seed, r, c, 73) < 0.75:
                best = min(best, math.sqrt(dx * dx + dy * dy) / 3.2)
    return (0.62 - 0.2 * math.exp(-6 * best * best)) * _step(best, 1.06, 0.9)


@njit(cache=True, nogil=True)
def draw_background(
    canvas: Canvas, texture: NDArray[np.float32], origin: tuple[int, int], mpp: float, stains: NDArray[np.float32]
) -> bool:
    """Fill stains (2, H, W), hematoxylin and eosin, for the window at origin (x, y) px; tell if it has tissue."""
    found = False
    for row in range(stains.shape[1]):
        y = (origin[1] + row + 0.5) * mpp
        for col in range(stains.shape[2]):
            x = (origin[0] + col + 0.5) * mpp
            depth = tissue_depth(canvas, texture, x, y)
            if depth <= -0.02:
                continue
            found = True
            h, e = _tissue(canvas, texture, x, y)
            frayed = 1.0 if depth > 0.02 else _step(depth, -0.004, 0.003)
            shade = 1 + 0.07 * sample(texture, x / 400 + 1.5, y / 400 + 2.5)
            stains[0, row, col], stains[1, row, col] = h * frayed * shade, e * frayed * shade
    return found


@njit(cache=True, nogil=True)
def _tissue(canvas: Canvas, texture: NDArray[np.float32], x: float, y: float) -> tuple[float, float]:
    """Return (hematoxylin, eosin) at (x, y) inside the tissue."""
    nest = nest_field(texture, x, y)
    if nest > EPITHELIUM_FROM + 0.05:
        return _epithelium(texture, x, y, nest)
    h, e = _stroma(canvas, texture, x, y)
    if nest > EPITHELIUM_FROM:
        w = (nest - EPITHELIUM_FROM) / 0.05
        inner_h, inner_e = _epithelium(texture, x, y, nest)
        return (1 - w) * h + w * inner_h, (1 - w) * e + w * inner_e
    if nest < -0.1:
        vessel = sample(texture, x / 40 + 7.7, y / 40 + 21.3)
        inside = _step(vessel, VESSEL_FROM - 0.03, VESSEL_FROM + 0.03)
        if inside > 0:
            return h * (1 - inside), e * (1 - inside) + inside * _red_cells(canvas, x, y)
    return h, e
