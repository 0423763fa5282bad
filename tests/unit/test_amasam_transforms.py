"""Patches: image and labels move together, mpp is honoured, colours change and places do not."""

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amasam.data.augment import PAD_RGB, AugmentConfig, PatchSize, cut_patch, resize_whole
from amasam.data.colour import ColourConfig, jitter_colour, restain
from amasam.data.geometry import MAX_SPAN, UPRIGHT, GeometryConfig, draw_centre, draw_shape, warp_patch
from amasam.data.samples import Sample
from wsipipe.stain import QUPATH_HE

GREY = ColourConfig(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)  # every change switched off
GEOMETRY_ONLY = AugmentConfig("robust", GeometryConfig(), GREY)


def blobs(size: int = 200, mpp: float = 0.25) -> Sample:
    """Dark disks on white; each disk's red value is its label, so the image tells where every label must be."""
    rng = np.random.default_rng(0)
    labels = np.zeros((size, size), np.int32)
    for label in range(1, 60):
        row, col = rng.integers(0, size, 2)
        cv2.circle(labels, (int(col), int(row)), 9, label, -1)
    image = np.full((size, size, 3), 255, np.uint8)
    image[labels > 0] = 40
    return Sample(image, labels, "blobs", "x", "p", mpp)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * np.sum(one & other) / max(1, np.sum(one) + np.sum(other))


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.sampled_from([0.1, 0.25, 0.5]))
def test_image_and_labels_stay_aligned_under_every_geometry(seed: int, mpp: float) -> None:
    patch = cut_patch(blobs(mpp=mpp), np.random.default_rng(seed), GEOMETRY_ONLY, PatchSize(96, 0.25, 16))
    inside = patch.labels[16:-16, 16:-16] > 0
    assert patch.image.shape == (96, 96, 3)
    assert dice(patch.image[..., 0] < 148, inside) > 0.9 or inside.mean() < 0.02


def test_labels_stay_aligned_under_the_whole_robust_preset() -> None:
    scores = []
    for seed in range(12):
        patch = cut_patch(blobs(), np.random.default_rng(seed), AugmentConfig(), PatchSize(128, 0.25, 8))
        inside = patch.labels[8:-8, 8:-8] > 0
        grey = patch.image.mean(axis=2)
        threshold = (grey[inside].mean() + grey[~inside].mean()) / 2
        scores.append(dice(grey < threshold, inside))
    assert min(scores) > 0.85


def test_an_upright_patch_at_the_samples_own_mpp_is_an_exact_copy() -> None:
    sample = blobs()
    patch = cut_patch(sample, np.random.default_rng(3), AugmentConfig("plain"), PatchSize(64, 0.25, 0))
    windows = np.lib.stride_tricks.sliding_window_view(sample.labels, (64, 64))
    row, col = np.argwhere((windows == patch.labels).all(axis=(2, 3)))[0]
    np.testing.assert_array_equal(patch.image, sample.image[row : row + 64, col : col + 64])
    assert patch.zoom == 1


def test_quarter_turns_and_mirrors_copy_pixels_too() -> None:
    sample = blobs()
    config = GeometryConfig((1, 1), (1, 1), 0, any_angle=0, stretch=0, shear=0)
    seen = set()
    for seed in range(30):
        shape, _ = draw_shape(np.random.default_rng(seed), config, sample, mpp=0.25, size=64)
        seen.add(shape.tobytes())
        image, labels = warp_patch(
            sample, shape, draw_centre(np.random.default_rng(1), sample, shape, 64, None), size=64, margin=0
        )
        assert set(np.unique(image)) == {40, 255}
        np.testing.assert_array_equal(image[..., 0] == 40, labels > 0)
    assert len(seen) == 8


@pytest.mark.parametrize(("mpp", "area"), [(0.25, 1.0), (0.5, 4.0), (0.125, 0.25)])
def test_nuclei_have_the_size_of_the_patch_mpp_whatever_the_samples(mpp: float, area: float) -> None:
    labels = np.zeros((300, 300), np.int32)
    cv2.circle(labels, (150, 150), 20, 1, -1)
    sample = Sample(np.full((300, 300, 3), 200, np.uint8), labels, "a", "x", "p", mpp)
    shape, _ = draw_shape(np.random.default_rng(0), UPRIGHT, sample, mpp=0.25, size=128)
    _, found = warp_patch(sample, shape, (150, 150), size=128, margin=0)
    assert np.count_nonzero(found) == pytest.approx(area * np.count_nonzero(labels), rel=0.02)


def test_magnification_keeps_its_range_and_the_narrow_one_its_share() -> None:
    config = GeometryConfig(scale=(0.4, 0.5), near_scale=(0.9, 1.1), near_share=0.7)
    sample = blobs(900)
    zooms = [draw_shape(np.random.default_rng(k), config, sample, mpp=0.25, size=64)[1] for k in range(400)]
    near = [zoom for zoom in zooms if zoom > 0.6]
    assert 0.4 <= min(zooms) < 0.45
    assert (min(near) >= 0.9, max(near) <= 1.1) == (True, True)
    assert len(near) / 400 == pytest.approx(0.7, abs=0.07)


def test_a_patch_never_spans_much_more_than_a_small_image() -> None:
    sample = blobs(100)
    for seed in range(20):
        shape, zoom = draw_shape(np.random.default_rng(seed), GeometryConfig(), sample, mpp=0.25, size=128)
        assert 128 / zoom <= MAX_SPAN * 100 * (1 + 1e-9)
        assert math.sqrt(abs(np.linalg.det(shape))) * 128 <= MAX_SPAN * 100 * (1 + 1e-9)


def test_upright_patches_stay_inside_the_image_and_aimed_ones_see_their_nucleus() -> None:
    sample = blobs(300)
    shape = np.eye(2)
    for seed in range(40):
        x, y = draw_centre(np.random.default_rng(seed), sample, shape, 64, None)
        assert 31.5 <= min(x, y) <= max(x, y) <= 300 - 32.5
        x, y = draw_centre(np.random.default_rng(seed), sample, shape, 64, (150.0, 10.0))
        assert abs(x - 150) <= 17
        assert y <= 33


def test_beyond_the_image_lies_its_mirror_image() -> None:
    sample = blobs(80)
    image, labels = warp_patch(sample, np.eye(2), (39.5, 39.5), size=100, margin=0)
    np.testing.assert_array_equal(image, np.pad(sample.image, ((10, 10), (10, 10), (0, 0)), mode="symmetric"))
    np.testing.assert_array_equal(labels, np.pad(sample.labels, 10, mode="symmetric"))


def test_shrinking_averages_instead_of_picking_pixels() -> None:
    board = ((np.indices((256, 256)).sum(axis=0) % 2) * 255).astype(np.uint8)
    sample = Sample(np.dstack([board] * 3), np.zeros((256, 256), np.int32), "a", "x", "p", 0.25)
    image, _ = warp_patch(sample, 2.5 * np.eye(2), (128, 128), size=64, margin=0)
    assert image.std() < 12
    assert image.mean() == pytest.approx(127.5, abs=3)


def test_unchanged_densities_give_the_same_image_and_halved_ones_a_paler() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    same = restain(image, np.eye(3, dtype=np.float32), np.zeros(3, np.float32))
    assert np.abs(same.astype(int) - image).max() <= 1
    pale = restain(image, 0.5 * np.eye(3, dtype=np.float32), np.zeros(3, np.float32))
    np.testing.assert_allclose(pale, np.sqrt(np.maximum(image, 1) * 255.0), atol=1.5)


def test_stain_changes_follow_the_stain() -> None:
    """Pure hematoxylin of OD 0.5 at double strength has OD 1.0 along the same vector."""
    vector, eosin = np.array(QUPATH_HE.hematoxylin), np.array(QUPATH_HE.eosin)
    pixel = np.round(255 * 10 ** (-0.5 * vector)).astype(np.uint8)[None, None]
    rest = np.cross(vector, eosin)
    stains = np.stack([vector, eosin, rest / np.linalg.norm(rest)])
    double = np.linalg.inv(stains) @ np.diag([2.0, 1, 1]) @ stains
    found = restain(pixel, double.astype(np.float32), np.zeros(3, np.float32))
    np.testing.assert_allclose(found[0, 0], 255 * 10 ** (-1.0 * vector), atol=3)


def test_with_all_strengths_at_zero_colours_stay() -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    assert np.abs(jitter_colour(image, np.random.default_rng(1), GREY).astype(int) - image).max() <= 1


@pytest.mark.parametrize("part", ["blur", "sharpen", "noise", "jpeg", "coarse", "grey"])
def test_each_part_changes_the_image_but_not_much(part: str) -> None:
    image = np.clip(np.random.default_rng(0).normal(170, 25, (64, 64, 3)), 0, 255).astype(np.uint8)
    image = cv2.GaussianBlur(image, (0, 0), 2.0)
    changed = jitter_colour(image, np.random.default_rng(1), replace(GREY, **{part: 1.0}))
    difference = np.abs(changed.astype(float) - image)
    assert 0 < difference.mean() < 20
    assert changed.shape == image.shape


def test_the_paper_preset_resizes_the_whole_image_and_marks_padding() -> None:
    labels = np.zeros((50, 100), np.int32)
    labels[10:20, 30:50] = 4
    image = np.full((50, 100, 3), 200, np.uint8)
    whole = resize_whole(Sample(image, labels, "a", "x", "p", 0.25), 200)
    assert whole.zoom == 2
    assert whole.valid.sum() == 200 * 100
    assert (whole.image[100:] == PAD_RGB).all()
    assert (whole.image[:100] == 200).all()
    expected = np.zeros((200, 200), np.int32)
    expected[20:40, 60:100] = 4
    np.testing.assert_array_equal(whole.labels, expected)


def test_the_paper_preset_turns_image_labels_and_padding_together() -> None:
    sample = blobs(60)
    sample = replace(sample, image=sample.image[:40], labels=sample.labels[:40])
    seen = set()
    for seed in range(40):
        patch = cut_patch(sample, np.random.default_rng(seed), AugmentConfig("paper"), PatchSize(64, 0.25, 4))
        inside = patch.labels[4:-4, 4:-4]
        assert (
            dice((patch.image[..., 0] < 148) & (patch.valid > 0) & (patch.image[..., 1] != PAD_RGB[1]), inside > 0)
            > 0.93
        )
        assert not inside[patch.valid == 0].any()
        seen.add(inside.tobytes())
    assert len(seen) == 8


def test_the_same_seed_gives_the_same_patch() -> None:
    one, other = (cut_patch(blobs(), np.random.default_rng((5, 1)), AugmentConfig(), PatchSize()) for _ in range(2))
    np.testing.assert_array_equal(one.image, other.image)
    np.testing.assert_array_equal(one.labels, other.labels)


def test_wrong_presets_and_ranges_are_refused() -> None:
    with pytest.raises(ValueError, match="preset must be"):
        AugmentConfig("strong")
    with pytest.raises(ValueError, match="scale ranges"):
        GeometryConfig(scale=(1.2, 0.8))
