"""Outlines of any 4-connected labels are exact, and thinned ones valid, close and of the same area, at any scale."""

import numpy as np
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from wsipipe.frames import WorkFrame
from wsipipe.instances import split_parts
from wsipipe.outlines import simplify, to_l0, to_shapely, trace


def random_labels(seed: int) -> NDArray[np.int32]:
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 28)), int(rng.integers(1, 28)))
    filled = rng.random(shape) < rng.uniform(0.2, 1)
    for _ in range(int(rng.integers(0, 3))):  # blobs instead of noise
        grown = np.pad(filled, 1, mode="edge").astype(int)
        filled = sum(grown[y : y + shape[0], x : x + shape[1]] for y in range(3) for x in range(3)) >= 5
    return split_parts((filled * rng.integers(1, 1 + int(rng.integers(1, 4)), shape)).astype(np.int32))[0]


@settings(max_examples=150)
@given(
    seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([(0.08, 0.08), (0.5, 0.7), (1, 1), (2.013, 1.999), (8, 8)])
)
def test_outlines_are_exact_valid_and_close(seed, scale):
    labels = random_labels(seed)
    count = np.bincount(labels.ravel())[1:]
    traced = trace(labels, len(count), origin=(5000, 70_000))
    exact = to_shapely(traced)
    assert shapely.is_valid(exact).all()
    assert (shapely.area(exact) == count).all()
    assert all(polygon.exterior.is_ccw and not any(hole.is_ccw for hole in polygon.interiors) for polygon in exact)
    thinned = simplify(traced)
    thin = to_shapely(thinned)
    assert (shapely.hausdorff_distance(exact, thin, densify=0.2) <= 0.75).all()
    assert (np.abs(shapely.area(thin) - count) <= 0.02 * count + 2).all()
    assert shapely.get_num_interior_rings(thin).tolist() == shapely.get_num_interior_rings(exact).tolist()
    frame = WorkFrame(100_000, 100_000, 0.25, 0.25, *scale)
    for outlines in (traced, thinned):
        assert shapely.is_valid(to_shapely(to_l0(outlines, frame))).all()


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32 - 1))
def test_traced_outlines_rasterise_to_their_labels(seed):
    labels = random_labels(seed)
    polygons = to_shapely(trace(labels, int(labels.max()), origin=(0, 0)))
    yy, xx = np.mgrid[: labels.shape[0], : labels.shape[1]] + 0.5
    painted = np.zeros_like(labels)
    for label, polygon in enumerate(polygons, start=1):
        painted[shapely.contains_xy(polygon, xx, yy)] = label
    assert (painted == labels).all()
