"""Fewer vertices for pixel-edge outlines: same area, smooth course, close to the pixels, never invalid.

A ring is resampled at the middles of its pixel edges (the same course without the tips of its stairs), blurred along
its course by (1, 2, 1) / 4 with a bounded shift, thinned by Douglas and Peucker's rule (1973), and moved along its
normals until it encloses the pixels' area again (blurring and thinning shrink convex rings), inside the pixels' box.

Bounds are checked afterwards, not assumed:
- Distance. Between two kept vertices every pixel-edge middle must lie within the tolerance of the chord and every
  corner of the traced ring within tolerance + TIP; a kept vertex must lie within the tolerance of the middle it came
  from. The course between two kept vertices then runs inside the chord's tube from end to end, so its projection covers
  the chord: the Hausdorff distance is at most the tolerance to the course through the middles, and at most
  tolerance + TIP to the traced outline. (The edge of a true disk passes the tips of its pixels' stairs at up to
  0.71 px: an outline within 0.5 px of every tip has to follow the stairs, and its perimeter is 3 to 6 % too long.)
- Validity. All edges must keep their distance, so that no later rounding makes them cross (`clearance`).
- Area. Within 2 % + 2 px of the traced area.
A polygon that fails any of them is tried with less blur, then with none; if all fail, it stays as traced.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from wsipipe.clearance import is_clear, squared_distance
from wsipipe.course import blur, clamp, count_edges, expand, offset_to_area, ring_area, thin
from wsipipe.nuclei import Outlines

TIP = 0.25  # work px that tips of stairs may lie farther away than the tolerance
BLUR_PASSES = (2, 1, 0)  # the first that keeps all bounds is taken
MAX_THINNING = 0.15  # work px, Douglas-Peucker tolerance of large outlines ...
RELATIVE_THINNING = 0.012  # ... and of small ones, times sqrt(area): so small nuclei keep about 20 vertices
AREA_ROUNDS = 2
MAX_EDGES = 20_000  # pixel edges; a longer ring is no nucleus, and thinning may take quadratic time: it stays as traced
MAX_AREA_ERROR = 0.02
MAX_AREA_ERROR_PX = 2.0


def simplify(outlines: Outlines, tolerance: float = 0.5) -> Outlines:
    """Thin traced outlines without changing their area, course or validity.

    Args:
        outlines: from `outlines.trace`, work px.
        tolerance: largest Hausdorff distance to the course through the middles of the pixel edges, work px.

    Returns:
        As many polygons with as many rings, work px; those that could not keep the tolerance, their validity or their
        area are returned as traced.
    """
    if tolerance < 0:
        raise ValueError(f"tolerance must be >= 0 px, got {tolerance}")
    coords, ring_starts = _simplify(
        np.ascontiguousarray(outlines.coords), outlines.ring_starts, outlines.polygon_starts, float(tolerance)
    )
    return Outlines(coords, ring_starts, outlines.polygon_starts)


@njit(cache=True, nogil=True)
def _simplify(
    coords: NDArray[np.float64], ring_starts: NDArray[np.int64], polygon_starts: NDArray[np.int64], tolerance: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    longest, total = count_edges(coords, ring_starts)
    out = np.empty((total + len(ring_starts), 2), np.float64)
    out_starts = np.zeros_like(ring_starts)
    work = np.empty((4, longest + 1, 2), np.float64)
    stack = np.empty((longest + 3, 3), np.int64)
    for polygon in range(len(polygon_starts) - 1):
        rings = (polygon_starts[polygon], polygon_starts[polygon + 1])
        for passes in BLUR_PASSES:
            fine = _thin_polygon(coords, ring_starts, rings, work, stack, out, out_starts, (tolerance, passes))
            if fine:
                break
        if not fine:
            for ring in range(rings[0], rings[1]):
                source = coords[ring_starts[ring] : ring_starts[ring + 1]]
                out_starts[ring + 1] = out_starts[ring] + len(source)
                out[out_starts[ring] : out_starts[ring + 1]] = source
    return out[: out_starts[-1]].copy(), out_starts


@njit(cache=True, nogil=True)
def _thin_polygon(
    coords: NDArray[np.float64],
    ring_starts: NDArray[np.int64],
    rings: tuple[int, int],
    work: NDArray[np.float64],
    stack: NDArray[np.int64],
    out: NDArray[np.float64],
    out_starts: NDArray[np.int64],
    how: tuple[float, int],
) -> bool:
    """Write thinned rings to out from out_starts[rings[0]] on; True if the polygon keeps every bound.

    how: tolerance and number of blur passes. work and stack are scratch space.
    """
    before = after = 0.0
    for ring in range(rings[0], rings[1]):
        source = coords[ring_starts[ring] : ring_starts[ring + 1]]
        n = _thin_ring(source, work, stack, out[out_starts[ring] :], how[0], how[1])
        if n == 0:
            return False
        out_starts[ring + 1] = out_starts[ring] + n
        before += ring_area(source)
        after += ring_area(out[out_starts[ring] : out_starts[ring + 1]])
    if abs(after - before) > MAX_AREA_ERROR * before + MAX_AREA_ERROR_PX:
        return False
    return bool(is_clear(out, out_starts, rings[0], rings[1]))


@njit(cache=True, nogil=True)
def _thin_ring(
    source: NDArray[np.float64],
    work: NDArray[np.float64],
    stack: NDArray[np.int64],
    out: NDArray[np.float64],
    tolerance: float,
    passes: int,
) -> int:
    """Write the thinned closed ring to out; return its number of vertices, 0 if it breaks the tolerance."""
    corners, middles, blurred, spare = work[0], work[1], work[2], work[3]
    keep = stack[:, 2]
    n = expand(source, corners, middles)
    if n > MAX_EDGES:
        return 0
    area = ring_area(source)
    blur(middles, n, passes, blurred, spare)
    thinning = min(MAX_THINNING, RELATIVE_THINNING * np.sqrt(abs(area)))
    n_kept = thin(blurred, n, thinning * thinning, keep, stack)
    if n_kept < 3:
        return 0
    for k in range(n_kept):
        spare[k] = blurred[keep[k]]
    for _ in range(AREA_ROUNDS):
        offset_to_area(spare, n_kept, area, blurred)
        clamp(spare, n_kept, corners, n)
    if not _within(spare, n_kept, keep, corners, middles, n, tolerance):
        return 0
    for k in range(n_kept):
        out[k, 0] = spare[k, 0] + source[0, 0]
        out[k, 1] = spare[k, 1] + source[0, 1]
    out[n_kept] = out[0]
    return n_kept + 1


@njit(cache=True, nogil=True)
def _within(
    ring: NDArray[np.float64],
    n_kept: int,
    keep: NDArray[np.int64],
    corners: NDArray[np.float64],
    middles: NDArray[np.float64],
    n: int,
    tolerance: float,
) -> bool:
    """Whether the open ring keeps the tolerance to the traced one; vertex k came from pixel edge keep[k]."""
    limit, tip_limit = tolerance * tolerance, (tolerance + TIP) ** 2
    corners[n] = corners[0]
    for k in range(n_kept):
        after = k + 1 if k + 1 < n_kept else 0
        ax, ay, bx, by = ring[k, 0], ring[k, 1], ring[after, 0], ring[after, 1]
        last = keep[after] if after else n
        for e in range(keep[k] + 1, last):
            if squared_distance(middles[e, 0], middles[e, 1], ax, ay, bx, by) > limit:
                return False
        for c in range(keep[k] + 1, last + 1):
            if squared_distance(corners[c, 0], corners[c, 1], ax, ay, bx, by) > tip_limit:
                return False
        if (ax - middles[keep[k], 0]) ** 2 + (ay - middles[keep[k], 1]) ** 2 > limit:
            return False
    return True
