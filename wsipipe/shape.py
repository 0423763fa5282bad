"""Shape of polygons, one pass each: lengths, hull, smallest circle, smallest width.

Formulas are those of QuPath's `ObjectMeasurements.addShapeMeasurements` (JTS geometry), written for ragged arrays.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

PERIMETER, CIRCULARITY, SOLIDITY, MAX_DIAMETER, MIN_DIAMETER = range(5)
N_SHAPES = 5


@njit(cache=True, nogil=True)
def measure_polygons(
    coords: NDArray[np.float64],
    ring_starts: NDArray[np.int64],
    polygon_starts: NDArray[np.int64],
    unit_x: float,
    unit_y: float,
) -> NDArray[np.float64]:
    """Measure each polygon.

    Args:
        coords: (V, 2), closed rings as in `nuclei.Outlines`.
        ring_starts: int64 (R + 1,).
        polygon_starts: int64 (N + 1,).
        unit_x: length of one step of x, e.g. um per px.
        unit_y: length of one step of y.

    Returns:
        float64 (N, N_SHAPES), columns in the order of the constants above: PERIMETER = length of all rings;
        CIRCULARITY = 4 pi area / length^2 of the exterior ring; SOLIDITY = area less holes / area of the convex hull;
        MAX_DIAMETER = diameter of the smallest enclosing circle; MIN_DIAMETER = smallest width of the hull.
    """
    n = len(polygon_starts) - 1
    out = np.zeros((n, N_SHAPES), np.float64)
    longest = 0
    for ring in range(len(ring_starts) - 1):
        longest = max(longest, ring_starts[ring + 1] - ring_starts[ring])
    points = np.empty((longest, 2), np.float64)
    hull = np.empty((2 * longest + 2, 2), np.float64)
    for i in range(n):
        area = 0.0
        for ring in range(polygon_starts[i], polygon_starts[i + 1]):
            begin, end = ring_starts[ring], ring_starts[ring + 1]
            for v in range(begin, end):
                points[v - begin, 0] = (coords[v, 0] - coords[begin, 0]) * unit_x
                points[v - begin, 1] = (coords[v, 1] - coords[begin, 1]) * unit_y
            ring_area, length = _area_and_length(points, end - begin)
            area += ring_area
            out[i, PERIMETER] += length
            if ring == polygon_starts[i]:
                out[i, CIRCULARITY] = 4 * np.pi * ring_area / (length * length)
                h = convex_hull(points, end - begin - 1, hull)
                out[i, SOLIDITY] = _area_and_length(hull, h + 1)[0]
                out[i, MAX_DIAMETER] = enclosing_diameter(hull, h)
                out[i, MIN_DIAMETER] = smallest_width(hull, h)
        out[i, SOLIDITY] = area / out[i, SOLIDITY]
    return out


@njit(cache=True, nogil=True)
def polygon_areas(
    coords: NDArray[np.float64], ring_starts: NDArray[np.int64], polygon_starts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the area of each polygon less its holes, float64 (N,), in squares of the coordinates' unit."""
    out = np.zeros(len(polygon_starts) - 1, np.float64)
    for i in range(len(out)):
        for ring in range(polygon_starts[i], polygon_starts[i + 1]):
            begin, end = ring_starts[ring], ring_starts[ring + 1]
            # Relative to its first vertex a ring far from the origin loses no digits.
            area, _ = _area_and_length(coords[begin:end] - coords[begin], end - begin)
            out[i] += area
    return np.abs(out)


@njit(cache=True, nogil=True)
def _area_and_length(points: NDArray[np.float64], n: int) -> tuple[float, float]:
    """Return the signed area and the length of a closed ring of n points."""
    area = length = 0.0
    for v in range(1, n):
        area += points[v - 1, 0] * points[v, 1] - points[v, 0] * points[v - 1, 1]
        dx, dy = points[v, 0] - points[v - 1, 0], points[v, 1] - points[v - 1, 1]
        length += np.sqrt(dx * dx + dy * dy)
    return area / 2, length


@njit(cache=True, nogil=True)
def _turn(a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64]) -> float:
    return float((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))


@njit(cache=True, nogil=True)
def _sort(points: NDArray[np.float64], n: int) -> None:
    """Sort n points by (x, y) in place (shell sort: polygons are short)."""
    gap = n // 2
    while gap:
        for k in range(gap, n):
            x, y = points[k, 0], points[k, 1]
            at = k
            while at >= gap and (points[at - gap, 0] > x or (points[at - gap, 0] == x and points[at - gap, 1] > y)):
                points[at, 0], points[at, 1] = points[at - gap, 0], points[at - gap, 1]
                at -= gap
            points[at, 0], points[at, 1] = x, y
        gap //= 2


@njit(cache=True, nogil=True)
def convex_hull(points: NDArray[np.float64], n: int, hull: NDArray[np.float64]) -> int:
    """Write the convex hull of n points, positive orientation and closed, to hull; return its number of corners.

    Andrew's monotone chain (1979). The points are sorted in place. hull needs room for 2 n + 2 points.
    """
    _sort(points, n)
    h = 0
    for k in range(n):
        while h >= 2 and _turn(hull[h - 2], hull[h - 1], points[k]) <= 0:
            h -= 1
        hull[h] = points[k]
        h += 1
    lower = h + 1
    for k in range(n - 2, -1, -1):
        while h >= lower and _turn(hull[h - 2], hull[h - 1], points[k]) <= 0:
            h -= 1
        hull[h] = points[k]
        h += 1
    return h - 1


@njit(cache=True, nogil=True)
def smallest_width(hull: NDArray[np.float64], h: int) -> float:
    """Return the smallest distance of two parallel lines that enclose a closed hull of h corners."""
    best = np.inf
    far = 1
    for k in range(h):
        a, b = hull[k], hull[k + 1]
        while _turn(a, b, hull[(far + 1) % h]) > _turn(a, b, hull[far]):
            far = (far + 1) % h
        width = _turn(a, b, hull[far]) / np.hypot(b[0] - a[0], b[1] - a[1])
        best = min(best, width)
    return best


@njit(cache=True, nogil=True)
def enclosing_diameter(hull: NDArray[np.float64], h: int) -> float:
    """Return the diameter of the smallest circle around a hull of h corners.

    Chrystal's method (1885): start from an edge p-q of the hull; the corner r that sees it under the smallest angle
    decides. Not acute at r: p-q is a diameter. Not acute at p or q: r takes that place. Else the circle through the
    three is the smallest one.
    """
    p, q = hull[0], hull[1]
    for _ in range(h + 1):
        r, sharpest = p, -2.0
        for k in range(h):
            cosine = _cosine(hull[k], p, q)
            if cosine > sharpest:
                r, sharpest = hull[k], cosine
        if sharpest <= 0:
            break
        if _cosine(p, q, r) < 0:
            p = r
        elif _cosine(q, p, r) < 0:
            q = r
        else:
            sides = np.hypot(q[0] - p[0], q[1] - p[1]) * np.hypot(r[0] - q[0], r[1] - q[1])
            return float(sides * np.hypot(p[0] - r[0], p[1] - r[1]) / abs(_turn(p, q, r)))
    return float(np.hypot(q[0] - p[0], q[1] - p[1]))


@njit(cache=True, nogil=True)
def _cosine(at: NDArray[np.float64], a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return the cosine of the angle under which `at` sees a and b; -2 if it is one of them."""
    ax, ay, bx, by = a[0] - at[0], a[1] - at[1], b[0] - at[0], b[1] - at[1]
    squared = (ax * ax + ay * ay) * (bx * bx + by * by)
    if squared == 0:
        return -2.0
    return float((ax * bx + ay * by) / np.sqrt(squared))
