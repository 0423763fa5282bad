from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openslide
import pytest
import tifffile
from support_slides import blocks, halved, lose_tile, spoil_tile, texture, write_aperio, write_scn, write_slide

from wsipipe.errors import ScaleError, SlideOpenError, SlideReadError
from wsipipe.frames import WorkFrame, work_frame
from wsipipe.grid import Box
from wsipipe.slide import Slide, open_slide


def at_scale(slide: Slide, scale: float) -> WorkFrame:
    return WorkFrame(slide.width, slide.height, slide.mpp.x, slide.mpp.y, scale, scale)


def read_all(slide: Slide, frame: WorkFrame) -> np.ndarray:
    return slide.read(Box(0, 0, frame.width, frame.height), frame)


def by_openslide(path, box: Box, level: int = 0) -> np.ndarray:
    with openslide.OpenSlide(path) as plain:
        return np.asarray(plain.read_region((box.x0, box.y0), level, (box.width, box.height)).convert("RGB"))


@pytest.mark.parametrize("unit", ["CENTIMETER", "INCH"])
def test_a_slide_tells_its_size_mpp_and_levels(tmp_path, unit):
    path = write_slide(tmp_path / "a slide é.tif", texture(300, 200), factors=(1, 2), unit=unit)
    with open_slide(path) as slide:
        assert (slide.width, slide.height, slide.downsamples) == (300, 200, (1.0, 2.0))
        assert slide.mpp.x == pytest.approx(0.25, rel=1e-4)
        assert (slide.mpp.source, slide.objective_power, slide.bounds_origin) == ("slide", None, (0, 0))
        assert (slide.vendor, slide.size_bytes) == ("generic-tiff", path.stat().st_size)


def test_identity_depends_on_the_content_not_on_the_name(tmp_path):
    paths = [
        write_slide(tmp_path / "a.tif", texture(100, 80)),
        write_slide(tmp_path / "b.tif", texture(100, 80)),
        write_slide(tmp_path / "c.tif", texture(100, 80, seed=1)),
    ]
    a, b, c = (open_slide(path).identity for path in paths)
    assert a == b != c


def test_a_slide_without_mpp_is_refused_and_opens_when_told(tmp_path):
    path = write_slide(tmp_path / "x.tif", texture(64, 64), mpp=None)
    with pytest.raises(ScaleError, match=f"--mpp .*{path.name}"):
        open_slide(path)
    assert open_slide(path, mpp=0.5).mpp.x == 0.5


def test_a_slide_that_is_refused_is_closed(tmp_path, monkeypatch):
    path = write_slide(tmp_path / "x.tif", texture(64, 64), mpp=None)
    closed = []
    close = openslide.OpenSlide.close
    monkeypatch.setattr(openslide.OpenSlide, "close", lambda self: closed.append(self) or close(self))
    with pytest.raises(ScaleError):
        open_slide(path)
    assert len(closed) == 1


def test_level_zero_is_copied_and_white_beyond_the_edge(tmp_path):
    path = write_slide(tmp_path / "x.tif", texture(150, 130))
    with open_slide(path) as slide:
        got = slide.read(Box(-20, -10, 180, 160), at_scale(slide, 1.0))
    np.testing.assert_array_equal(got[10:140, 20:170], by_openslide(path, Box(0, 0, 150, 130)))
    got[10:140, 20:170] = 255
    assert (got == 255).all()


def test_a_box_wholly_outside_or_empty_is_white_or_empty(tmp_path):
    with open_slide(write_slide(tmp_path / "x.tif", texture(64, 64))) as slide:
        assert (slide.read(Box(100, 100, 110, 105), at_scale(slide, 1.0)) == 255).all()
        assert slide.read(Box(5, 5, 5, 9), at_scale(slide, 1.0)).shape == (4, 0, 3)


def test_a_frame_of_another_slide_is_refused(tmp_path):
    with (
        open_slide(write_slide(tmp_path / "x.tif", texture(64, 64))) as slide,
        pytest.raises(ValueError, match="must be of this slide"),
    ):
        slide.read(Box(0, 0, 1, 1), WorkFrame(65, 64, 0.25, 0.25, 1, 1))


def test_the_nearest_finer_level_is_averaged(tmp_path):
    image = np.zeros((256, 256, 3), np.uint8)
    path = write_slide(tmp_path / "x.tif", image, factors=(1, 2, 4), compression="deflate")
    with open_slide(path) as slide:
        used = []
        source = slide._source

        class Spy:
            def read_level(self, level, box):
                used.append(level)
                return source.read_level(level, box)

            def close(self):
                source.close()

        object.__setattr__(slide, "_source", Spy())
        for scale in (0.5, 1.0, 1.9, 2.0, 3.9, 4.0, 11.0):
            slide.read(Box(0, 0, 3, 3), at_scale(slide, scale))
    assert used == [0, 0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("compression", ["jpeg", "deflate"])
def test_a_level_whose_downsample_is_no_whole_number_does_not_shift(tmp_path, compression):
    # 1003 px / 250 px = 4.012: taken literally, the last px would lie 3 level-0 px to the left of its place
    ramp = np.broadcast_to(np.arange(1003)[None, :, None] % 200, (403, 1003, 3)).astype(np.uint8)
    path = write_slide(tmp_path / "x.tif", np.ascontiguousarray(ramp), factors=(1, 4), compression=compression)
    with open_slide(path) as slide:
        assert slide.downsamples == (1.0, 4.0)
        got = read_all(slide, at_scale(slide, 4.0))
    expected = halved(ramp, 4).astype(int)
    smooth = np.flatnonzero(np.abs(np.gradient(expected[0, :, 0])) < 6)[1:-1]  # away from where the ramp starts anew
    difference = np.abs(got[:100, smooth].astype(int) - expected[:, smooth])
    assert got.shape == (101, 251, 3)
    assert np.percentile(difference, 99) <= (4 if compression == "jpeg" else 1)


def test_enlargement_is_bilinear(tmp_path):
    image = np.ascontiguousarray(np.broadcast_to(np.arange(64)[None, :, None] * 4, (64, 64, 3)).astype(np.uint8))
    with open_slide(write_slide(tmp_path / "x.tif", image, compression="deflate")) as slide:
        got = read_all(slide, at_scale(slide, 0.5))[0, :, 0]
    expected = np.clip((np.arange(128) + 0.5) * 0.5 - 0.5, 0, 63) * 4
    np.testing.assert_allclose(got, expected, atol=0.5)


def test_a_slide_is_cut_to_its_bounds_at_every_level(tmp_path):
    image = blocks(640, 480)
    path = write_scn(tmp_path / "x.scn", image, at=(101, 202), around=(1000, 800), mpp=0.25)
    with open_slide(path) as slide:
        assert (slide.vendor, slide.width, slide.height) == ("leica", 640, 480)
        assert slide.bounds_origin == (101, 202)
        full = read_all(slide, at_scale(slide, 1.0))
        quarter = read_all(slide, at_scale(slide, 4.0))
    np.testing.assert_array_equal(full, by_openslide(path, Box(101, 202, 741, 682)))
    with tifffile.TiffFile(path) as tiff:
        np.testing.assert_array_equal(quarter, tiff.pages[1].asarray())


def test_transparent_px_are_white(tmp_path):
    path = write_slide(tmp_path / "x.tif", blocks(256, 256))
    lose_tile(path, page=0, index=5)
    with open_slide(path) as slide:
        got = read_all(slide, at_scale(slide, 1.0))
    assert (got[64:128, 64:128] == 255).all()
    assert not (got[:64] == 255).all(axis=2).any()


def test_partly_transparent_px_are_composited_on_white():
    from wsipipe.levels import _on_white

    half_red = np.array([[[0, 0, 128, 128], [0, 0, 0, 0], [30, 20, 10, 255]]], np.uint8)  # premultiplied B, G, R, A
    assert _on_white(half_red).tolist() == [[[255, 127, 127], [255, 255, 255], [10, 20, 30]]]


@pytest.mark.parametrize("scale", [1.0, 2.3])
def test_threads_read_what_one_thread_reads(tmp_path, scale):
    path = write_slide(tmp_path / "x.tif", texture(700, 500), factors=(1, 2))
    with open_slide(path) as slide:
        frame = at_scale(slide, scale)
        boxes = [Box(x, y, x + 130, y + 90) for y in range(0, 300, 70) for x in range(0, 500, 90)]
        expected = [slide.read(box, frame) for box in boxes]
        with ThreadPoolExecutor(4) as pool:
            for got, right in zip(pool.map(lambda box: slide.read(box, frame), boxes * 3), expected * 3, strict=True):
                np.testing.assert_array_equal(got, right)


def test_a_thumbnail_ends_where_the_slide_ends(tmp_path):
    path = write_slide(tmp_path / "x.tif", blocks(1010, 330), factors=(1, 4))
    with open_slide(path) as slide:
        picture, scale_x, scale_y = slide.thumbnail(8.0)
    assert picture.shape == (10, 32, 3)
    assert (scale_x, scale_y) == (1010 / 32, 33.0)
    assert np.abs(picture.mean() - blocks(1010, 330).mean()) < 2


def test_a_slide_smaller_than_a_thumbnail_px_gives_one_px(tmp_path):
    with open_slide(write_slide(tmp_path / "x.tif", np.full((16, 16, 3), 90, np.uint8))) as slide:
        picture, scale_x, _ = slide.thumbnail(8.0)
    assert picture.shape == (1, 1, 3)
    assert scale_x == 16
    assert abs(int(picture[0, 0, 0]) - 90) < 3


def test_a_level_near_the_models_mpp_is_copied(tmp_path):
    path = write_slide(tmp_path / "x.tif", blocks(512, 256), factors=(1, 2), mpp=0.252)
    with open_slide(path) as slide:
        frame = work_frame((slide.width, slide.height), (slide.mpp.x, slide.mpp.y), 0.5, slide.downsamples)
        got = read_all(slide, frame)
    np.testing.assert_array_equal(got, by_openslide(path, Box(0, 0, 256, 128), level=1))


@pytest.mark.parametrize("content", [b"", b"not a slide", b"II*\x00\x10\x00\x00\x00"])
def test_what_is_no_slide_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "no slide.svs"
    path.write_bytes(content)
    with pytest.raises(SlideOpenError) as caught:
        open_slide(path)
    assert str(caught.value).endswith(f": {path}")
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(SlideOpenError, match="does not exist"):
        open_slide(tmp_path / "nothing.svs")
    with pytest.raises(SlideOpenError, match="folder"):
        open_slide(tmp_path)


def test_a_truncated_slide_is_refused_or_fails_where_it_ends(tmp_path):
    path = write_slide(tmp_path / "x.tif", texture(512, 512))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises((SlideOpenError, SlideReadError), match=path.name):
        open_slide(path)


@pytest.mark.parametrize("compression", ["jpeg", "deflate"])
def test_one_damaged_tile_does_not_take_the_rest_away(tmp_path, compression):
    path = write_slide(tmp_path / "x.tif", texture(320, 320), compression=compression)
    good = by_openslide(path, Box(128, 128, 192, 192))
    spoil_tile(path, page=0, index=7, keep=12)
    with open_slide(path) as slide:
        frame = at_scale(slide, 1.0)
        for _ in range(2):
            with pytest.raises(SlideReadError, match=r"damaged there.*x\.tif"):
                slide.read(Box(100, 40, 200, 100), frame)
            np.testing.assert_array_equal(slide.read(Box(128, 128, 192, 192), frame), good)


def test_a_slide_whose_first_px_cannot_be_read_does_not_open(tmp_path):
    path = write_aperio(tmp_path / "x.svs", texture(240, 240))
    spoil_tile(path, page=0, index=0, keep=12)
    with pytest.raises(SlideReadError, match=r"x\.svs"):
        open_slide(path)
