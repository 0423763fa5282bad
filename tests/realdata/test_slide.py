import numpy as np
import openslide
import pytest

from wsipipe.errors import ScaleError, SlideOpenError, SlideReadError
from wsipipe.frames import WorkFrame, work_frame
from wsipipe.grid import Box
from wsipipe.slide import open_slide

pytestmark = pytest.mark.realdata

CMU, TCGA = "cmu-1-small-region.svs", "tcga-cr-7395-01a-01-ts1.svs"


def by_openslide(path, level):
    with openslide.OpenSlide(path) as plain:
        width, height = plain.level_dimensions[level]
        return np.asarray(plain.read_region((0, 0), level, (width, min(height, 1300))).convert("RGB"))


@pytest.mark.parametrize(("name", "mpp"), [(CMU, None), (TCGA, 0.25)])
def test_px_of_a_real_slide_equal_openslides(data_root, name, mpp):
    path = data_root / "slides" / name
    with open_slide(path, mpp=mpp) as slide:
        assert slide.reader == "jpegtiff"
        for level, downsample in enumerate(slide.downsamples):
            expected = by_openslide(path, level)
            frame = WorkFrame(slide.width, slide.height, slide.mpp.x, slide.mpp.y, downsample, downsample)
            height, width = expected.shape[:2]
            np.testing.assert_array_equal(slide.read(Box(0, 0, width, height), frame), expected)


def test_the_20x_slide_describes_itself(data_root):
    with open_slide(data_root / "slides" / CMU) as slide:
        assert (slide.width, slide.height, slide.mpp.x, slide.objective_power) == (2220, 2967, 0.499, 20.0)
        assert slide.downsamples == (1.0,)
        frame = work_frame((slide.width, slide.height), (slide.mpp.x, slide.mpp.y), 0.5, slide.downsamples)
        assert frame.scale_x == 1.0


def test_the_tcga_slide_needs_its_mpp_and_has_a_level_made_by_halving(data_root):
    path = data_root / "slides" / TCGA
    with pytest.raises(ScaleError, match=f"--mpp 0.25 for a 40x scan: .*{TCGA}"):
        open_slide(path)
    with open_slide(path, mpp=0.25) as slide:
        assert slide.downsamples == (1.0, 2.0)
        assert slide.mpp.source == "option"


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("broken.svs", SlideOpenError, "not a slide"),
        ("unopenable.tiff", SlideOpenError, "compression"),
        ("unreadable.svs", SlideReadError, "damaged"),
        ("boxes.tiff", ScaleError, "352"),
    ],
)
def test_each_odd_file_gets_one_clear_line(data_root, name, error, message):
    path = data_root / "slides" / "odd" / name
    with pytest.raises(error, match=message) as caught:
        open_slide(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_slide_of_16_px_can_be_read(data_root):
    with open_slide(data_root / "slides" / "odd" / "small.svs") as slide:
        frame = work_frame((16, 16), (slide.mpp.x, slide.mpp.y), 0.25)
        got = slide.read(Box(-10, -10, 50, 50), frame)
    assert (got[:10] == 255).all()
    assert got[10:42, 10:42].mean() < 250
