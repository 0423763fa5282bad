import cv2
import numpy as np
import pytest

from wsipipe.errors import UsageError
from wsipipe.stainnorm import ColourTransform, StainNorm, parse_stain_norm

SAME = ColourTransform("macenko", "density", (1, 0, 0, 0, 1, 0, 0, 0, 1))
PALER = ColourTransform("macenko", "density", (0.5, 0, 0, 0, 0.5, 0, 0, 0, 0.5))


def colours() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 256, (40, 50, 3), np.uint8)


def test_none_a_method_an_image_and_both_are_understood(tmp_path):
    image = tmp_path / "target.png"
    image.write_bytes(b"x")
    assert parse_stain_norm("none") is None
    assert parse_stain_norm("reinhard") == StainNorm("reinhard", None)
    assert parse_stain_norm(str(image)) == StainNorm("macenko", image)
    assert parse_stain_norm(f"vahadane@{image}") == StainNorm("vahadane", image)


@pytest.mark.parametrize("text", ["nothing", "macenko@missing.png", "ruifrok@", ""])
def test_anything_else_is_refused(text):
    with pytest.raises(UsageError, match="--stain-norm must be none, macenko, reinhard, vahadane, an existing image"):
        parse_stain_norm(text)


def test_identity_follows_the_method_and_the_targets_content(tmp_path):
    one, other = tmp_path / "one.png", tmp_path / "other.png"
    one.write_bytes(b"x")
    other.write_bytes(b"x")
    assert StainNorm("macenko", one).identity == StainNorm("macenko", other).identity
    assert StainNorm("macenko", one).identity != StainNorm("reinhard", one).identity
    before = StainNorm("macenko", one).identity
    one.write_bytes(b"y")
    assert StainNorm("macenko", one).identity != before


def test_the_unit_matrix_keeps_colours_to_one_step():
    rgb = colours()
    assert np.abs(SAME.apply(rgb).astype(int) - rgb).max() <= 1


def test_half_the_density_is_the_square_root_of_the_light():
    rgb = colours()
    expected = 255 * np.sqrt(rgb / 255)
    assert np.abs(PALER.apply(rgb) - expected).max() <= 1


def test_equal_means_and_deviations_in_lab_keep_what_lab_can_hold():
    same = ColourTransform("reinhard", "lab", (50, 1, 50, 3, 1, 3, -4, 1, -4))
    rgb = colours()
    through = cv2.cvtColor(cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB), cv2.COLOR_LAB2RGB)
    assert np.abs(same.apply(rgb).astype(int) - through).mean() < 3, "values are cut to whole steps"


def test_lab_moves_the_mean_to_the_targets():
    lift = ColourTransform("reinhard", "lab", (40, 0.5, 70, 0, 1, 0, 0, 1, 0))
    rgb = np.full((4, 4, 3), 94, np.uint8)  # L = 40
    light = cv2.cvtColor(lift.apply(rgb), cv2.COLOR_RGB2LAB)[0, 0, 0] / 2.55
    assert abs(light - 70) < 1


@pytest.mark.parametrize("transform", [PALER, ColourTransform("reinhard", "lab", (40, 2, 60, 1, 2, 3, 4, 0.5, 6))])
def test_a_pixel_depends_on_nothing_else(transform):
    rgb = colours()
    whole = transform.apply(rgb)
    part = np.ascontiguousarray(rgb[7:31, 13:44])
    assert (transform.apply(part) == whole[7:31, 13:44]).all()


def test_a_transform_survives_json():
    assert ColourTransform.from_json(PALER.to_json()) == PALER
