"""Every measurement of a nucleus: from its pixels, from its polygon, and from the nuclei around it.

docs/columns.md lists the columns with unit, formula and source. Pixels give area, centroid, ellipse, stains and
colours; the polygon (`outlines.simplify`, whose length follows the course of the edge, not the stairs of its pixels)
gives perimeter, circularity, solidity and diameters, by QuPath's formulas: QuPath finds the same values in the GeoJSON.
"""

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from wsipipe import shape
from wsipipe.frames import WorkFrame
from wsipipe.nuclei import Outlines
from wsipipe.stain import StainVectors, unmix_tables

NEIGHBOUR_RADIUS_UM = 50.0
OUTLIER_LIMIT = 5.0  # robust standard deviations
MIN_FOR_OUTLIERS = 20  # nuclei; fewer have no typical value
_MAD_TO_SD = 1.4826  # of a normal distribution
_QUERY = 65_536  # nuclei asked for at once; bounds the memory of the neighbour search

_FLOATS = (
    "area_um2",
    "perimeter_um",
    "equivalent_diameter_um",
    "major_axis_um",
    "minor_axis_um",
    "eccentricity",
    "orientation_rad",
    "solidity",
    "circularity",
    "max_diameter_um",
    "min_diameter_um",
    "hematoxylin_od_mean",
    "hematoxylin_od_std",
    "hematoxylin_od_min",
    "hematoxylin_od_max",
    "eosin_od_mean",
    "eosin_od_std",
    "red_mean",
    "green_mean",
    "blue_mean",
)
BLOCK_SCHEMA = pa.schema(
    [
        pa.field("class_name", pa.string(), nullable=False),
        pa.field("class_prob", pa.float32()),
        pa.field("centroid_x_l0", pa.float64(), nullable=False),
        pa.field("centroid_y_l0", pa.float64(), nullable=False),
        *(pa.field(name, pa.float32(), nullable=False) for name in _FLOATS),
        pa.field("touches_edge", pa.bool_(), nullable=False),
    ]
)

# Columns of the per-label sums.
_N, _X0, _Y0, _X, _Y, _XX, _XY, _YY, _RED, _GREEN, _BLUE, _EDGE = range(12)
_H, _H2, _E, _E2, _H_MIN, _H_MAX = range(6)


@dataclass(frozen=True, slots=True)
class Classes:
    """Classes of n nuclei.

    Attributes:
        names: what the ids mean; names[0] is the unclassified class.
        class_id: int (n + 1,), as in `segmenter.InstanceWindow`; [0] is ignored.
        class_prob: float32 (n + 1,), NaN where unclassified.
    """

    names: tuple[str, ...]
    class_id: NDArray[np.int16]
    class_prob: NDArray[np.float32]


def unclassified(n: int, name: str = "Nucleus") -> Classes:
    """Return n nuclei of one class without a probability."""
    return Classes((name,), np.zeros(n + 1, np.int16), np.full(n + 1, np.nan, dtype=np.float32))


def measure(
    labels: NDArray[np.int32],
    rgb: NDArray[np.uint8],
    outlines: Outlines,
    classes: Classes,
    *,
    frame: WorkFrame,
    stain: StainVectors,
    origin: tuple[int, int],
) -> pa.Table:
    """Measure the nuclei of one block.

    Args:
        labels: (H, W) int32, 0 = background, 1..n, n = len(outlines), each present.
        rgb: (H, W, 3) uint8, the same pixels.
        outlines: polygon i is label i + 1; simplified, work px.
        classes: of the n labels.
        frame: scale and size of the work grid.
        stain: vectors for colour deconvolution.
        origin: (x, y) of labels[0, 0] in work px.

    Returns:
        n rows of BLOCK_SCHEMA, row i = label i + 1; without NaN, class_prob null where unclassified.
    """
    n = len(outlines)
    if rgb.shape != (*labels.shape, 3) or len(classes.class_id) != n + 1:
        raise ValueError(
            f"labels, rgb and classes must fit, got {labels.shape}, {rgb.shape} and {len(classes.class_id) - 1} classes"
            f" of {n} outlines"
        )
    counts, stains = _sum_pixels(
        np.ascontiguousarray(labels),
        np.ascontiguousarray(rgb),
        unmix_tables(stain),
        n,
        (-origin[0], -origin[1], frame.width - 1 - origin[0], frame.height - 1 - origin[1]),
    )
    if n and not counts[:, _N].all():
        raise ValueError(f"each label of 1..{n} must have pixels, label {int(np.argmin(counts[:, _N])) + 1} has none")
    columns: dict[str, object] = {
        "class_name": pa.array(np.array(classes.names, dtype=object)[classes.class_id[1:]], pa.string()),
        "class_prob": pa.array(classes.class_prob[1:], pa.float32(), from_pandas=True),
        "touches_edge": counts[:, _EDGE] > 0,
        **_pixel_columns(counts, frame, origin),
        **_polygon_columns(outlines, frame),
        **_stain_columns(counts, stains),
    }
    return pa.table([pa.array(columns[f.name], f.type) for f in BLOCK_SCHEMA], schema=BLOCK_SCHEMA)


@njit(cache=True, nogil=True)
def _sum_pixels(
    labels: NDArray[np.int32],
    rgb: NDArray[np.uint8],
    tables: NDArray[np.float32],
    n: int,
    edges: tuple[int, int, int, int],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Sum what is measured on pixels, in raster order, so that sums do not depend on the window.

    Args:
        labels: (H, W), 0..n.
        rgb: (H, W, 3).
        tables: from `unmix_tables`.
        n: number of labels.
        edges: first column, first row, last column, last row of the work grid, relative to labels.

    Returns:
        int64 (n, 12) and float64 (n, 6); coordinates are relative to the label's first pixel (_X0, _Y0).
    """
    counts = np.zeros((n, 12), np.int64)
    stains = np.zeros((n, 6), np.float64)
    stains[:, _H_MIN] = np.inf
    stains[:, _H_MAX] = -np.inf
    for y in range(labels.shape[0]):
        at_edge = y == edges[1] or y == edges[3]
        for x in range(labels.shape[1]):
            if labels[y, x] == 0:
                continue
            i = labels[y, x] - 1
            if counts[i, _N] == 0:
                counts[i, _X0], counts[i, _Y0] = x, y
            counts[i, _N] += 1
            dx, dy = x - counts[i, _X0], y - counts[i, _Y0]
            counts[i, _X] += dx
            counts[i, _Y] += dy
            counts[i, _XX] += dx * dx
            counts[i, _XY] += dx * dy
            counts[i, _YY] += dy * dy
            red, green, blue = rgb[y, x, 0], rgb[y, x, 1], rgb[y, x, 2]
            counts[i, _RED] += red
            counts[i, _GREEN] += green
            counts[i, _BLUE] += blue
            if at_edge or x == edges[0] or x == edges[2]:
                counts[i, _EDGE] = 1
            h = np.float64(tables[0, red, 0]) + tables[1, green, 0] + tables[2, blue, 0]
            e = np.float64(tables[0, red, 1]) + tables[1, green, 1] + tables[2, blue, 1]
            stains[i, _H] += h
            stains[i, _H2] += h * h
            stains[i, _E] += e
            stains[i, _E2] += e * e
            stains[i, _H_MIN] = min(stains[i, _H_MIN], h)
            stains[i, _H_MAX] = max(stains[i, _H_MAX], h)
    return counts, stains


def _pixel_columns(counts: NDArray[np.int64], frame: WorkFrame, origin: tuple[int, int]) -> dict[str, object]:
    """Area, centroid, and the ellipse of equal second moments; a pixel is a square, hence the 1/12."""
    pixels = counts[:, _N].astype(np.float64)
    x, y = counts[:, _X] / pixels, counts[:, _Y] / pixels
    xx = (counts[:, _XX] / pixels - x * x + 1 / 12) * frame.mpp_x**2
    yy = (counts[:, _YY] / pixels - y * y + 1 / 12) * frame.mpp_y**2
    xy = (counts[:, _XY] / pixels - x * y) * frame.mpp_x * frame.mpp_y
    middle, half = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    large, small = middle + half, np.maximum(middle - half, 0)
    area = pixels * frame.mpp_x * frame.mpp_y
    return {
        "centroid_x_l0": (counts[:, _X0] + origin[0] + (x + 0.5)) * frame.scale_x,
        "centroid_y_l0": (counts[:, _Y0] + origin[1] + (y + 0.5)) * frame.scale_y,
        "area_um2": area,
        "equivalent_diameter_um": np.sqrt(4 / math.pi * area),
        "major_axis_um": 4 * np.sqrt(large),
        "minor_axis_um": 4 * np.sqrt(small),
        "eccentricity": np.sqrt(1 - small / large),
        "orientation_rad": np.arctan2(2 * xy, xx - yy) / 2,
    }


def _polygon_columns(outlines: Outlines, frame: WorkFrame) -> dict[str, object]:
    shapes = shape.measure_polygons(
        outlines.coords, outlines.ring_starts, outlines.polygon_starts, frame.mpp_x, frame.mpp_y
    )
    return {
        "perimeter_um": shapes[:, shape.PERIMETER],
        "circularity": shapes[:, shape.CIRCULARITY],
        "solidity": shapes[:, shape.SOLIDITY],
        "max_diameter_um": shapes[:, shape.MAX_DIAMETER],
        "min_diameter_um": shapes[:, shape.MIN_DIAMETER],
    }


def _stain_columns(counts: NDArray[np.int64], stains: NDArray[np.float64]) -> dict[str, object]:
    """Mean and sample standard deviation (n - 1, 0 for one pixel, as QuPath has it) of stains, mean of colours."""
    pixels = counts[:, _N].astype(np.float64)

    def spread(total: int, squares: int) -> NDArray[np.float64]:
        variance = (stains[:, squares] - stains[:, total] ** 2 / pixels) / np.maximum(pixels - 1, 1)
        return np.asarray(np.sqrt(np.maximum(variance, 0)))

    return {
        "hematoxylin_od_mean": stains[:, _H] / pixels,
        "hematoxylin_od_std": spread(_H, _H2),
        "hematoxylin_od_min": stains[:, _H_MIN],
        "hematoxylin_od_max": stains[:, _H_MAX],
        "eosin_od_mean": stains[:, _E] / pixels,
        "eosin_od_std": spread(_E, _E2),
        "red_mean": counts[:, _RED] / pixels,
        "green_mean": counts[:, _GREEN] / pixels,
        "blue_mean": counts[:, _BLUE] / pixels,
    }


def neighbours(
    centroids_um: NDArray[np.float64], radius_um: float = NEIGHBOUR_RADIUS_UM
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Find the nearest other centroid, and how many others lie within a radius.

    Args:
        centroids_um: (n, 2) x, y in um.
        radius_um: of the disk around each centroid, its edge included.

    Returns:
        Distance in um, float32 (n,), NaN where there is no other; count, int32 (n,).
    """
    n = len(centroids_um)
    distance = np.full(n, np.nan, dtype=np.float32)
    count = np.zeros(n, np.int32)
    if n < 2:
        return distance, count
    tree = cKDTree(centroids_um)
    for start in range(0, n, _QUERY):
        asked = centroids_um[start : start + _QUERY]
        distance[start : start + _QUERY] = tree.query(asked, k=2)[0][:, 1]
        count[start : start + _QUERY] = tree.query_ball_point(asked, radius_um, return_length=True) - 1
    return distance, count


def outliers(table: pa.Table) -> NDArray[np.bool_]:
    """Tell which nuclei are unlike the slide's others.

    A nucleus is an outlier when the logarithm of its area, its circularity or its mean hematoxylin lies more than
    OUTLIER_LIMIT robust standard deviations (1.4826 times the median absolute deviation) from the slide's median.

    Args:
        table: the slide's nuclei, with area_um2, circularity and hematoxylin_od_mean.

    Returns:
        bool (n,); all False where a slide has fewer than MIN_FOR_OUTLIERS nuclei.
    """
    found = np.zeros(table.num_rows, np.bool_)
    if table.num_rows < MIN_FOR_OUTLIERS:
        return found
    for name in ("area_um2", "circularity", "hematoxylin_od_mean"):
        values = table[name].to_numpy().astype(np.float64)
        if name == "area_um2":
            values = np.log(values)
        away = np.abs(values - np.median(values))
        scale = _MAD_TO_SD * np.median(away)
        if scale > 0:
            found |= away > OUTLIER_LIMIT * scale
    return found
