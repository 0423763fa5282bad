"""Steps along one closed ring: pixel edges, blur, thinning, offset. `simplify` says why and checks the result."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from wsipipe.clearance import squared_distance

MAX_SHIFT = 0.3  # work px that blurring may move a point


@njit(cache=True, nogil=True)
def count_edges(coords: NDArray[np.float64], ring_starts: NDArray[np.int64]) -> tuple[int, int]:
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
def ring_area(ring: NDArray[np.float64]) -> float:
    """Return the signed area of a closed ring, positive where `shapely.LinearRing.is_ccw`; (V, 2) any frame."""
    total = 0.0
    for v in range(1, len(ring)):
        total += (ring[v - 1, 0] - ring[0, 0]) * (ring[v, 1] - ring[0, 1])
        total -= (ring[v, 0] - ring[0, 0]) * (ring[v - 1, 1] - ring[0, 1])
    return total / 2


@njit(cache=True, nogil=True)
def expand(source: NDArray[np.float64], corners: NDArray[np.float64], middles: NDArray[np.float64]) -> int:
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
def blur(
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
def thin(points: NDArray[np.float64], n: int, squared: float, keep: NDArray[np.int64], stack: NDArray[np.int64]) -> int:
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
def offset_to_area(ring: NDArray[np.float64], n: int, area: float, spare: NDArray[np.float64]) -> None:
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
def clamp(ring: NDArray[np.float64], n: int, corners: NDArray[np.float64], n_corners: int) -> None:
    """Keep the open ring inside the box of the traced one, and so inside the slide."""
    for a in range(2):
        low = high = corners[0, a]
        for k in range(n_corners):
            low, high = min(low, corners[k, a]), max(high, corners[k, a])
        for k in range(n):
            ring[k, a] = min(max(ring[k, a], low), high)
