import numpy as np
import openslide
import pytest
from support_slides import blocks, lose_tile, texture, write_aperio, write_scn, write_slide

from wsipipe import jpegtiff
from wsipipe.errors import SlideReadError
from wsipipe.frames import WorkFrame
from wsipipe.grid import Box
from wsipipe.slide import Slide, open_slide


def read_l0(slide: Slide, box: Box) -> np.ndarray:
    return slide.read(box, WorkFrame(slide.width, slide.height, slide.mpp.x, slide.mpp.y, 1.0, 1.0))


def by_openslide(path, box: Box) -> np.ndarray:
    with openslide.OpenSlide(path) as plain:
        rgba = plain.read_region((box.x0, box.y0), 0, (box.width, box.height))
    return np.asarray(rgba.convert("RGB"))


@pytest.mark.parametrize("ycbcr", [True, False])
def test_every_px_equals_openslides(tmp_path, ycbcr):
    path = write_aperio(tmp_path / "x.svs", blocks(500, 410, side=5), factors=(1, 4), tile=96, ycbcr=ycbcr)
    with open_slide(path) as slide:
        assert slide.reader == "jpegtiff"
        np.testing.assert_array_equal(
            read_l0(slide, Box(0, 0, 500, 410)), by_openslide(path, Box(0, 0, 500, 410))
        )  # edge tiles included


@pytest.mark.parametrize("box", [Box(0, 0, 1, 1), Box(95, 95, 97, 97), Box(96, 0, 192, 96), Box(480, 400, 500, 410)])
def test_boxes_on_tile_borders_and_corners_are_cut_right(tmp_path, box):
    path = write_aperio(tmp_path / "x.svs", texture(500, 410), tile=96)
    with open_slide(path) as slide:
        np.testing.assert_array_equal(read_l0(slide, box), by_openslide(path, box))


def test_a_missing_tile_is_read_as_openslide_reads_it(tmp_path):
    path = write_slide(tmp_path / "x.tif", texture(300, 200), factors=(1, 2))
    lose_tile(path, page=0, index=6)
    with open_slide(path) as slide:
        assert slide.reader == "jpegtiff"
        got = read_l0(slide, Box(0, 0, 300, 200))
    assert (got[64:128, 64:128] == 255).all()
    np.testing.assert_array_equal(got[:64], by_openslide(path, Box(0, 0, 300, 64)))


def test_the_reader_is_not_used_when_one_px_differs(tmp_path, monkeypatch):
    path = write_slide(tmp_path / "x.tif", texture(300, 200))
    decode = jpegtiff.decode_tile

    def off_by_one(layout, data):
        tile = decode(layout, data).copy()
        tile[0, 0, 0] ^= 1
        return tile

    monkeypatch.setattr(jpegtiff, "decode_tile", off_by_one)
    with open_slide(path) as slide:
        assert slide.reader == "openslide"
        np.testing.assert_array_equal(read_l0(slide, Box(0, 0, 300, 200)), by_openslide(path, Box(0, 0, 300, 200)))


def test_formats_with_their_own_geometry_are_left_to_openslide(tmp_path):
    scn = write_scn(tmp_path / "x.scn", texture(128, 128), at=(0, 0), around=(200, 200), mpp=0.25)
    flat = write_slide(tmp_path / "x.tif", texture(128, 128), compression="deflate")
    assert [open_slide(path).reader for path in (scn, flat)] == ["openslide", "openslide"]


def test_what_tifffile_cannot_read_is_not_ours(tmp_path):
    path = tmp_path / "x.tif"
    path.write_bytes(b"II*\x00nonsense")
    assert jpegtiff.find_levels(path, [(10, 10)]) is None


def test_decoded_tiles_stay_within_the_budget_and_are_reused(tmp_path, monkeypatch):
    path = write_slide(tmp_path / "x.tif", texture(640, 640))
    with open_slide(path) as slide:
        source = slide._source
        assert isinstance(source, jpegtiff.TiffTiles)
        monkeypatch.setattr(jpegtiff, "CACHE_BYTES", 5 * 64 * 64 * 3)
        decoded = []
        decode = jpegtiff.decode_tile
        monkeypatch.setattr(jpegtiff, "decode_tile", lambda layout, data: decoded.append(1) or decode(layout, data))
        read_l0(slide, Box(0, 0, 640, 640))
        assert source._cached_bytes == sum(tile.nbytes for tile in source._cache.values()) == 5 * 64 * 64 * 3
        before = len(decoded)
        read_l0(slide, Box(600, 600, 640, 640))
        assert len(decoded) == before


def test_a_closed_reader_can_be_closed_again(tmp_path):
    slide = open_slide(write_slide(tmp_path / "x.tif", texture(64, 64)))
    slide.close()
    slide.close()
    with pytest.raises(SlideReadError):
        read_l0(slide, Box(0, 0, 64, 64))
