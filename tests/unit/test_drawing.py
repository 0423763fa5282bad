"""The overview and the overlays: numbers behind them, and where lines fall."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from wsipipe.drawing import count_density, draw_outlines, draw_overview
from wsipipe.nuclei import Outlines

SQUARE = Outlines(
    np.array([[2, 3], [2, 6], [7, 6], [7, 3], [2, 3]], dtype=np.float64), np.array([0, 5]), np.array([0, 1])
)


def test_density_counts_nuclei_per_mm2() -> None:
    centroids = np.array([[10.0, 10.0], [50.0, 90.0], [399.9, 199.9]])
    density = count_density(centroids, (400, 200), (0.5, 1.0), bin_um=100.0)
    np.testing.assert_allclose(density.per_mm2, [[200, 0], [0, 100]])


def test_bins_at_the_edge_count_only_the_area_inside() -> None:
    density = count_density(np.array([[240.0, 20.0]]), (250, 100), (1.0, 1.0), bin_um=100.0)
    np.testing.assert_allclose(density.per_mm2, [[0, 0, 200]])


def test_no_nucleus_is_lost_between_bins() -> None:
    rng = np.random.default_rng(0)
    centroids = rng.random((500, 2)) * [1001, 777]
    density = count_density(centroids, (1001, 777), (1.0, 1.0), bin_um=50.0)
    widths, heights = np.full(21, 50.0), np.full(16, 50.0)
    widths[-1], heights[-1] = 1, 27
    assert (density.per_mm2 * np.outer(heights, widths) / 1e6).sum() == pytest.approx(500)


@pytest.mark.parametrize("size", [(16, 16), (300, 200), (90, 400), (3, 1)])
@pytest.mark.parametrize("n", [0, 50])
def test_the_overview_of_any_shape_is_a_picture(tmp_path: Path, size: tuple[int, int], n: int) -> None:
    width, height = size
    rng = np.random.default_rng(0)
    draw_overview(
        tmp_path / "o.png",
        np.full((height, width, 3), 240, np.uint8),
        l0_size=(width * 20, height * 20),
        l0_mpp=(0.25, 0.25),
        tissue=np.ones((max(1, height // 2), max(1, width // 2)), dtype=bool),
        centroids_l0=rng.random((n, 2)) * [width * 20, height * 20],
    )
    image = cv2.imread(str(tmp_path / "o.png"))
    assert image is not None
    assert min(image.shape[:2]) > 100
    assert [path.name for path in tmp_path.iterdir()] == ["o.png"]


def test_equal_slides_give_equal_overviews(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        draw_overview(
            tmp_path / name,
            np.full((50, 60, 3), 200, np.uint8),
            l0_size=(600, 500),
            l0_mpp=(0.25, 0.25),
            tissue=np.ones((5, 6), dtype=bool),
            centroids_l0=np.array([[100.0, 100.0]]),
        )
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_outlines_run_along_the_edges_of_pixels() -> None:
    rgb = np.zeros((10, 10, 3), np.uint8)
    zoomed = draw_outlines(rgb, SQUARE, (0, 255, 0), zoom=8)[:, :, 1]
    rows, cols = np.nonzero(zoomed > 127)
    assert zoomed.shape == (80, 80)
    assert {rows.min(), rows.max()} <= {23, 24, 47, 48}  # y = 3 and y = 6, eight px each
    assert {cols.min(), cols.max()} <= {15, 16, 55, 56}
    assert not rgb.any()


def test_an_origin_moves_the_frame() -> None:
    rgb = np.zeros((10, 10, 3), np.uint8)
    moved = Outlines(SQUARE.coords + np.array([1000, 500]), SQUARE.ring_starts, SQUARE.polygon_starts)
    np.testing.assert_array_equal(draw_outlines(rgb, moved, origin=(1000, 500)), draw_outlines(rgb, SQUARE))


def test_no_outlines_leave_the_picture_as_it_is() -> None:
    rgb = np.full((4, 5, 3), 9, np.uint8)
    nothing = Outlines(np.empty((0, 2)), np.zeros(1, np.int64), np.zeros(1, np.int64))
    np.testing.assert_array_equal(draw_outlines(rgb, nothing), rgb)
