"""Whether the edges of a polygon keep their distance, so that rounding its coordinates cannot make it invalid.

Edges that share no vertex must stay GAP apart, and no edge may fold back onto its neighbour within GAP. Rounding to
0.01 level-0 px moves a vertex by less than GAP / 2 as long as a level-0 px is less than 14 work px
(0.0071 / scale < 0.1), and edges whose vertices move by less than half their distance do not meet.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

GAP = 0.2  # work px
_BRUTE_FORCE_EDGES = 64  # up to here, looking at all pairs is faster than sorting


@njit(cache=True, nogil=True)
def squared_distance(px: float, py: float, ax: float, ay: float, bx: float, by: float) -> float:
    """Return the squared distance of the point p from the segment a-b."""
    bx -= ax
    by -= ay
    px -= ax
    py -= ay
    along, length = px * bx + py * by, bx * bx + by * by
    if along <= 0:
        return px * px + py * py
    if along >= length:
        return (px - bx) ** 2 + (py - by) ** 2
    across = px * by - py * bx
    return across * across / length


@njit(cache=True, nogil=True)
def is_clear(coords: NDArray[np.float64], ring_starts: NDArray[np.int64], first_ring: int, end_ring: int) -> bool:
    """Tell whether the polygon of rings first_ring..end_ring keeps GAP; coords (V, 2) in work px, rings closed."""
    n = ring_starts[end_ring] - ring_starts[first_ring] - (end_ring - first_ring)
    edges = np.empty((n, 4), np.float64)  # ax, ay, bx, by
    after = np.empty(n, np.int64)  # the edge that starts where this one ends
    at = 0
    for ring in range(first_ring, end_ring):
        begin = at
        for v in range(ring_starts[ring], ring_starts[ring + 1] - 1):
            edges[at, 0], edges[at, 1] = coords[v, 0], coords[v, 1]
            edges[at, 2], edges[at, 3] = coords[v + 1, 0], coords[v + 1, 1]
            after[at] = at + 1
            at += 1
        after[at - 1] = begin
    left = np.minimum(edges[:, 0], edges[:, 2])
    order = np.argsort(left) if n > _BRUTE_FORCE_EDGES else np.arange(n)
    for i in range(n):
        a = order[i]
        right = max(edges[a, 0], edges[a, 2]) + GAP
        low = min(edges[a, 1], edges[a, 3]) - GAP
        high = max(edges[a, 1], edges[a, 3]) + GAP
        for j in range(i + 1, n):
            b = order[j]
            if left[b] > right:
                if n > _BRUTE_FORCE_EDGES:
                    break
                continue
            if max(edges[b, 1], edges[b, 3]) < low or min(edges[b, 1], edges[b, 3]) > high:
                continue
            if max(edges[b, 0], edges[b, 2]) < left[a] - GAP:
                continue
            if not _is_pair_clear(edges, after, a, b):
                return False
    return True


@njit(cache=True, nogil=True)
def _is_pair_clear(edges: NDArray[np.float64], after: NDArray[np.int64], a: int, b: int) -> bool:
    if after[b] == a:
        a, b = b, a
    px, py, qx, qy = edges[a, 0], edges[a, 1], edges[a, 2], edges[a, 3]
    rx, ry, sx, sy = edges[b, 0], edges[b, 1], edges[b, 2], edges[b, 3]
    limit = GAP * GAP
    if squared_distance(sx, sy, px, py, qx, qy) < limit or squared_distance(px, py, rx, ry, sx, sy) < limit:
        return False
    if after[a] == b:
        return True
    if squared_distance(qx, qy, rx, ry, sx, sy) < limit or squared_distance(rx, ry, px, py, qx, qy) < limit:
        return False
    crosses = _is_left(px, py, qx, qy, rx, ry) != _is_left(px, py, qx, qy, sx, sy)
    return not (crosses and _is_left(rx, ry, sx, sy, px, py) != _is_left(rx, ry, sx, sy, qx, qy))


@njit(cache=True, nogil=True)
def _is_left(ax: float, ay: float, bx: float, by: float, px: float, py: float) -> bool:
    return (bx - ax) * (py - ay) - (by - ay) * (px - ax) > 0
