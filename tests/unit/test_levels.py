import numpy as np
import openslide
import pytest
from support_slides import spoil_tile, texture, write_slide

from wsipipe.errors import SlideReadError
from wsipipe.grid import Box
from wsipipe.levels import OpenSlideLevels, level_size_in, true_downsample


@pytest.mark.parametrize(
    ("l0_size", "level_size", "reported", "expected"),
    [
        ((4443, 3567), (2221, 1783), 2.0005, 2.0),  # halved, rest cut off
        ((1001, 777), (251, 195), 3.986, 4.0),  # quartered, rest kept
        ((1000, 800), (1000, 800), 1.0, 1.0),
        ((1000, 800), (300, 240), 3.3333, 3.3333),
        ((10000, 8000), (2490, 1992), 4.016, 4.016),  # 4 would leave 10 px over
    ],
)
def test_a_downsample_is_whole_where_the_sizes_admit_it(l0_size, level_size, reported, expected):
    assert true_downsample(l0_size, level_size, reported) == expected


def test_a_level_cut_to_bounds_holds_whole_px_only():
    assert level_size_in(Box(0, 0, 101, 50), (101, 50), (26, 13), 4.0) == (26, 13)
    assert level_size_in(Box(7, 9, 108, 59), (500, 500), (125, 125), 4.0) == (25, 12)
    assert level_size_in(Box(7, 9, 9, 11), (500, 500), (125, 125), 4.0) == (1, 1)


def test_large_requests_are_the_same_px_as_small_ones(tmp_path, monkeypatch):
    path = write_slide(tmp_path / "x.tif", texture(300, 200), compression="deflate")
    levels = OpenSlideLevels(path, openslide.OpenSlide(path), (0, 0))
    whole = levels.read_level(0, Box(0, 0, 300, 200))
    monkeypatch.setattr("wsipipe.levels._CALL_SIDE", 70)
    np.testing.assert_array_equal(levels.read_level(0, Box(0, 0, 300, 200)), whole)


def test_a_slide_that_vanished_after_an_error_says_so(tmp_path):
    path = write_slide(tmp_path / "x.tif", texture(128, 64), compression="deflate")
    spoil_tile(path, page=0, index=1, keep=2)
    levels = OpenSlideLevels(path, openslide.OpenSlide(path), (0, 0))
    path.unlink()
    with pytest.raises(SlideReadError, match="can no longer be opened"):
        levels.read_level(0, Box(64, 0, 128, 64))
