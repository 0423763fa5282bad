"""Plain images of any size and kind, with any segmenter."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from amasam.imagefile import read_rgb, to_rgb, write_labels
from amasam.predict import compact_labels, nearest, predict_folder, predict_image, predict_maps, reflect_read
from wsipipe.errors import SlideReadError, UsageError
from wsipipe.grid import Box
from wsipipe.testing import ToySegmenter


def write_image(path: Path, pixels: np.ndarray) -> None:
    cv2.imencode(path.suffix, pixels)[1].tofile(path)


def picture(height: int, width: int) -> np.ndarray:
    """Dark squares on white, uint8 (height, width, 3)."""
    image = np.full((height, width, 3), 240, np.uint8)
    for y in range(10, height - 12, 30):
        for x in range(10, width - 12, 30):
            image[y : y + 12, x : x + 12] = (90, 40, 130)
    return image


def test_tiled_maps_equal_those_of_one_tile() -> None:
    image = picture(150, 170)
    whole = predict_maps(ToySegmenter(tile=256, halo=16), image)
    tiled = predict_maps(ToySegmenter(tile=64, halo=16), image)
    assert whole.shape[1:] == (150, 170)
    assert np.array_equal(whole, tiled)


@pytest.mark.parametrize("shape", [(1, 1), (5, 300), (64, 64), (65, 63)])
def test_labels_have_the_image_size(shape: tuple[int, int]) -> None:
    assert predict_image(ToySegmenter(tile=64, halo=16), picture(*shape)).shape == shape


def test_nuclei_are_found_at_another_mpp_and_brought_back() -> None:
    segmenter = ToySegmenter(tile=256, halo=16)
    image = picture(100, 100)
    plain = predict_image(segmenter, image)
    coarse = cv2.resize(image, (50, 50), interpolation=cv2.INTER_AREA)
    found = predict_image(segmenter, coarse, mpp=2 * segmenter.mpp)
    assert found.shape == (50, 50)
    assert found.max() == plain.max() == 9


def test_reflection_goes_on_beyond_one_image_width() -> None:
    image = np.arange(3, dtype=np.uint8)[None, :, None].repeat(3, 2)
    assert reflect_read(image, Box(-4, 0, 7, 1))[0, :, 0].tolist() == [0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]


def test_nearest_takes_the_id_under_the_pixel_centre() -> None:
    labels = np.array([[1, 2], [3, 4]], np.int32)
    assert nearest(labels, 4, 4)[[0, 0, 3, 3], [0, 3, 0, 3]].tolist() == [1, 2, 3, 4]
    assert nearest(nearest(labels, 6, 6), 2, 2).tolist() == labels.tolist()


def test_compact_labels_leave_no_gap_and_keep_the_order() -> None:
    assert compact_labels(np.array([[0, 7], [3, 7]], np.int32)).tolist() == [[0, 2], [1, 2]]


def test_one_bad_image_does_not_stop_the_others(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    write_image(images / "größe µ.png", picture(60, 60)[..., ::-1])
    write_image(images / "later.bmp", picture(60, 60)[..., ::-1])
    tifffile.imwrite(images / "later.tif", picture(60, 60))
    (images / "broken.png").write_bytes((images / "größe µ.png").read_bytes()[:60])
    (images / "empty.tiff").touch()
    (images / "notes.txt").write_text("not an image")
    seen: list[str] = []
    failures = predict_folder(
        ToySegmenter(tile=64, halo=16), images, tmp_path / "out", on_image=lambda path: seen.append(path.name)
    )
    assert {f.path.name for f in failures} == {"broken.png", "empty.tiff", "later.tif"}
    assert all("\n" not in f.reason for f in failures)
    assert len(seen) == 5
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"größe µ.png", "later.png"}
    labels = cv2.imdecode(np.fromfile(tmp_path / "out" / "größe µ.png", np.uint8), cv2.IMREAD_UNCHANGED)
    assert labels.dtype == np.uint16
    assert labels.shape == (60, 60)
    assert labels.max() == 4


def test_a_folder_without_images_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no images"):
        predict_folder(ToySegmenter(), tmp_path, tmp_path / "out")
    with pytest.raises(UsageError, match="must be a folder"):
        predict_folder(ToySegmenter(), tmp_path / "none", tmp_path / "out")


RGB = picture(40, 50)


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("a.png", RGB[..., ::-1]),
        ("a.png", np.dstack([RGB[..., ::-1], np.full(RGB.shape[:2], 255, np.uint8)])),
        ("a.png", np.dstack([RGB[..., ::-1], np.zeros(RGB.shape[:2], np.uint8)])),
        ("a.png", RGB[..., ::-1].astype(np.uint16) * 257),
        ("a.bmp", RGB[..., ::-1]),
    ],
    ids=["rgb", "opaque alpha", "constant alpha is dropped", "16 bit", "bmp"],
)
def test_encodings_of_one_image_read_alike(tmp_path: Path, name: str, pixels: np.ndarray) -> None:
    write_image(tmp_path / name, pixels)
    assert np.array_equal(read_rgb(tmp_path / name), RGB)


@pytest.mark.parametrize(
    ("pixels", "options"),
    [
        (RGB, {}),
        (RGB, {"compression": "zlib", "tile": (16, 16)}),
        (np.moveaxis(RGB, 2, 0), {"photometric": "rgb", "planarconfig": "separate"}),
        ((RGB / 255).astype(np.float32), {"photometric": "rgb"}),
    ],
    ids=["plain", "tiled", "planar", "float"],
)
def test_tiffs_of_one_image_read_alike(tmp_path: Path, pixels: np.ndarray, options: dict[str, object]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", pixels, **options)
    assert np.array_equal(read_rgb(tmp_path / "a.tif"), RGB)


def test_grey_is_repeated_and_partial_alpha_laid_on_white() -> None:
    grey = np.array([[10, 200]], np.uint8)
    assert to_rgb(grey, Path("x")).tolist() == [[[10] * 3, [200] * 3]]
    seen = to_rgb(np.array([[[0, 0, 0, 0], [0, 0, 0, 255]]], np.uint8), Path("x"))
    assert seen.tolist() == [[[255] * 3, [0] * 3]]


def test_a_jpeg_without_its_end_is_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg", RGB[..., ::-1])
    whole = (tmp_path / "a.jpg").read_bytes()
    assert read_rgb(tmp_path / "a.jpg").shape == RGB.shape
    (tmp_path / "a.jpg").write_bytes(whole[: len(whole) * 3 // 4])
    with pytest.raises(SlideReadError, match="truncated"):
        read_rgb(tmp_path / "a.jpg")


def test_many_ids_go_into_a_32_bit_tiff(tmp_path: Path) -> None:
    ids = np.arange(70_000, dtype=np.int32).reshape(1, -1)
    path = write_labels(tmp_path, "many", ids)
    assert path.name == "many.tif"
    assert np.array_equal(tifffile.imread(path), ids)
