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
A polygon that fails any of them is thinned without blur; if that fails too, it stays as traced.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from wsipipe.clearance import is_clear, squared_distance
from wsipipe.nuclei import Outlines

TIP = 0.25  # work px that tips of stairs may lie farther away than the tolerance
BLUR_PASSES = 2
MAX_SHIFT = 0.3  # work px that blurring may move a point
MAX_THINNING = 0.15  # work px, Douglas-Peucker tolerance of large outlines ...
RELATIVE_THINNING = 0.012  # ... and of small ones, times sqrt(area): so small nuclei keep about 20 vertices
AREA_ROUNDS = 2
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
    longest, total = _count_edges(coords, ring_starts)
    out = np.empty((total + len(ring_starts), 2), np.float64)
    out_starts = np.zeros_like(ring_starts)
    size = longest + 1
    work = np.empty((4, size, 2), np.float64)
    keep = np.empty(size, np.int64)
    stack = np.empty((size + 2, 2), np.int64)
    at = 0
    for polygon in range(len(polygon_starts) - 1):
        first_ring, end_ring = polygon_starts[polygon], polygon_starts[polygon + 1]
        for passes in (BLUR_PASSES, 0, -1):
            end = at
            fine = True
            for ring in range(first_ring, end_ring):
                source = coords[ring_starts[ring] : ring_starts[ring + 1]]
                if passes < 0:
                    n = len(source)
                    out[end : end + n] = source
                else:
                    n = _thin_ring(source, work, keep, stack, out[end:], tolerance, passes)
                fine = n > 0
                if not fine:
                    break
                end += n
                out_starts[ring + 1] = end
            if passes < 0 or (
                fine
                and _keeps_area(coords, ring_starts, out, out_starts, first_ring, end_ring)
                and is_clear(out, out_starts, first_ring, end_ring)
            ):
                break
        at = end
    return out[:at].copy(), out_starts


@njit(cache=True, nogil=True)
def _count_edges(coords: NDArray[np.float64], ring_starts: NDArray[np.int64]) -> tuple[int, int]:
    """Return the number of pixel edges in the longest ring and in all rings."""
    longest = total = 0
    for ring in range(len(ring_starts) - 1):
        length = 0
        for v in range(ring_starts[ring] + 1, ring_starts[ring + 1]):
            length += int(abs(coords[v, 0] - coords[v - 1, 0]) + abs(coords[v, 1] - coords[v - 1, 1]))
        longest = max(longest, length)
        total += length
    return longest, total


@njit(cache=True, nogil=True)
def _thin_ring(
    source: NDArray[np.float64],
    work: NDArray[np.float64],
    keep: NDArray[np.int64],
    stack: NDArray[np.int64],
    out: NDArray[np.float64],
    tolerance: float,
    passes: int,
) -> int:
    """Write the thinned closed ring to out; return its number of vertices, 0 if it breaks the tolerance."""
    corners, middles, blurred, spare = work[0], work[1], work[2], work[3]
    n = _expand(source, corners, middles)
    area = ring_area(source)
    _blur(middles, n, passes, blurred, spare)
    thinning = min(MAX_THINNING, RELATIVE_THINNING * np.sqrt(abs(area)))
    n_kept = _douglas_peucker(blurred, n, thinning * thinning, keep, stack)
    if n_kept < 3:
        return 0
    for k in range(n_kept):
        spare[k] = blurred[keep[k]]
    for _ in range(AREA_ROUNDS):
        _offset_to_area(spare, n_kept, area, blurred)
        _clamp(spare, n_kept, corners, n)
    if not _within(spare, n_kept, keep, corners, middles, n, tolerance):
        return 0
    for k in range(n_kept):
        out[k, 0] = spare[k, 0] + source[0, 0]
        out[k, 1] = spare[k, 1] + source[0, 1]
    out[n_kept] = out[0]
    return n_kept + 1


@njit(cache=True, nogil=True)
def ring_area(ring: NDArray[np.float64]) -> float:
    """Return the signed area of a closed ring, positive where `shapely.LinearRing.is_ccw`; (V, 2) any frame."""
    total = 0.0
    for v in range(1, len(ring)):
        total += (ring[v - 1, 0] - ring[0, 0]) * (ring[v, 1] - ring[0, 1])
        total -= (ring[v, 0] - ring[0, 0]) * (ring[v - 1, 1] - ring[0, 1])
    return total / 2


@njit(cache=True, nogil=True)
def _expand(source: NDArray[np.float64], corners: NDArray[np.float64], middles: NDArray[np.float64]) -> int:
    """List the pixel edges of a ring from its first corner: edge k starts at corners[k], middles[k] halves it."""
    n = 0
    for v in range(1, len(source)):
        x, y = source[v - 1, 0] - source[0, 0], source[v - 1, 1] - source[0, 1]
        dx, dy = source[v, 0] - source[v - 1, 0], source[v, 1] - source[v - 1, 1]
        length = int(abs(dx) + abs(dy))
        dx /= length
        dy /= length
        for k in range(length):
            corners[n, 0] = x + k * dx
            corners[n, 1] = y + k * dy
            middles[n, 0] = x + (k + 0.5) * dx
            middles[n, 1] = y + (k + 0.5) * dy
            n += 1
    return n


@njit(cache=True, nogil=True)
def _blur(
    middles: NDArray[np.float64], n: int, passes: int, out: NDArray[np.float64], spare: NDArray[np.float64]
) -> None:
    """Blur the closed course of n points; no point ends farther than MAX_SHIFT from where it was."""
    out[:n] = middles[:n]
    for _ in range(passes):
        spare[:n] = out[:n]
        for k in range(n):
            before, after = k - 1 if k else n - 1, k + 1 if k + 1 < n else 0
            for a in range(2):
                out[k, a] = (spare[before, a] + 2 * spare[k, a] + spare[after, a]) / 4
    for k in range(n):
        dx, dy = out[k, 0] - middles[k, 0], out[k, 1] - middles[k, 1]
        shift = np.sqrt(dx * dx + dy * dy)
        if shift > MAX_SHIFT:
            out[k, 0] = middles[k, 0] + dx * MAX_SHIFT / shift
            out[k, 1] = middles[k, 1] + dy * MAX_SHIFT / shift


@njit(cache=True, nogil=True)
def _douglas_peucker(
    points: NDArray[np.float64], n: int, squared: float, keep: NDArray[np.int64], stack: NDArray[np.int64]
) -> int:
    """Thin a closed course of n points; write the kept indices, ascending from 0, and return their number.

    The course is cut at point 0 and at the point farthest from it; index n stands for point 0 again.
    """
    far, farthest = 0, 0.0
    for k in range(1, n):
        d = (points[k, 0] - points[0, 0]) ** 2 + (points[k, 1] - points[0, 1]) ** 2
        if d > farthest:
            far, farthest = k, d
    points[n] = points[0]
    stack[0, 0], stack[0, 1] = far, n
    stack[1, 0], stack[1, 1] = 0, far
    depth, n_kept = 2, 0
    while depth:
        depth -= 1
        first, last = stack[depth, 0], stack[depth, 1]
        ax, ay, bx, by = points[first, 0], points[first, 1], points[last, 0], points[last, 1]
        worst, where = squared, -1
        for k in range(first + 1, last):
            d = squared_distance(points[k, 0], points[k, 1], ax, ay, bx, by)
            if d > worst:
                worst, where = d, k
        if where < 0:
            keep[n_kept] = first
            n_kept += 1
        else:
            stack[depth, 0], stack[depth, 1] = where, last
            stack[depth + 1, 0], stack[depth + 1, 1] = first, where
            depth += 2
    return n_kept


@njit(cache=True, nogil=True)
def _offset_to_area(ring: NDArray[np.float64], n: int, area: float, spare: NDArray[np.float64]) -> None:
    """Move every edge of the open ring along its normal by one amount, so that the ring encloses the signed area."""
    for k in range(n):
        spare[k] = ring[k]
    length = total = 0.0
    for k in range(n):
        after = k + 1 if k + 1 < n else 0
        total += spare[k, 0] * spare[after, 1] - spare[after, 0] * spare[k, 1]
        dx, dy = spare[after, 0] - spare[k, 0], spare[after, 1] - spare[k, 1]
        length += np.sqrt(dx * dx + dy * dy)
    offset = (area - total / 2) / length
    for k in range(n):
        before, after = k - 1 if k else n - 1, k + 1 if k + 1 < n else 0
        ux, uy = spare[k, 0] - spare[before, 0], spare[k, 1] - spare[before, 1]
        vx, vy = spare[after, 0] - spare[k, 0], spare[after, 1] - spare[k, 1]
        u, v = np.sqrt(ux * ux + uy * uy), np.sqrt(vx * vx + vy * vy)
        if u == 0 or v == 0:
            continue
        # Outward normal of a positive ring is (dy, -dx).
        nx, ny = uy / u + vy / v, -ux / u - vx / v
        share = offset / max(0.5, 1 + (ux * vx + uy * vy) / (u * v))
        ring[k, 0] = spare[k, 0] + nx * share
        ring[k, 1] = spare[k, 1] + ny * share


@njit(cache=True, nogil=True)
def _clamp(ring: NDArray[np.float64], n: int, corners: NDArray[np.float64], n_corners: int) -> None:
    """Keep the open ring inside the box of the traced one, and so inside the slide."""
    for a in range(2):
        low = high = corners[0, a]
        for k in range(n_corners):
            low, high = min(low, corners[k, a]), max(high, corners[k, a])
        for k in range(n):
            ring[k, a] = min(max(ring[k, a], low), high)


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


@njit(cache=True, nogil=True)
def _keeps_area(
    coords: NDArray[np.float64],
    ring_starts: NDArray[np.int64],
    out: NDArray[np.float64],
    out_starts: NDArray[np.int64],
    first_ring: int,
    end_ring: int,
) -> bool:
    before = after = 0.0
    for ring in range(first_ring, end_ring):
        before += ring_area(coords[ring_starts[ring] : ring_starts[ring + 1]])
        after += ring_area(out[out_starts[ring] : out_starts[ring + 1]])
    return bool(abs(after - before) <= MAX_AREA_ERROR * before + MAX_AREA_ERROR_PX)
