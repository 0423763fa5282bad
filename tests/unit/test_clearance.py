"""Distances of edges, and polygons that keep or break their clearance."""

import numpy as np
import pytest

from wsipipe.clearance import GAP, is_clear, squared_distance


def clear(*rings: list[tuple[float, float]]) -> bool:
    closed = [np.array([*ring, ring[0]], float) for ring in rings]
    starts = np.concatenate([[0], np.cumsum([len(ring) for ring in closed])]).astype(np.int64)
    return is_clear(np.concatenate(closed), starts, 0, len(rings))


SQUARE = [(0.0, 0.0), (9.0, 0.0), (9.0, 9.0), (0.0, 9.0)]


def test_distance_to_a_segment_is_to_its_nearest_point():
    assert squared_distance(1.0, 2.0, 0.0, 0.0, 4.0, 0.0) == 4
    assert squared_distance(-3.0, 4.0, 0.0, 0.0, 4.0, 0.0) == 25
    assert squared_distance(7.0, 4.0, 0.0, 0.0, 4.0, 0.0) == 25
    assert squared_distance(3.0, 4.0, 0.0, 0.0, 0.0, 0.0) == 25


def test_a_plain_ring_and_a_hole_inside_it_are_clear():
    assert clear(SQUARE)
    assert clear(SQUARE, [(3, 3), (3, 5), (5, 5), (5, 3)])


@pytest.mark.parametrize(
    "ring",
    [
        [(0, 0), (9, 9), (9, 0), (0, 9)],
        [(0, 0), (9, 0), (5, 0.1), (9, 9)],
        [(0, 0), (9, 0), (9, 9), (4, GAP / 2), (0, 9)],
        [(0, 0), (GAP / 2, 0), (9, 9), (0, 9)],
    ],
    ids=["bow tie", "spike", "touching waist", "short edge"],
)
def test_rings_that_rounding_could_break_are_not_clear(ring):
    assert not clear(ring)


def test_a_hole_too_near_to_the_exterior_is_not_clear():
    assert not clear(SQUARE, [(GAP / 2, 3), (GAP / 2, 5), (5, 5), (5, 3)])
    assert not clear(SQUARE, [(3, 3), (3, 5), (12, 5), (12, 3)])


@pytest.mark.parametrize("n", [20, 200])
def test_few_and_many_edges_are_judged_alike(n):
    angle = np.arange(n) / n * 2 * np.pi
    ring = [(50 * np.cos(a), 50 * np.sin(a)) for a in angle]
    assert clear(ring)
    ring[n // 2], ring[n // 2 + 1] = ring[n // 2 + 1], ring[n // 2]
    assert not clear(ring)
