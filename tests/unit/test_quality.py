"""Focus, ink and stain: drawn tissue sharp and blurred, ink of known colours, cells that tile the slide."""

import cv2
import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from wsipipe.drawnslide import DemoSpec, Painter
from wsipipe.frames import WorkFrame
from wsipipe.grid import Box, TileGrid
from wsipipe.quality import (
    CELL_SCHEMA,
    MIN_FOCUS,
    SlideQuality,
    cell_grid,
    measure_cells,
    measure_focus,
    measure_ink,
    nuclei_in_artefacts,
    quality_flags,
    slide_quality,
)

SIDE = 512
CELLS = [Box(0, 0, 256, 256), Box(256, 0, 512, 256), Box(0, 256, 256, 512), Box(256, 256, 512, 512)]
GOOD = SlideQuality(10, 0.5, 0.0, 0.0, 0.0, 0.5, 0.2)


@pytest.fixture(scope="module")
def tissue() -> NDArray[np.uint8]:
    return Painter(DemoSpec(SIDE, SIDE, mpp=0.25, tissue=1)).paint(Box(0, 0, SIDE, SIDE)).rgb


def blurred(rgb: NDArray[np.uint8], sigma_um: float) -> NDArray[np.uint8]:
    return np.asarray(cv2.GaussianBlur(rgb, (0, 0), sigma_um / 0.25), np.uint8)


def test_sharp_tissue_is_in_focus_and_a_blur_of_one_um_is_not(tissue: NDArray[np.uint8]) -> None:
    assert (measure_focus(tissue, 0.25, CELLS) > MIN_FOCUS).all()
    assert (measure_focus(blurred(tissue, 1.0), 0.25, CELLS) < MIN_FOCUS).all()


def test_focus_falls_as_blur_grows(tissue: NDArray[np.uint8]) -> None:
    found = [measure_focus(blurred(tissue, sigma), 0.25, CELLS[:1])[0] for sigma in (0.3, 0.5, 0.8, 1.2)]
    assert found == sorted(found, reverse=True)


def test_focus_does_not_depend_on_how_strongly_tissue_is_stained(tissue: NDArray[np.uint8]) -> None:
    faint = np.rint(255 * (tissue / 255.0) ** 0.6).astype(np.uint8)  # 60 % of the OD
    assert measure_focus(faint, 0.25, CELLS) == pytest.approx(measure_focus(tissue, 0.25, CELLS), rel=0.1)


def test_glass_and_slivers_are_not_judged(tissue: NDArray[np.uint8]) -> None:
    glass = np.full((SIDE, SIDE, 3), 240, np.uint8)
    assert np.isnan(measure_focus(glass, 0.25, CELLS)).all()
    assert np.isnan(measure_focus(tissue[:20], 0.25, [Box(0, 0, 512, 20)])).all()


@pytest.mark.parametrize("colour", [(30, 60, 150), (20, 110, 60), (40, 40, 45), (200, 40, 45)])
def test_ink_is_seen(tissue: NDArray[np.uint8], colour: tuple[int, int, int]) -> None:
    inked = tissue.copy()
    inked[:256, :256] = colour
    found = measure_ink(inked, 0.25, CELLS)
    assert found[0] > 0.9
    assert (found[1:] < 0.1).all()


def test_each_pixel_has_one_cell_and_find_agrees() -> None:
    cells = cell_grid(TileGrid(1000, 700, side=300, halo=20, block_tiles=2), 0.4)
    owner = np.full((700, 1000), -1)
    rows, cols = cells.grid.rows * cells.per_tile, cells.grid.cols * cells.per_tile
    for row in range(rows):
        for col in range(cols):
            box = cells.box(row, col)
            if not box.is_empty:
                part = owner[box.y0 : box.y1, box.x0 : box.x1]
                assert (part == -1).all()
                part[:] = row * cols + col
    assert (owner >= 0).all()
    y, x = np.mgrid[0:700, 0:1000] + 0.5
    np.testing.assert_array_equal(cells.find(x.ravel(), y.ravel()).reshape(700, 1000), owner)


def test_cells_of_all_tiles_are_the_cells_of_the_slide(tissue: NDArray[np.uint8]) -> None:
    frame = WorkFrame(2 * SIDE, 2 * SIDE, 0.125, 0.125, 2.0, 2.0)
    grid = TileGrid(SIDE, SIDE, side=288, halo=16)
    cells = cell_grid(grid, frame.mpp)
    tiles = tuple(grid.tile(row, col) for row in range(grid.rows) for col in range(grid.cols))
    whole = measure_cells(tissue, tiles, grid.whole, cells, frame)
    assert whole.schema == CELL_SCHEMA
    alone = [measure_cells(tissue[t.core.slices(grid.whole)], (t,), t.core, cells, frame) for t in tiles]
    assert pa.concat_tables(alone).equals(whole)
    area = sum((r["x1_l0"] - r["x0_l0"]) * (r["y1_l0"] - r["y0_l0"]) for r in whole.to_pylist())
    assert area == frame.l0_width * frame.l0_height


def test_nuclei_in_poor_cells_are_marked_and_no_others(tissue: NDArray[np.uint8]) -> None:
    frame = WorkFrame(SIDE, SIDE, 0.25, 0.25, 1.0, 1.0)
    grid = TileGrid(SIDE, SIDE, side=256 + 32, halo=16)
    cells = cell_grid(grid, frame.mpp)
    rgb = tissue.copy()
    rgb[:, 256:] = blurred(tissue, 1.5)[:, 256:]
    tiles = tuple(grid.tile(row, col) for row in range(grid.rows) for col in range(grid.cols))
    table = measure_cells(rgb, tiles, grid.whole, cells, frame)
    centroids = np.array([[10.0, 10.0], [255.9, 100.0], [256.1, 100.0], [500.0, 500.0]])
    assert nuclei_in_artefacts(centroids, table, cells, frame).tolist() == [False, False, True, True]
    assert nuclei_in_artefacts(centroids, CELL_SCHEMA.empty_table(), cells, frame).tolist() == [False] * 4


def test_a_slide_without_anything_has_no_quality_and_no_flags() -> None:
    empty = slide_quality(CELL_SCHEMA.empty_table(), np.zeros(0, bool), np.zeros((0, 3), np.float32))
    assert empty == SlideQuality(0, None, None, None, None, None, None)
    assert quality_flags(empty) == ()
    assert empty.to_json()["cells"] == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"blurred_share": 0.4}, "40% of the tissue is out of focus"),
        ({"ink_share": 0.1}, "pen marks cover 10%"),
        ({"flagged_nuclei_share": 0.2}, "20% of the nuclei"),
        ({"hematoxylin_od": 0.05}, "hematoxylin of the nuclei is 0.05 OD, fainter"),
        ({"eosin_od": 0.9}, "eosin of the nuclei is 0.90 OD, stronger"),
    ],
)
def test_flags_say_what_is_odd(change: dict[str, float], says: str) -> None:
    import dataclasses

    assert quality_flags(GOOD) == ()
    (flag,) = quality_flags(dataclasses.replace(GOOD, **change))
    assert says in flag


@pytest.mark.realdata
def test_annotated_images_are_in_focus_and_free_of_ink(data_root: object) -> None:
    from pathlib import Path

    images = sorted(Path(str(data_root), "nuclei", "tnbc", "images").glob("*.png"))[::6]
    for path in images:
        rgb = np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])
        focus = measure_focus(rgb, 0.25, CELLS)
        assert (focus[~np.isnan(focus)] > MIN_FOCUS).all(), path
        assert (measure_ink(rgb, 0.25, CELLS) < 0.25).all(), path
