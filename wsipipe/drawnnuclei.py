"""Nuclei of a drawn slide: where they lie, how they look, which pixels are theirs.

Each cell of a lattice holds one candidate, hashed from (seed, cell); candidates in each other's way are thinned by
rules that look only a fixed distance far. So a window drawn alone has the very nuclei that the slide has there.
"""

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from wsipipe.drawnfield import (
    BLANK,
    EPITHELIUM,
    EPITHELIUM_FROM,
    LUMEN,
    LUMEN_FROM,
    LYMPHOID,
    VESSEL,
    Canvas,
    fibre_angle,
    hashed,
    nest_field,
    place,
    sample,
)

CELL_UM = 4.5  # lattice spacing at diameter 1
REACH_UM = 11.0  # no nucleus reaches farther from its centre, at diameter 1
HOP_UM = 18.0  # nor do two whose centres are farther apart ever meet
ROUNDS = 3  # of thinning, each of two hops

NUCLEUS = np.dtype(
    [
        ("id", np.uint32),  # 1 + lattice row * lattice columns + lattice column
        ("rank", np.float64),  # the smaller one stays
        ("x", np.float64),
        ("y", np.float64),
        ("a", np.float64),  # half axes, um
        ("b", np.float64),
        ("cos", np.float64),  # direction of a
        ("sin", np.float64),
        ("bend", np.float64),  # of the long axis, 1 / um
        ("oval", np.float64),  # second and third harmonics of the outline
        ("lobe", np.float64),
        ("od", np.float64),  # hematoxylin of its body
        ("chromatin", np.float64),  # contrast of its chromatin
        ("rim", np.float64),  # extra hematoxylin at its membrane
        ("nucleolus", np.float64),  # extra hematoxylin of its nucleolus
        ("edge_um", np.float64),  # softness of its edge: tilt and focus
    ]
)


@njit(cache=True, nogil=True)
def _between(low: float, high: float, t: float) -> float:
    return low + (high - low) * t


@njit(cache=True, nogil=True)
def _epithelial(nucleus: Any, canvas: Canvas, texture: NDArray[np.float32], cell: tuple[int, int]) -> None:
    """Vesicular to dark, oval, standing on the nest's border or the lumen's; a few are huge."""
    row, col = cell
    x, y = nucleus.x, nucleus.y
    nest = nest_field(texture, x, y)
    size = _between(3.3, 4.9, hashed(canvas.seed, row, col, 10))
    if hashed(canvas.seed, row, col, 11) < 0.03:
        size = _between(6.0, 7.8, hashed(canvas.seed, row, col, 10))
    nucleus.a, nucleus.b = size, size * _between(0.62, 0.97, hashed(canvas.seed, row, col, 12))
    angle = 2 * math.pi * hashed(canvas.seed, row, col, 13)
    if nest < EPITHELIUM_FROM + 0.25 or nest > LUMEN_FROM - 0.3:
        dx, dy = nest_field(texture, x + 1, y) - nest, nest_field(texture, x, y + 1) - nest
        angle = math.atan2(dy, dx) + 0.5 * (hashed(canvas.seed, row, col, 13) - 0.5)
        nucleus.b *= 0.88
    nucleus.cos, nucleus.sin = math.cos(angle), math.sin(angle)
    dark = hashed(canvas.seed, row, col, 14) + 0.35 * sample(texture, x / 130 + 31.0, y / 130 + 12.0)
    nucleus.od = _between(0.30, 0.72, min(1.0, max(0.0, dark)))
    nucleus.chromatin = _between(0.07, 0.16, hashed(canvas.seed, row, col, 15))
    nucleus.rim = _between(0.05, 0.24, hashed(canvas.seed, row, col, 16))
    nucleus.nucleolus = 0.35 if hashed(canvas.seed, row, col, 17) < 0.45 else 0.0


@njit(cache=True, nogil=True)
def _lymphocyte(nucleus: Any, canvas: Canvas, cell: tuple[int, int]) -> None:
    """Small, round, dark, clumped chromatin."""
    row, col = cell
    nucleus.a = _between(2.5, 3.3, hashed(canvas.seed, row, col, 10))
    nucleus.b = nucleus.a * _between(0.82, 1.0, hashed(canvas.seed, row, col, 12))
    angle = 2 * math.pi * hashed(canvas.seed, row, col, 13)
    nucleus.cos, nucleus.sin = math.cos(angle), math.sin(angle)
    nucleus.od = _between(0.62, 1.05, hashed(canvas.seed, row, col, 14))
    nucleus.chromatin = 0.15


@njit(cache=True, nogil=True)
def _spindle(nucleus: Any, canvas: Canvas, texture: NDArray[np.float32], cell: tuple[int, int]) -> None:
    """Thin, long, along the fibres, often bent: fibroblasts and endothelium."""
    row, col = cell
    nucleus.a = _between(4.5, 8.5, hashed(canvas.seed, row, col, 10))
    nucleus.b = _between(1.25, 2.2, hashed(canvas.seed, row, col, 12))
    angle = fibre_angle(canvas, texture, nucleus.x, nucleus.y) + 0.5 * (hashed(canvas.seed, row, col, 13) - 0.5)
    nucleus.cos, nucleus.sin = math.cos(angle), math.sin(angle)
    nucleus.bend = 0.07 * (hashed(canvas.seed, row, col, 18) - 0.5)
    nucleus.od = _between(0.45, 0.95, hashed(canvas.seed, row, col, 14))
    nucleus.chromatin = 0.09
    nucleus.rim = 0.06


@njit(cache=True, nogil=True)
def _fill(nucleus: Any, canvas: Canvas, texture: NDArray[np.float32], cell: tuple[int, int]) -> bool:
    """Decide whether this lattice cell has a candidate, and what it is; x and y are set already."""
    row, col = cell
    where = place(canvas, texture, nucleus.x, nucleus.y)
    chance, kind = hashed(canvas.seed, row, col, 3) / canvas.density, hashed(canvas.seed, row, col, 4)
    if where in (BLANK, VESSEL) or (where == LUMEN and chance > 0.012):
        return False
    nucleus.bend = nucleus.rim = nucleus.nucleolus = 0.0
    if where == EPITHELIUM:
        if chance > 0.72:
            return False
        if kind < 0.94:
            _epithelial(nucleus, canvas, texture, cell)
        else:
            _lymphocyte(nucleus, canvas, cell)
    elif where == LYMPHOID:
        if chance > 0.95:
            return False
        _lymphocyte(nucleus, canvas, cell)
    else:
        if chance > 0.085:
            return False
        if kind < 0.72 and where != LUMEN:
            _spindle(nucleus, canvas, texture, cell)
        else:
            _lymphocyte(nucleus, canvas, cell)
    nucleus.a *= canvas.diameter
    nucleus.b *= canvas.diameter
    nucleus.bend /= canvas.diameter
    nucleus.oval = 0.10 * (hashed(canvas.seed, row, col, 19) - 0.5)
    nucleus.lobe = 0.14 * (hashed(canvas.seed, row, col, 20) - 0.5)
    nucleus.edge_um = _between(0.18, 0.65, hashed(canvas.seed, row, col, 21) ** 2)
    return True


@njit(cache=True, nogil=True)
def _candidates(
    canvas: Canvas, texture: NDArray[np.float32], origin: tuple[int, int], grid: NDArray[np.int32], out: NDArray[Any]
) -> int:
    """Fill out with the candidates of lattice cells from origin (row, col) on, in raster order; grid: their index."""
    cell_um = CELL_UM * canvas.diameter
    cols = math.ceil(canvas.width_um / cell_um)
    n = 0
    for i in range(grid.shape[0]):
        for j in range(grid.shape[1]):
            row, col = origin[0] + i, origin[1] + j
            nucleus = out[n]
            nucleus.x = (col + hashed(canvas.seed, row, col, 1)) * cell_um
            nucleus.y = (row + hashed(canvas.seed, row, col, 2)) * cell_um
            if nucleus.x >= canvas.width_um or nucleus.y >= canvas.height_um:
                continue
            if _fill(nucleus, canvas, texture, (row, col)):
                nucleus.id = np.uint32(row * cols + col + 1)
                # large ones first, or small ones would fill the field before them
                nucleus.rank = hashed(canvas.seed, row, col, 5) - 0.12 * nucleus.a / canvas.diameter
                grid[i, j] = n
                n += 1
    return n


@njit(cache=True, nogil=True)
def radius_at(nucleus: Any, x: float, y: float) -> float:
    """Return the distance of (x, y) from the centre, 1 = on the outline."""
    dx, dy = x - nucleus.x, y - nucleus.y
    u = dx * nucleus.cos + dy * nucleus.sin
    v = dy * nucleus.cos - dx * nucleus.sin - nucleus.bend * u * u
    u, v = u / nucleus.a, v / nucleus.b
    r = math.sqrt(u * u + v * v)
    if r < 1e-9:
        return 0.0
    c = u / r
    return float(r / (1 + nucleus.oval * (2 * c * c - 1) + nucleus.lobe * c * (4 * c * c - 3)))


@njit(cache=True, nogil=True)
def _in_the_way(one: Any, other: Any) -> bool:
    """Tell whether two nuclei overlap by more than what makes them touch (both directions are looked at)."""
    dx, dy = other.x - one.x, other.y - one.y
    distance = math.sqrt(dx * dx + dy * dy)
    if distance > one.a + other.a + 0.5:
        return False
    if distance < 0.84 * (
        distance / (radius_at(one, other.x, other.y) + 1e-9) + distance / (radius_at(other, one.x, one.y) + 1e-9)
    ):
        return True
    for t in (-0.95, -0.6, 0.6, 0.95):
        u = t * one.a
        v = one.bend * u * u
        if radius_at(other, one.x + u * one.cos - v * one.sin, one.y + u * one.sin + v * one.cos) < 1.02:
            return True
        u = t * other.a
        v = other.bend * u * u
        if radius_at(one, other.x + u * other.cos - v * other.sin, other.y + u * other.sin + v * other.cos) < 1.02:
            return True
    return False


@njit(cache=True, nogil=True)
def _neighbours(grid: NDArray[np.int32], cell: NDArray[np.int64], out: NDArray[np.int32]) -> int:
    """List the nuclei of the lattice cells within HOP_UM of a cell, but for its own."""
    reach = math.ceil(HOP_UM / CELL_UM) + 1
    n = 0
    for row in range(max(0, cell[0] - reach), min(grid.shape[0], cell[0] + reach + 1)):
        for col in range(max(0, cell[1] - reach), min(grid.shape[1], cell[1] + reach + 1)):
            other = grid[row, col]
            if other >= 0 and (row != cell[0] or col != cell[1]):
                out[n] = other
                n += 1
    return n


_UNDECIDED, _STAYS, _GOES = range(3)


@njit(cache=True, nogil=True)
def _thin(nuclei: NDArray[Any], cells: NDArray[np.int64], grid: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Choose nuclei that are not in each other's way: in each round those stay that outrank all they conflict with."""
    state = np.zeros(len(nuclei), np.int8)
    near = np.empty(grid.size, np.int32)
    for _ in range(ROUNDS):
        winners = np.zeros(len(nuclei), np.bool_)
        for i in range(len(nuclei)):
            if state[i] != _UNDECIDED:
                continue
            winners[i] = True
            for k in range(_neighbours(grid, cells[i], near)):
                j = near[k]
                if state[j] == _UNDECIDED and nuclei[j].rank < nuclei[i].rank and _in_the_way(nuclei[i], nuclei[j]):
                    winners[i] = False
                    break
        for i in range(len(nuclei)):
            if not winners[i]:
                continue
            state[i] = _STAYS
            for k in range(_neighbours(grid, cells[i], near)):
                j = near[k]
                if state[j] == _UNDECIDED and not winners[j] and _in_the_way(nuclei[i], nuclei[j]):
                    state[j] = _GOES
    stays: NDArray[np.bool_] = state == _STAYS
    return stays


def nuclei_near(
    canvas: Canvas, texture: NDArray[np.float32], window_um: tuple[float, float, float, float]
) -> NDArray[Any]:
    """Return the nuclei that can reach into a window, and all that these can touch.

    Args:
        canvas: the slide.
        texture: its noise, see `make_texture`.
        window_um: x0, y0, x1, y1.

    Returns:
        NUCLEUS (n,), in raster order of their lattice cells: the same records for every window that a nucleus reaches.
    """
    near = (REACH_UM + HOP_UM) * canvas.diameter
    margin = near + 2 * ROUNDS * HOP_UM * canvas.diameter
    cell_um = CELL_UM * canvas.diameter
    ends = [math.ceil(size / cell_um) for size in (canvas.width_um, canvas.height_um)]
    col0, row0 = (max(0, math.floor((start - margin) / cell_um)) for start in window_um[:2])
    col1, row1 = (min(last, math.ceil((end + margin) / cell_um)) for end, last in zip(window_um[2:], ends, strict=True))
    grid = np.full((max(0, row1 - row0), max(0, col1 - col0)), -1, np.int32)
    nuclei = np.zeros(grid.size + 1, NUCLEUS)
    nuclei = nuclei[: _candidates(canvas, texture, (row0, col0), grid, nuclei)]
    nuclei = nuclei[_thin(nuclei, np.argwhere(grid >= 0), grid)]
    x0, y0, x1, y1 = window_um
    inside_x = (nuclei["x"] > x0 - near) & (nuclei["x"] < x1 + near)
    return nuclei[inside_x & (nuclei["y"] > y0 - near) & (nuclei["y"] < y1 + near)]
