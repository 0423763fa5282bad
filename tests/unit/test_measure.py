"""Measurements against analytic values, reference implementations and hand-made cases."""

import math

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from skimage.measure import regionprops_table

from wsipipe.frames import WorkFrame
from wsipipe.measure import BLOCK_SCHEMA, Classes, measure, neighbours, outliers, unclassified
from wsipipe.nuclei import Outlines
from wsipipe.outlines import simplify, trace
from wsipipe.stain import QUPATH_HE, unmix

SAMPLES = 60
MPPS = (0.2, 0.25, 0.5)


def frame_of(mpp_x: float, mpp_y: float | None = None, size: int = 100_000) -> WorkFrame:
    return WorkFrame(size, size, mpp_x, mpp_y or mpp_x, 1, 1)


def draw(semi_x: float, semi_y: float, hole: float = 0, n: int = SAMPLES, seed: int = 0) -> NDArray[np.int32]:
    """Draw n ellipses (px) with random centres and directions, one per cell; label = cell + 1."""
    rng = np.random.default_rng(seed)
    side = 2 * math.ceil(max(semi_x, semi_y)) + 4
    yy, xx = np.mgrid[:side, :side] + 0.5
    cells = []
    for _ in range(n):
        x, y = (v - side / 2 + shift for v, shift in zip((xx, yy), rng.random(2) - 0.5, strict=True))
        angle = rng.random() * math.pi
        along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
        away = np.hypot(along / semi_x, across / semi_y)
        cells.append((away <= 1) & (away >= hole))
    labels = np.concatenate(cells, axis=1).astype(np.int32)
    return labels * (1 + np.arange(labels.shape[1], dtype=np.int32) // side)


def table_of(
    labels: NDArray[np.int32],
    frame: WorkFrame,
    *,
    rgb: NDArray[np.uint8] | None = None,
    outlines: Outlines | None = None,
    origin: tuple[int, int] = (50, 60),
) -> pa.Table:
    n = int(labels.max(initial=0))
    rgb = np.full((*labels.shape, 3), 200, np.uint8) if rgb is None else rgb
    outlines = simplify(trace(labels, n, origin=origin)) if outlines is None else outlines
    return measure(labels, rgb, outlines, unclassified(n), frame=frame, stain=QUPATH_HE, origin=origin)


def mean(table: pa.Table, name: str) -> float:
    return float(table[name].to_numpy().mean())


def ellipse_length(a: float, b: float) -> float:
    """Ramanujan's second approximation, error < 1e-5 here."""
    h = ((a - b) / (a + b)) ** 2
    return math.pi * (a + b) * (1 + 3 * h / (10 + math.sqrt(4 - 3 * h)))


@pytest.mark.parametrize("mpp", MPPS)
@pytest.mark.parametrize("radius_px", [3, 5, 8, 10, 15])
def test_disks_measure_as_circles(mpp, radius_px):
    table = table_of(draw(radius_px, radius_px), frame_of(mpp))
    radius = radius_px * mpp
    assert mean(table, "area_um2") == pytest.approx(math.pi * radius**2, rel=0.02)
    assert mean(table, "perimeter_um") == pytest.approx(2 * math.pi * radius, rel=0.02)
    for name in ("equivalent_diameter_um", "major_axis_um", "minor_axis_um"):
        assert mean(table, name) == pytest.approx(2 * radius, rel={3: 0.05, 5: 0.03}.get(radius_px, 0.02))
    # The pixels of a disk reach beyond it in some directions: extremes keep about 0.3 px of that at each end.
    for name in ("max_diameter_um", "min_diameter_um"):
        assert mean(table, name) == pytest.approx(2 * radius, rel=0.02, abs=0.6 * mpp)


@pytest.mark.parametrize("mpp", MPPS)
@pytest.mark.parametrize("radius_um", [3.5, 5.0])
def test_disks_of_nuclear_size_keep_two_percent_in_every_measure_but_the_smallest_diameters(mpp, radius_um):
    table = table_of(draw(radius_um / mpp, radius_um / mpp), frame_of(mpp))
    for name in ("equivalent_diameter_um", "major_axis_um", "minor_axis_um", "min_diameter_um"):
        assert mean(table, name) == pytest.approx(2 * radius_um, rel=0.02)
    assert mean(table, "max_diameter_um") == pytest.approx(2 * radius_um, rel=0.02, abs=0.6 * mpp)
    assert mean(table, "circularity") == pytest.approx(1, abs=0.025)
    assert mean(table, "solidity") == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("mpp", MPPS)
@pytest.mark.parametrize(("a", "b"), [(8, 5), (12, 6), (15, 10)])
def test_ellipses_measure_as_ellipses(mpp, a, b):
    table = table_of(draw(a, b), frame_of(mpp))
    assert mean(table, "area_um2") == pytest.approx(math.pi * a * b * mpp**2, rel=0.02)
    assert mean(table, "perimeter_um") == pytest.approx(ellipse_length(a, b) * mpp, rel=0.02)
    for name in ("major_axis_um", "max_diameter_um"):
        assert mean(table, name) == pytest.approx(2 * a * mpp, rel=0.02)
    for name in ("minor_axis_um", "min_diameter_um"):
        assert mean(table, name) == pytest.approx(2 * b * mpp, rel=0.02)
    assert mean(table, "eccentricity") == pytest.approx(math.sqrt(1 - (b / a) ** 2), rel=0.02)


@pytest.mark.parametrize("mpp", MPPS)
def test_rings_count_both_edges_but_circularity_only_the_outer_one(mpp):
    table = table_of(draw(12, 12, hole=0.5), frame_of(mpp))
    assert mean(table, "area_um2") == pytest.approx(math.pi * (144 - 36) * mpp**2, rel=0.02)
    assert mean(table, "perimeter_um") == pytest.approx(2 * math.pi * 18 * mpp, rel=0.02)
    assert mean(table, "circularity") == pytest.approx(1, abs=0.02)
    assert mean(table, "solidity") == pytest.approx(0.75, rel=0.02)


def test_twice_the_pixel_size_gives_twice_the_lengths_and_four_times_the_area():
    labels = draw(9, 6)
    small, large = table_of(labels, frame_of(0.25)), table_of(labels, frame_of(0.5))
    for name, factor in [("area_um2", 4), ("perimeter_um", 2), ("major_axis_um", 2), ("max_diameter_um", 2)]:
        assert large[name].to_numpy() == pytest.approx(factor * small[name].to_numpy(), rel=1e-6)
    for name in ("circularity", "solidity", "eccentricity", "orientation_rad"):
        assert large[name].to_numpy() == pytest.approx(small[name].to_numpy(), abs=1e-6)


def test_a_pixel_twice_as_wide_as_high_turns_an_ellipse_into_a_disk():
    yy, xx = np.mgrid[:50, :30] + 0.5
    labels = (np.hypot((xx - 15) / 10, (yy - 25) / 20) <= 1).astype(np.int32)
    table = table_of(labels, frame_of(0.5, 0.25))
    for name in ("major_axis_um", "minor_axis_um", "equivalent_diameter_um"):
        assert mean(table, name) == pytest.approx(10, rel=0.01)
    assert mean(table, "circularity") == pytest.approx(1, abs=0.03)
    assert mean(table, "perimeter_um") == pytest.approx(10 * math.pi, rel=0.02)


@pytest.mark.parametrize("angle", [0.0, 0.4, 1.2, -0.7, -1.3])
def test_orientation_turns_from_x_towards_y(angle):
    yy, xx = np.mgrid[-20:20, -20:20] + 0.5
    along, across = xx * math.cos(angle) + yy * math.sin(angle), yy * math.cos(angle) - xx * math.sin(angle)
    table = table_of((np.hypot(along / 14, across / 6) <= 1).astype(np.int32), frame_of(0.25))
    assert mean(table, "orientation_rad") == pytest.approx(angle, abs=0.02)


def test_pixel_measures_agree_with_scikit_image():
    rng = np.random.default_rng(3)
    labels = draw(9, 5, n=30)
    rgb = rng.integers(0, 256, (*labels.shape, 3)).astype(np.uint8)
    table = table_of(labels, frame_of(1.0), rgb=rgb)
    stains = unmix(rgb, QUPATH_HE)
    props = ("area", "centroid", "inertia_tensor", "mean_intensity", "min_intensity", "max_intensity")
    expected = regionprops_table(labels, np.dstack([rgb, stains]), properties=props)
    assert table["area_um2"].to_numpy() == pytest.approx(expected["area"])
    assert table["centroid_x_l0"].to_numpy() == pytest.approx(expected["centroid-1"] + 50.5)
    assert table["centroid_y_l0"].to_numpy() == pytest.approx(expected["centroid-0"] + 60.5)
    for k, name in enumerate(["red", "green", "blue", "hematoxylin_od", "eosin_od"]):
        assert table[f"{name}_mean"].to_numpy() == pytest.approx(expected[f"mean_intensity-{k}"], rel=1e-4, abs=1e-5)
    assert table["hematoxylin_od_min"].to_numpy() == pytest.approx(expected["min_intensity-3"], abs=1e-5)
    assert table["hematoxylin_od_max"].to_numpy() == pytest.approx(expected["max_intensity-3"], abs=1e-5)
    trace_ = expected["inertia_tensor-0-0"] + expected["inertia_tensor-1-1"]
    axes = table["major_axis_um"].to_numpy() ** 2 + table["minor_axis_um"].to_numpy() ** 2
    assert axes / 16 == pytest.approx(trace_ + 2 / 12, rel=1e-5)  # scikit-image counts pixels as points
    h = stains[..., 0]
    assert table["hematoxylin_od_std"][4].as_py() == pytest.approx(h[labels == 5].std(ddof=1), rel=1e-4)


def test_one_pixel_has_finite_measures():
    row = table_of(np.ones((1, 1), np.int32), frame_of(0.25)).to_pylist()[0]
    assert all(math.isfinite(value) for value in row.values() if isinstance(value, float))
    assert row["hematoxylin_od_std"] == 0
    assert row["eccentricity"] == 0


def test_nothing_gives_a_table_without_rows_of_the_full_schema():
    table = table_of(np.zeros((3, 4), np.int32), frame_of(0.25))
    assert table.num_rows == 0
    assert table.schema.equals(BLOCK_SCHEMA)
    assert table_of(draw(5, 5, n=2), frame_of(0.25)).schema.equals(BLOCK_SCHEMA)


def test_measures_do_not_depend_on_the_window():
    labels = draw(9, 6, n=5)
    rgb = np.random.default_rng(0).integers(0, 256, (*labels.shape, 3)).astype(np.uint8)
    padding = ((7, 3), (11, 2))
    moved = table_of(np.pad(labels, padding), frame_of(0.25), rgb=np.pad(rgb, (*padding, (0, 0))), origin=(39, 53))
    assert moved.equals(table_of(labels, frame_of(0.25), rgb=rgb))


@pytest.mark.parametrize("corner", [(0, 30), (30, 0), (95, 30), (30, 95), (30, 30)])
def test_touches_edge_means_the_edge_of_the_slide(corner):
    labels = np.ones((5, 5), np.int32)
    table = table_of(labels, frame_of(0.25, size=100), origin=corner)
    assert table["touches_edge"][0].as_py() is (corner != (30, 30))


def test_classes_are_named_and_missing_probabilities_null():
    labels = draw(5, 5, n=2)
    classes = Classes(("Nucleus", "Tumor"), np.array([0, 1, 0], np.int16), np.array([0, 0.75, np.nan], np.float32))
    table = measure(
        labels,
        np.zeros((*labels.shape, 3), np.uint8),
        trace(labels, 2, origin=(0, 0)),
        classes,
        frame=frame_of(0.25),
        stain=QUPATH_HE,
        origin=(0, 0),
    )
    assert table["class_name"].to_pylist() == ["Tumor", "Nucleus"]
    assert table["class_prob"].to_pylist() == [0.75, None]


def test_inputs_that_do_not_fit_are_refused():
    labels = draw(5, 5, n=2)
    with pytest.raises(ValueError, match="must fit"):
        table_of(labels, frame_of(0.25), rgb=np.zeros((3, 3, 3), np.uint8))
    outlines = trace(labels, 2, origin=(0, 0))
    with pytest.raises(ValueError, match="label 2 has none"):
        measure(
            np.where(labels == 2, 0, labels).astype(np.int32),
            np.zeros((*labels.shape, 3), np.uint8),
            outlines,
            unclassified(2),
            frame=frame_of(0.25),
            stain=QUPATH_HE,
            origin=(0, 0),
        )


@pytest.mark.parametrize("n", [2, 3, 300])
def test_neighbours_agree_with_all_pairs(n):
    points = np.random.default_rng(n).random((n, 2)) * 200
    pairs = np.hypot(*(points[:, None] - points[None]).transpose(2, 0, 1))
    np.fill_diagonal(pairs, np.inf)
    distance, count = neighbours(points)
    assert distance == pytest.approx(pairs.min(axis=1), rel=1e-6)
    assert count.tolist() == (pairs <= 50).sum(axis=1).tolist()


def test_a_lone_nucleus_has_no_neighbour():
    for n in (0, 1):
        distance, count = neighbours(np.zeros((n, 2)))
        assert np.isnan(distance).all()
        assert len(distance) == len(count) == n
        assert not count.any()


def test_two_nuclei_with_one_centroid_are_neighbours():
    distance, count = neighbours(np.zeros((2, 2)))
    assert distance.tolist() == [0, 0]
    assert count.tolist() == [1, 1]


def population(n: int) -> pa.Table:
    rng = np.random.default_rng(0)
    return pa.table(
        {
            "area_um2": np.exp(rng.normal(3.5, 0.3, n)),
            "circularity": rng.normal(0.85, 0.03, n),
            "hematoxylin_od_mean": rng.normal(0.5, 0.1, n),
        }
    )


@pytest.mark.parametrize(("name", "value"), [("area_um2", 900.0), ("circularity", 0.2), ("hematoxylin_od_mean", 1.9)])
def test_outliers_are_far_from_the_others_in_one_measure(name, value):
    table = population(500)
    values = table[name].to_numpy().copy()
    values[7] = value
    found = outliers(table.set_column(table.schema.get_field_index(name), name, pa.array(values)))
    assert found.tolist() == [k == 7 for k in range(500)]


def test_a_few_or_equal_nuclei_have_no_outliers():
    assert not outliers(population(0)).any()
    assert not outliers(population(19)).any()
    same = pa.table({name: np.ones(50) for name in ("area_um2", "circularity", "hematoxylin_od_mean")})
    assert not outliers(same).any()
