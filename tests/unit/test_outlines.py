"""Tracing, thinning and moving outlines: hand-made labels and drawn nuclei; random labels are in tests/property."""

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray

from wsipipe.frames import WorkFrame
from wsipipe.outlines import simplify, to_l0, to_shapely, trace


def ellipse(rx: float, ry: float, shift: tuple[float, float] = (0, 0), angle: float = 0) -> NDArray[np.int32]:
    """Draw one ellipse as label 1: pixels whose centre lies inside."""
    half = int(max(rx, ry)) + 3
    yy, xx = np.mgrid[-half:half, -half:half] + 0.5
    x, y = xx - shift[0], yy - shift[1]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return ((along / rx) ** 2 + (across / ry) ** 2 <= 1).astype(np.int32)


def test_a_pixel_is_traced_along_its_edges_from_its_upper_left_corner():
    outlines = trace(np.array([[0, 1]], np.int32), 1, origin=(10, 20))
    assert outlines.coords.tolist() == [[11, 20], [12, 20], [12, 21], [11, 21], [11, 20]]
    assert outlines.ring_starts.tolist() == [0, 5]
    assert outlines.polygon_starts.tolist() == [0, 1]


def test_exteriors_are_ccw_and_holes_are_not_as_shapely_says():
    labels = np.ones((5, 5), np.int32)
    labels[2, 2] = 0
    (polygon,) = to_shapely(trace(labels, 1, origin=(0, 0)))
    assert polygon.exterior.is_ccw
    assert [ring.is_ccw for ring in polygon.interiors] == [False]
    assert polygon.area == 24


def test_pixels_that_touch_at_a_corner_make_a_hole_that_touches_the_exterior():
    # 4-connected around the hole (1, 1); the background pixel (0, 2) touches the hole's corner
    labels = np.array([[1, 1, 0], [1, 0, 1], [1, 1, 1]], np.int32)
    outlines = trace(labels, 1, origin=(0, 0))
    (polygon,) = to_shapely(outlines)
    assert len(polygon.interiors) == 1
    assert shapely.is_valid(polygon)
    assert polygon.area == 7
    assert shapely.is_valid(to_shapely(simplify(outlines))[0])


def test_a_label_inside_another_is_its_hole():
    labels = np.full((6, 6), 2, np.int32)
    labels[2:4, 2:4] = 1
    inner, outer = to_shapely(trace(labels, 2, origin=(0, 0)))
    assert shapely.equals(shapely.Polygon(outer.interiors[0]), inner)


def test_no_labels_give_no_outlines():
    for shape in ((0, 0), (1, 1), (4, 7)):
        outlines = trace(np.zeros(shape, np.int32), 0, origin=(3, 3))
        assert len(outlines) == len(simplify(outlines)) == 0
        assert len(to_shapely(outlines)) == 0


def test_a_missing_label_is_refused():
    with pytest.raises(ValueError, match="label 2 has none"):
        trace(np.array([[1, 0, 3]], np.int32), 3, origin=(0, 0))


def test_outlines_do_not_depend_on_the_window():
    labels = ellipse(9, 6, (0.3, 0.1), 0.4)
    at = trace(labels, 1, origin=(70_000, 90_000))
    padded = trace(np.pad(labels, ((3, 1), (5, 2))), 1, origin=(69_995, 89_997))
    assert np.array_equal(at.coords, padded.coords)
    assert np.array_equal(simplify(at).coords, simplify(padded).coords)


@pytest.mark.parametrize("radius", [2, 3, 5, 8, 12, 20, 60])
def test_thinning_keeps_area_box_and_distance(radius):
    for seed in range(10):
        rng = np.random.default_rng(seed)
        labels = ellipse(radius * rng.uniform(1, 2), radius, tuple(rng.random(2)), rng.random() * 3)
        traced = trace(labels, 1, origin=(0, 0))
        exact, thin = to_shapely(traced)[0], to_shapely(simplify(traced))[0]
        assert thin.area == pytest.approx(labels.sum(), rel=0.01, abs=0.5)
        assert exact.envelope.buffer(1e-9).covers(thin)
        assert shapely.hausdorff_distance(exact, thin, densify=0.1) <= 0.75
        away = shapely.distance(exact.exterior, shapely.points(*thin.exterior.segmentize(0.1).coords.xy))
        assert away.max() <= 0.5, "no point of the thinned outline is farther than this from the traced one"


def test_thinning_halves_the_vertices_of_a_nucleus():
    traced = trace(ellipse(12, 9, (0.2, 0.4), 0.5), 1, origin=(0, 0))
    assert len(simplify(traced).coords) <= 0.6 * len(traced.coords)


def test_the_area_is_not_biased():
    ratio = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        labels = ellipse(rng.uniform(6, 12), rng.uniform(6, 12), tuple(rng.random(2)), rng.random() * 3)
        ratio.append(to_shapely(simplify(trace(labels, 1, origin=(0, 0))))[0].area / labels.sum())
    assert np.mean(ratio) == pytest.approx(1, abs=0.002)


def test_tolerance_zero_keeps_the_traced_outline():
    traced = trace(ellipse(9, 6), 1, origin=(0, 0))
    assert np.array_equal(simplify(traced, 0).coords, traced.coords)
    with pytest.raises(ValueError, match="tolerance"):
        simplify(traced, -1)


def test_thin_lines_and_combs_stay_valid():
    comb = np.zeros((40, 60), np.int32)
    comb[20, :] = comb[:, ::2] = 1
    for labels in (
        comb,
        comb.T.copy(),
        np.ones((1, 30), np.int32),
        np.eye(9, dtype=np.int32) | np.eye(9, k=1, dtype=np.int32),
    ):
        traced = trace(labels, 1, origin=(0, 0))
        thin = to_shapely(simplify(traced))[0]
        assert shapely.is_valid(thin)
        assert abs(thin.area - labels.sum()) <= 0.02 * labels.sum() + 2


def test_l0_coordinates_are_scaled_by_axis_and_rounded_to_a_hundredth():
    traced = trace(np.array([[1]], np.int32), 1, origin=(3, 7))
    frame = WorkFrame(100, 100, 0.25, 0.25, 1.2345, 2.0)
    assert to_l0(traced, frame).coords[0].tolist() == [3.70, 14.0]


def test_a_region_far_larger_than_a_nucleus_stays_as_traced():
    teeth = np.ones((101, 400), np.int32)
    teeth[1:, 1::2] = 0
    traced = trace(teeth, 1, origin=(0, 0))
    assert np.array_equal(simplify(traced).coords, traced.coords)
