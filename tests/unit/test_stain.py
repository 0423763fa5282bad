"""Optical density, unmixing, and the estimate of stain vectors."""

import numpy as np
import pytest

from wsipipe.stain import QUPATH_HE, StainVectors, estimate_macenko, od, stain_vectors, unmix


def stained(stain: StainVectors, amounts: np.ndarray) -> np.ndarray:
    """Return the colours of (N, 2) amounts of hematoxylin and eosin, uint8 (N, 3), by Beer and Lambert's law."""
    density = amounts @ np.array([stain.hematoxylin, stain.eosin])
    return np.clip(np.round(255 * 10.0**-density), 0, 255).astype(np.uint8)


def angle(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    return float(np.rad2deg(np.arccos(np.clip(np.dot(a, b), -1, 1))))


def test_od_is_zero_at_white_and_finite_at_black():
    assert od(np.array([255, 0, 1, 26], np.uint8)).tolist() == pytest.approx([0, 2.40654, 2.40654, 0.99157], abs=1e-5)
    assert od(np.array([250], np.uint8), 240).tolist() == [0]


def test_default_vectors_are_qupaths_as_unit_vectors():
    assert QUPATH_HE.hematoxylin == pytest.approx((0.651, 0.701, 0.290), abs=1e-3)
    assert QUPATH_HE.eosin == pytest.approx((0.216, 0.801, 0.558), abs=1e-3)
    vectors = np.array([QUPATH_HE.hematoxylin, QUPATH_HE.eosin, QUPATH_HE.residual])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1)
    assert vectors[:2] @ vectors[2] == pytest.approx(0, abs=1e-12)


def test_unmixing_returns_the_amounts_that_were_mixed():
    amounts = np.random.default_rng(0).uniform(0, 1, (500, 2))
    found = unmix(stained(QUPATH_HE, amounts).reshape(20, 25, 3), QUPATH_HE)
    assert found.shape == (20, 25, 3)
    assert found.dtype == np.float32
    assert np.abs(found.reshape(-1, 3)[:, :2] - amounts).max() < 0.06  # 8-bit colours
    assert np.abs(found[..., 2]).max() < 0.06


def test_white_has_no_stain():
    assert not unmix(np.full((2, 2, 3), 255, np.uint8), QUPATH_HE).any()


@pytest.mark.parametrize("seed", range(3))
def test_macenko_finds_the_vectors_that_were_mixed(seed):
    truth = stain_vectors((0.60, 0.73, 0.33), (0.12, 0.90, 0.42), source="test")
    rng = np.random.default_rng(seed)
    amounts = rng.uniform(0.2, 1, (20_000, 2))
    amounts[::3, 0] = 0.02
    amounts[1::3, 1] = 0.02
    amounts[::3, 1] += 0.4
    found = estimate_macenko(stained(truth, amounts).reshape(100, 200, 3))
    assert angle(found.hematoxylin, truth.hematoxylin) < 6
    assert angle(found.eosin, truth.eosin) < 6
    assert "Macenko" in found.source


def test_hematoxylin_is_the_vector_with_more_red_density():
    rng = np.random.default_rng(1)
    amounts = rng.dirichlet((0.3, 0.3), 20_000) * 0.9
    found = estimate_macenko(stained(QUPATH_HE, amounts))
    assert found.hematoxylin[0] > found.eosin[0]


@pytest.mark.parametrize(
    "sample",
    [
        np.zeros((0, 3), np.uint8),
        np.full((100, 100, 3), 245, np.uint8),
        np.full((100, 100, 3), (120, 60, 140), np.uint8),
        np.random.default_rng(0).integers(100, 104, (100, 100, 3)).astype(np.uint8),
    ],
    ids=["nothing", "glass", "one colour", "grey"],
)
def test_samples_without_two_stains_give_the_defaults_and_say_so(sample):
    found = estimate_macenko(sample)
    assert found.hematoxylin == QUPATH_HE.hematoxylin
    assert found.eosin == QUPATH_HE.eosin
    assert "defaults" in found.source
    assert found.source != QUPATH_HE.source


def test_parallel_vectors_are_refused():
    with pytest.raises(ValueError, match="two directions"):
        stain_vectors((1, 1, 0), (2, 2, 0), source="test")
