"""The value of a work px never depends on the box that was asked for."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support_slides import texture, write_aperio, write_scn, write_slide

from wsipipe.frames import WorkFrame
from wsipipe.grid import Box
from wsipipe.slide import Slide, open_slide

SCALES = [0.5, 0.93, 1.0, 1.61, 2.0, 2.37, 4.0, 4.0003, 9.1]


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    image = texture(331, 275)
    opened = [
        open_slide(write_slide(folder / "pyramid.tif", image, factors=(1, 2, 4))),
        open_slide(write_aperio(folder / "aperio.svs", image, factors=(1, 4), tile=48, ycbcr=True)),
        open_slide(write_slide(folder / "lossless.tif", image, factors=(1, 2), compression="deflate")),
        open_slide(write_scn(folder / "bounds.scn", image, at=(37, 50), around=(500, 400), mpp=0.25)),
    ]
    yield opened
    for slide in opened:
        slide.close()


def frame_of(slide: Slide, scale: float) -> WorkFrame:
    return WorkFrame(slide.width, slide.height, slide.mpp.x, slide.mpp.y, scale, scale)


def cuts(draw, size: int) -> list[int]:
    inner = draw(st.lists(st.integers(-5, size + 5), max_size=3))
    return sorted({-7, size + 7, *inner})


@settings(max_examples=100)
@given(data=st.data())
def test_stitched_reads_of_any_boxes_are_the_read_of_the_whole(slides, data):
    slide = slides[data.draw(st.integers(0, len(slides) - 1))]
    frame = frame_of(slide, data.draw(st.sampled_from(SCALES)))
    xs, ys = cuts(data.draw, frame.width), cuts(data.draw, frame.height)
    around = Box(xs[0], ys[0], xs[-1], ys[-1])
    whole = slide.read(around, frame)
    stitched = np.zeros_like(whole)
    for y0, y1 in itertools.pairwise(ys):
        for x0, x1 in itertools.pairwise(xs):
            box = Box(x0, y0, x1, y1)
            stitched[box.slices(around)] = slide.read(box, frame)
    np.testing.assert_array_equal(stitched, whole)


@settings(max_examples=20)
@given(scale=st.sampled_from(SCALES), limit=st.integers(1, 4000))
def test_reading_in_parts_changes_nothing(slides, scale, limit):
    slide = slides[0]
    frame = frame_of(slide, scale)
    box = Box(0, 0, min(frame.width, 90), min(frame.height, 70))
    expected = slide.read(box, frame)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wsipipe.slide._WINDOW_PX", limit)
        np.testing.assert_array_equal(slide.read(box, frame), expected)
