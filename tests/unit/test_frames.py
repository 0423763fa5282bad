import math

import pytest

from wsipipe.frames import WorkFrame, work_frame


def test_a_slide_at_the_models_mpp_is_used_as_it_is():
    frame = work_frame((1000, 800), (0.2521, 0.2521), 0.25)
    assert (frame.scale_x, frame.width, frame.height) == (1.0, 1000, 800)
    assert frame.mpp == pytest.approx(0.2521)


def test_a_pyramid_level_near_the_models_mpp_is_used_as_it_is():
    frame = work_frame((8000, 4000), (0.25, 0.25), 1.0, (1.0, 4.0003, 16.0))
    assert frame.scale_x == 4.0003
    assert frame.width == math.ceil(8000 / 4.0003)


def test_otherwise_the_work_grid_has_exactly_the_models_mpp():
    frame = work_frame((2220, 2967), (0.499, 0.499), 0.25)
    assert frame.mpp == pytest.approx(0.25)
    assert frame.width == math.ceil(2220 * 0.499 / 0.25)


def test_unequal_mpp_is_scaled_to_square_work_pixels():
    frame = work_frame((1000, 1000), (0.5, 0.504), 0.25)
    assert frame.mpp_x == pytest.approx(0.25)
    assert frame.mpp_y == pytest.approx(0.25)


def test_a_slide_of_one_pixel_has_a_work_grid_of_one_pixel():
    frame = work_frame((1, 1), (0.1, 0.1), 0.5)
    assert (frame.width, frame.height) == (1, 1)


def test_impossible_scales_are_refused():
    with pytest.raises(ValueError, match="model_mpp"):
        work_frame((10, 10), (0.25, 0.25), 0)
    with pytest.raises(ValueError, match="positive"):
        WorkFrame(0, 10, 0.25, 0.25, 1, 1)
