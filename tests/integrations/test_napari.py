"""napari shows outlines on nuclei. Needs napari and a screen: scripts/test-extras."""

import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import shapely
from support_exports import segment_drawn

pytest.importorskip("napari", reason="needs napari: scripts/test-extras")
if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
    pytest.skip("needs a screen: scripts/test-extras runs under xvfb", allow_module_level=True)

from typer.testing import CliRunner

from wsipipe.api import open_result
from wsipipe.cli.main import app
from wsipipe.frames import WorkFrame
from wsipipe.grid import Box
from wsipipe.integrations import napariview
from wsipipe.slide import open_slide

REGION = Box(220, 150, 620, 450)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return segment_drawn(tmp_path_factory.mktemp("napari"))


def picture(folder: Path, out: Path, *words: str) -> np.ndarray:
    """Return what `wsipipe view` shows, RGB."""
    done = CliRunner().invoke(app, ["view", str(folder), "--napari", "--screenshot", str(out), *words])
    assert done.exit_code == 0, f"{done.output} {done.exception!r}"
    return cv2.imread(str(out), cv2.IMREAD_COLOR_RGB)


def region_words(box: Box) -> tuple[str, str]:
    return "--region", f"{box.x0},{box.y0},{box.width},{box.height}"


def slide_crop(folder: Path, box: Box) -> np.ndarray:
    with open_slide(Path(open_result(folder).record.slide_path)) as slide:
        return slide.read(box, WorkFrame(slide.width, slide.height, slide.mpp.x, slide.mpp.y, 1, 1))


def outline_mask(folder: Path, box: Box, zoom: float, shift: int = 0) -> np.ndarray:
    """Draw where the outlines must be in a picture of the box, moved by shift picture px."""
    mask = np.zeros((round(box.height * zoom), round(box.width * zoom)), np.uint8)
    for polygon in shapely.from_wkb(napariview.select_nuclei(open_result(folder), box)["geometry"].to_numpy()):
        ring = (shapely.get_coordinates(polygon.exterior) - (box.x0, box.y0)) * zoom + shift
        cv2.polylines(mask, [np.round(ring).astype(np.int32)], True, 1)
    return mask > 0


def is_yellow(rgb: np.ndarray) -> np.ndarray:
    red, green, blue = (rgb[..., i].astype(int) for i in range(3))
    return (red > 150) & (green > 130) & (blue < 110) & (np.minimum(red, green) - blue > 70)


def test_outlines_sit_on_the_nuclei(folder: Path, tmp_path: Path) -> None:
    shown = picture(folder, tmp_path / "shot.png", *region_words(REGION))
    zoom = shown.shape[1] / REGION.width
    assert shown.shape == (round(REGION.height * zoom), 1200, 3)
    yellow = is_yellow(shown)
    near = cv2.dilate(yellow.astype(np.uint8), np.ones((3, 3))) > 0
    assert outline_mask(folder, REGION, zoom).sum() > 2000
    assert near[outline_mask(folder, REGION, zoom)].mean() > 0.98
    assert near[outline_mask(folder, REGION, zoom, shift=6)].mean() < 0.7  # 2 px of the slide aside they are not


def test_the_slide_lies_where_the_outlines_say(folder: Path, tmp_path: Path) -> None:
    shown = picture(folder, tmp_path / "shot.png", *region_words(REGION))
    size = (shown.shape[1], shown.shape[0])
    truth = cv2.resize(slide_crop(folder, REGION), size, interpolation=cv2.INTER_LINEAR).mean(axis=2)
    bare = (
        cv2.dilate(outline_mask(folder, REGION, shown.shape[1] / REGION.width).astype(np.uint8), np.ones((9, 9))) == 0
    )
    grey = shown.mean(axis=2)

    def match(dy: int, dx: int) -> float:
        moved = np.roll(grey, (dy, dx), (0, 1))
        return float(
            np.corrcoef(moved[20:-20, 20:-20][bare[20:-20, 20:-20]], truth[20:-20, 20:-20][bare[20:-20, 20:-20]])[0, 1]
        )

    found = max(((dy, dx) for dy in range(-9, 10, 3) for dx in range(-9, 10, 3)), key=lambda shift: match(*shift))
    assert found == (0, 0)


def test_layers_are_lazy_pyramids_in_micrometres_with_measurements(folder: Path) -> None:
    import napari

    result = open_result(folder)
    viewer = napari.Viewer(show=False)
    try:
        with napariview.open_slide_of(result, None) as slide:
            napariview.fill_viewer(viewer, result, slide, None)
            layers = {layer.name: layer for layer in viewer.layers}
            assert list(layers) == ["slide", "labels", "outlines"]
            n, table = result.record.nuclei, result.table
            assert layers["outlines"].features["uuid"].tolist() == table["uuid"].to_pylist()
            assert layers["labels"].features["area_um2"].tolist() == table["area_um2"].to_pylist()
            assert layers["outlines"].nshapes == n > 20
            assert layers["slide"].multiscale
            assert layers["labels"].multiscale
            # the corner of the slide and of the labels is at 0 um: half a px before the first centre
            for name, mpp in (("slide", 0.125), ("labels", 0.25)):
                np.testing.assert_allclose(layers[name].scale, mpp)
                np.testing.assert_allclose(layers[name].data_to_world((-0.5, -0.5)), 0, atol=1e-12)
            nucleus = table["centroid_y_l0"][5].as_py() * 0.125, table["centroid_x_l0"][5].as_py() * 0.125
            label = layers["labels"].data[0][tuple(int(v / 0.25) for v in nucleus)].compute()
            assert label == table["label"][5].as_py()
    finally:
        viewer.close()


def test_a_slide_of_one_level_is_shown(tmp_path: Path) -> None:
    small = segment_drawn(tmp_path, width=700, height=601)
    shown = picture(small, tmp_path / "shot.png")
    assert is_yellow(shown).sum() > 1000


def test_many_nuclei_are_contours_of_the_labels(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(napariview, "MAX_OUTLINES", 3)
    box = Box(0, 0, 1300, 1101)
    shown, bare = picture(folder, tmp_path / "shot.png").astype(int), slide_crop(folder, box)
    bare = cv2.resize(bare, (shown.shape[1], shown.shape[0])).astype(int)
    changed = np.abs(shown - bare).max(axis=2) > 60
    monkeypatch.undo()
    edges = cv2.dilate(outline_mask(folder, box, shown.shape[1] / box.width).astype(np.uint8), np.ones((5, 5))) > 0
    assert changed[edges].mean() > 5 * changed[~edges].mean()
