"""Polygon formulas against shapely (GEOS), and against numbers worked out by hand."""

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray

from wsipipe import shape


def measured(*polygons: shapely.Polygon, unit: tuple[float, float] = (1, 1)) -> NDArray[np.float64]:
    _, coords, (ring_starts, polygon_starts) = shapely.to_ragged_array([shapely.orient_polygons(p) for p in polygons])
    return shape.measure_polygons(coords, ring_starts.astype(np.int64), polygon_starts.astype(np.int64), *unit)


def random_polygon(seed: int) -> shapely.Polygon:
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.random(int(rng.integers(3, 80)))) * 2 * np.pi
    radius = rng.uniform(2, 9, len(angle))
    star = shapely.Polygon(np.column_stack([radius * np.cos(angle), radius * np.sin(angle)]) + 1000)
    return star.difference(star.centroid.buffer(0.3)) if star.buffer(-0.5).covers(star.centroid.buffer(0.4)) else star


@pytest.mark.parametrize("seed", range(40))
def test_formulas_agree_with_geos(seed):
    polygon = random_polygon(seed)
    if not polygon.is_valid or polygon.geom_type != "Polygon":
        polygon = polygon.convex_hull
    (row,) = measured(polygon)
    exterior = shapely.Polygon(polygon.exterior)
    assert row[shape.PERIMETER] == pytest.approx(polygon.length)
    assert row[shape.CIRCULARITY] == pytest.approx(4 * np.pi * exterior.area / exterior.length**2)
    assert row[shape.SOLIDITY] == pytest.approx(polygon.area / polygon.convex_hull.area)
    assert row[shape.MAX_DIAMETER] == pytest.approx(2 * shapely.minimum_bounding_radius(polygon))
    hull = np.array(polygon.convex_hull.exterior.coords)
    edges = np.diff(hull, axis=0)
    normals = np.column_stack([-edges[:, 1], edges[:, 0]]) / np.hypot(*edges.T)[:, None]
    assert row[shape.MIN_DIAMETER] == pytest.approx(np.ptp(normals @ hull.T, axis=1).min())


def test_a_square_with_a_hole_by_hand():
    square = shapely.Polygon([(0, 0), (4, 0), (4, 4), (0, 4)], [[(1, 1), (1, 3), (3, 3), (3, 1)]])
    (row,) = measured(square)
    assert row == pytest.approx([24, np.pi / 4, 12 / 16, 4 * np.sqrt(2), 4])


def test_unequal_units_stretch_the_polygon_first():
    square = shapely.box(0, 0, 4, 4)
    assert measured(square, unit=(0.5, 0.25))[0] == pytest.approx(measured(shapely.box(0, 0, 2, 1))[0])


def test_collinear_vertices_change_nothing():
    plain, dense = shapely.box(0, 0, 6, 3), shapely.box(0, 0, 6, 3).segmentize(0.5)
    assert measured(dense)[0] == pytest.approx(measured(plain)[0])


def test_no_polygons_give_no_rows():
    empty = np.zeros(1, np.int64)
    assert shape.measure_polygons(np.zeros((0, 2)), empty, empty, 1.0, 1.0).shape == (0, shape.N_SHAPES)
