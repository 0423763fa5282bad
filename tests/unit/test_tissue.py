import cv2
import numpy as np
import pytest
from support_slides import write_slide

from wsipipe.frames import WorkFrame
from wsipipe.grid import TileGrid
from wsipipe.slide import open_slide
from wsipipe.tissue import TissueMask, find_tissue, load_tissue, tissue_mask, tissue_tiles

GLASS = (243, 242, 244)
STROMA, PALE, DARK = (225, 160, 195), (228, 216, 224), (70, 35, 90)
PX_UM = 8.0


def overview(colour=STROMA, glass=GLASS, size=(120, 160), noise=1.5, seed=0):
    """Return an overview with a blob of tissue, and where the blob is."""
    rng = np.random.default_rng(seed)
    image = np.full((*size, 3), glass, np.float64)
    blob = np.zeros(size, np.uint8)
    cv2.ellipse(blob, (size[1] // 2, size[0] // 2), (size[1] // 4, size[0] // 4), 20, 0, 360, 1, -1)
    image[blob > 0] = colour
    return np.clip(image + rng.normal(0, noise, image.shape), 0, 255).astype(np.uint8), blob > 0


def assert_finds(found, blob):
    """Everything in the blob, nothing farther from it than the margin and a px of rounding."""
    near = cv2.dilate(blob.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    assert found[blob].mean() > 0.99
    assert not found[~near].any()


@pytest.mark.parametrize("colour", [STROMA, PALE, DARK, (150, 90, 160)])
@pytest.mark.parametrize("glass", [GLASS, (232, 230, 226), (200, 199, 197), (241, 236, 239)])
def test_pale_and_dark_tissue_is_found_on_any_glass(colour, glass):
    seen = tuple(c * g / 243 for c, g in zip(colour, glass, strict=True))
    image, blob = overview(seen, glass)
    assert_finds(find_tissue(image, PX_UM), blob)


@pytest.mark.parametrize(
    "ink", [(40, 70, 180), (90, 140, 215), (30, 40, 120), (30, 130, 80), (35, 35, 40), (205, 35, 45), (220, 60, 60)]
)
def test_pen_marks_are_not_tissue(ink):
    image, blob = overview()
    cv2.line(image, (6, 4), (6, 115), ink, 5)
    cv2.circle(image, (145, 15), 8, ink, 2)
    assert_finds(find_tissue(image, PX_UM), blob)


def test_shadows_and_vignetting_are_not_tissue():
    image, blob = overview()
    y, x = np.mgrid[:120, :160]
    shade = 1 - 0.3 * ((x / 160 - 0.5) ** 2 + (y / 120 - 0.5) ** 2)
    image = (image * shade[..., None]).astype(np.uint8)
    image[:, :4] = 90  # the edge of the cover slip
    assert_finds(find_tissue(image, PX_UM), blob)


@pytest.mark.parametrize("glass", [GLASS, (255, 255, 255), (235, 232, 225), (200, 200, 192), (240, 233, 240)])
@pytest.mark.parametrize("noise", [0.0, 2.0])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (200, 150)])
def test_a_blank_slide_has_no_tissue(glass, noise, size):
    image, _ = overview(glass, glass, size, noise)
    assert not find_tissue(image, PX_UM).any()


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (16, 16), (120, 90)])
@pytest.mark.parametrize("colour", [STROMA, DARK, (216, 204, 206)])
def test_a_slide_that_is_all_tissue_is_not_halved(size, colour):
    rng = np.random.default_rng(0)
    shades = rng.normal(0, 1, (*size, 1)) * np.array([2.0, 4.0, 3.0])  # dense and loose parts of one colour
    image = np.clip(np.array(colour) + shades, 0, 255).astype(np.uint8)
    assert find_tissue(image, PX_UM).mean() > 0.99


def test_padding_whiter_than_the_glass_is_not_mistaken_for_it():
    image, blob = overview(glass=(236, 231, 234))
    image[:, :30] = 255
    assert_finds(find_tissue(image, PX_UM), blob)


def test_small_holes_are_filled_large_ones_and_bays_stay():
    image = np.full((120, 120, 3), GLASS, np.uint8)
    image[10:110, 10:110] = STROMA
    image[20:32, 20:32] = GLASS  # 96 um square: filled
    image[50:90, 50:90] = GLASS  # 320 um square: stays
    image[10:22, 90:110] = GLASS  # open to the outside: stays
    found = find_tissue(image, PX_UM)
    assert found[20:32, 20:32].all()
    assert not found[56:84, 56:84].any()
    assert not found[12:16, 98:104].any()


def test_dust_is_dropped_and_a_biopsy_core_is_not():
    image = np.full((200, 200, 3), GLASS, np.uint8)
    image[20:24, 20:24] = STROMA  # 32 um
    image[60:190, 100:106] = STROMA  # 48 um wide, 1 mm long
    found = find_tissue(image, PX_UM)
    assert not found[:40, :40].any()
    assert found[60:190, 100:106].all()


def test_tissue_at_the_edge_of_the_slide_is_kept():
    image = np.full((60, 60, 3), GLASS, np.uint8)
    image[:, 50:] = STROMA
    found = find_tissue(image, PX_UM)
    assert found[:, 50:].all()
    assert not found[:, :45].any()


@pytest.mark.parametrize("factors", [(1,), (1, 4, 16)])
def test_a_slide_is_masked_with_and_without_a_pyramid(tmp_path, factors):
    image = np.full((1600, 2400, 3), GLASS, np.uint8)
    image[400:1200, 800:1600] = STROMA
    with open_slide(write_slide(tmp_path / "x.tif", image, factors=factors, tile=256)) as slide:
        tissue = tissue_mask(slide)
    assert tissue.mask.shape == (50, 75)
    assert (tissue.l0_per_px_x, tissue.l0_per_px_y, tissue.source) == (32.0, 32.0, "auto")
    assert tissue.area_mm2((0.25, 0.25)) == pytest.approx(0.2 * 0.2, rel=0.5)  # the margin is wide on a small square
    assert tissue.mask[14:36, 26:49].all()


def test_none_is_the_whole_slide(tmp_path):
    with open_slide(write_slide(tmp_path / "x.tif", np.full((130, 70, 3), 245, np.uint8))) as slide:
        tissue = load_tissue("none", slide)
        assert not load_tissue("auto", slide).mask.any()
    assert tissue.mask.all()
    assert tissue.source == "none"
    assert tissue.area_mm2((0.25, 0.25)) == pytest.approx(130 * 70 * 0.0625e-6)


def test_area_counts_both_directions():
    tissue = TissueMask(np.array([[True, False], [True, True]]), 30.0, 20.0, "auto")
    assert tissue.area_mm2((0.5, 0.25)) == pytest.approx(3 * 15 * 5 / 1e6)


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.37])
@pytest.mark.parametrize("mask_px", [1.0, 7.3, 400.0])
def test_a_tile_counts_when_any_tissue_touches_its_core(scale, mask_px):
    width, height = 500, 330
    rng = np.random.default_rng(3)
    shape = max(1, round(height / mask_px)), max(1, round(width / mask_px))
    mask = np.zeros(shape, np.bool_)
    mask.flat[rng.choice(mask.size, min(mask.size, 6), replace=False)] = rng.random(min(mask.size, 6)) < 0.8
    tissue = TissueMask(mask, width / shape[1], height / shape[0], "auto")
    frame = WorkFrame(width, height, 0.25, 0.25, scale, scale)
    grid = TileGrid(frame.width, frame.height, side=64, halo=8)
    got = tissue_tiles(tissue, grid, frame)
    expected = np.zeros_like(got)
    for row in range(grid.rows):
        for col in range(grid.cols):
            core = grid.tile(row, col).core
            for r, c in np.argwhere(mask):
                x0, x1 = c * tissue.l0_per_px_x / scale, (c + 1) * tissue.l0_per_px_x / scale
                y0, y1 = r * tissue.l0_per_px_y / scale, (r + 1) * tissue.l0_per_px_y / scale
                if x0 < core.x1 - 1e-6 and x1 > core.x0 + 1e-6 and y0 < core.y1 - 1e-6 and y1 > core.y0 + 1e-6:
                    expected[row, col] = True
    np.testing.assert_array_equal(got, expected)
