"""What napari is given: lazy levels of the slide, the nuclei to outline. That napari shows it: tests/integrations."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import shapely
from support_nuclei import make_folder, make_sample
from support_slides import blocks, texture, write_slide

from wsipipe.api import SlideResult, open_result
from wsipipe.cli import main
from wsipipe.errors import SlideError, SlideOpenError
from wsipipe.frames import WorkFrame
from wsipipe.grid import Box
from wsipipe.integrations import exports, napariview
from wsipipe.slide import Slide, open_slide


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> SlideResult:
    folder = tmp_path_factory.mktemp("view") / "slide"
    make_folder(folder, make_sample(50))
    return open_result(folder)


def test_levels_are_the_slides_own_pixels(tmp_path: Path) -> None:
    with open_slide(write_slide(tmp_path / "s.tiff", blocks(1301, 700), factors=(1, 4))) as slide:
        levels = napariview.slide_levels(slide)
        assert [level.shape for level in levels] == [(700, 1301, 3), (175, 326, 3)]
        for level, downsample in zip(levels, slide.downsamples, strict=True):
            frame = WorkFrame(slide.width, slide.height, slide.mpp.x, slide.mpp.y, downsample, downsample)
            whole = slide.read(Box(0, 0, frame.width, frame.height), frame)
            np.testing.assert_array_equal(level.compute(), whole)


def test_only_what_is_looked_at_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Box] = []
    original = Slide.read
    with open_slide(write_slide(tmp_path / "s.tiff", texture(2000, 1200))) as slide:
        monkeypatch.setattr(Slide, "read", lambda self, box, frame: read.append(box) or original(self, box, frame))
        level = napariview.slide_levels(slide)[0]
        assert read == []
        level[600:700, 600:700].compute()
    assert read == [Box(512, 512, 1024, 1024)]


def test_a_slide_without_coarse_levels_gets_some(tmp_path: Path) -> None:
    with open_slide(write_slide(tmp_path / "s.tiff", blocks(5000, 600))) as slide:
        shapes = [level.shape[:2] for level in napariview.slide_levels(slide)]
    assert shapes == [(600, 5000), (300, 2500), (150, 1250)]
    assert max(shapes[-1]) <= napariview.TOP_SIDE


def test_a_region_selects_the_nuclei_whose_centroids_lie_in_it(result: SlideResult) -> None:
    box = Box(300, 200, 1500, 1400)
    chosen = napariview.select_nuclei(result, box)
    table = result.table.to_pandas()
    x, y = table["centroid_x_l0"], table["centroid_y_l0"]
    inside = table[(x >= box.x0) & (x < box.x1) & (y >= box.y0) & (y < box.y1)]
    assert 0 < len(inside) < len(table)
    assert chosen["label"].to_pylist() == inside["label"].tolist()


def test_too_many_nuclei_are_left_to_the_labels_and_that_is_said(
    result: SlideResult, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert napariview.select_nuclei(result, None).num_rows == result.record.nuclei
    monkeypatch.setattr(napariview, "MAX_OUTLINES", 10)
    with caplog.at_level(logging.WARNING):
        assert napariview.select_nuclei(result, None).num_rows == 0
        assert napariview.select_nuclei(result, Box(0, 0, 2600, 2001)).num_rows == 10
    assert f"at most 10 nuclei, here are {result.record.nuclei}" in caplog.text


def test_outlines_are_the_outer_rings_row_first(result: SlideResult) -> None:
    polygons = shapely.from_wkb(result.table["geometry"].to_numpy())
    rings = napariview._exteriors(result.table)
    assert len(rings) == len(polygons)
    for ring, polygon in zip(rings, polygons, strict=True):
        np.testing.assert_array_equal(ring[:, ::-1], shapely.get_coordinates(polygon.exterior))


def test_a_picture_has_the_shape_of_its_region() -> None:
    assert napariview.canvas_size(Box(0, 0, 400, 300), (0.25, 0.25), 1200) == (900, 1200)
    assert napariview.canvas_size(Box(10, 10, 20, 1010), (0.5, 0.25), 500) == (500, 10)


def test_the_slide_must_be_there_and_be_the_right_one(result: SlideResult, tmp_path: Path) -> None:
    with pytest.raises(SlideOpenError, match=r"pass its place with --slide: /slides/slide\.svs"):
        napariview.open_slide_of(result, None)
    other = write_slide(tmp_path / "other.tiff", blocks(300, 300))
    with pytest.raises(SlideError, match=r"not the one that these nuclei come from .*other\.tiff"):
        napariview.open_slide_of(result, other)


@pytest.fixture
def wsipipe(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Run `wsipipe view` as if napari were installed; returns exit code and stderr."""
    monkeypatch.setattr(exports, "find_spec", lambda name: name)
    monkeypatch.setenv("DISPLAY", ":99")

    def call(*words: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["wsipipe", "view", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main.main()
        return int(end.value.code or 0), capsys.readouterr().err

    return call


def test_refusals_are_one_line(
    wsipipe: Callable[..., tuple[int, str]], result: SlideResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = result.folder
    assert wsipipe(folder) == (2, "wsipipe: view needs the name of a viewer: --napari\n")
    assert wsipipe(folder / "no", "--napari") == (2, f"wsipipe: no such folder: {folder / 'no'}\n")
    code, err = wsipipe(folder.parent, "--napari")
    assert (code, err.split(",")[0]) == (1, "wsipipe: run record is missing")
    for region in ("1,2,3", "a,b,c,d", "0,0,0,5"):
        code, err = wsipipe(folder, "--napari", "--region", region)
        assert (code, err.count("\n")) == (2, 1)
        assert err.startswith("wsipipe: --region must")
    code, err = wsipipe(folder, "--napari")
    assert (code, err.count("\n")) == (1, 1)
    assert "pass its place with --slide" in err
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    code, err = wsipipe(folder, "--napari")
    assert (code, err.startswith("wsipipe: view --napari needs a screen")) == (2, True)
