import gzip
import json

import cv2
import numpy as np
import pytest
from support_slides import write_slide

from wsipipe.errors import UsageError
from wsipipe.roi import read_mask_image, read_regions
from wsipipe.slide import open_slide
from wsipipe.tissue import load_tissue

L0 = (400, 200)  # width, height
SHAPE = (20, 40)  # rows, columns: 10 level-0 px each


def square(x0, y0, x1, y1):
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]


POLYGON = {"type": "Polygon", "coordinates": [square(100, 50, 200, 150)]}
FEATURE = {"type": "Feature", "geometry": POLYGON, "properties": {"objectType": "annotation"}}


def write_json(path, value):
    path.write_text(json.dumps(value))
    return path


@pytest.mark.parametrize(
    "value",
    [
        POLYGON,
        FEATURE,
        [FEATURE],
        {"type": "FeatureCollection", "features": [FEATURE]},
        {"type": "MultiPolygon", "coordinates": [POLYGON["coordinates"]]},
        {"type": "GeometryCollection", "geometries": [POLYGON, {"type": "Point", "coordinates": [1, 1]}]},
        [{"type": "Feature", "geometry": None, "properties": {}}, FEATURE],
    ],
)
def test_areas_are_found_however_they_are_wrapped(tmp_path, value):
    mask = read_regions(write_json(tmp_path / "roi.geojson", value), L0, SHAPE)
    assert mask.shape == SHAPE
    assert mask[5:15, 10:20].all()
    assert not mask[:4].any()
    assert not mask[16:].any()
    assert not mask[:, :9].any()
    assert not mask[:, 21:].any()


def test_packed_geojson_is_unpacked(tmp_path):
    path = tmp_path / "roi.geojson.gz"
    path.write_bytes(gzip.compress(json.dumps(FEATURE).encode()))
    assert read_regions(path, L0, SHAPE).any()


def test_holes_stay_open_and_another_polygon_may_fill_them(tmp_path):
    ring = {"type": "Polygon", "coordinates": [square(50, 20, 350, 180), square(150, 60, 250, 140)]}
    mask = read_regions(write_json(tmp_path / "roi.geojson", ring), L0, SHAPE)
    assert not mask[8:12, 17:23].any()
    both = [ring, {"type": "Polygon", "coordinates": [square(150, 60, 250, 140)]}]
    assert read_regions(write_json(tmp_path / "roi.geojson", both), L0, SHAPE)[8:12, 17:23].all()


def test_an_area_smaller_than_a_mask_px_still_counts(tmp_path):
    tiny = {"type": "Polygon", "coordinates": [square(203, 101, 206, 104)]}
    mask = read_regions(write_json(tmp_path / "roi.geojson", tiny), L0, SHAPE)
    assert mask[10, 20]
    assert mask.sum() <= 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{not json", "must be GeoJSON"),
        ("[]", "at least one Polygon"),
        ('{"type": "Point", "coordinates": [1, 2]}', "at least one Polygon"),
        ('{"type": "Polygon", "coordinates": []}', "lists of rings"),
        ('{"type": "Polygon"}', "lists of rings"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}', "at least 3"),
        ('{"type": "Polygon", "coordinates": [[["a", 0], [1, 1], [2, 0]]]}', "list of"),
        ('{"type": "Polygon", "coordinates": [[1, 2, 3]]}', "list of"),
        ('{"name": "x"}', "GeoJSON objects"),
        ("[1, 2]", "GeoJSON objects"),
        (json.dumps({"type": "Polygon", "coordinates": [square(900, 900, 999, 999)]}), "no area lies on the slide"),
    ],
)
def test_broken_geojson_is_refused_in_one_line(tmp_path, text, message):
    path = tmp_path / "roi.geojson"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        read_regions(path, L0, SHAPE)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_gz_is_refused(tmp_path):
    path = tmp_path / "roi.geojson.gz"
    path.write_bytes(gzip.compress(json.dumps(FEATURE).encode())[:-10])
    with pytest.raises(UsageError, match="must be GeoJSON"):
        read_regions(path, L0, SHAPE)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(40, 20), (400, 200), (41, 20), (4, 2)])
def test_a_mask_image_of_any_scale_is_read(tmp_path, channels, size):
    image = np.zeros((size[1], size[0], channels), np.uint8)
    image[..., 3:] = 255  # opaque black is not tissue
    image[0, 0, 0] = 1
    path = tmp_path / "mask é.png"
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    mask = read_mask_image(path, L0)
    assert mask.shape == (size[1], size[0])
    assert mask[0, 0]
    assert mask.sum() == 1


def test_a_mask_of_other_proportions_is_refused(tmp_path):
    path = tmp_path / "mask.png"
    cv2.imwrite(str(path), np.ones((200, 430), np.uint8))
    with pytest.raises(UsageError, match=r"400 x 200 px.*430 x 200 px"):
        read_mask_image(path, L0)


def test_what_is_no_image_is_refused(tmp_path):
    path = tmp_path / "mask.png"
    for content in (b"", b"nonsense"):
        path.write_bytes(content)
        with pytest.raises(UsageError, match="must be an image"):
            read_mask_image(path, L0)
    with pytest.raises(UsageError, match="cannot be read"):
        read_mask_image(tmp_path / "missing.png", L0)


def test_files_are_laid_over_the_slide(tmp_path):
    image = np.zeros((20, 40), np.uint8)
    image[5:15, 10:20] = 255
    mask_path, roi_path = tmp_path / "mask.png", write_json(tmp_path / "roi.geojson", FEATURE)
    cv2.imwrite(str(mask_path), image)
    with open_slide(write_slide(tmp_path / "x.tif", np.zeros((200, 400, 3), np.uint8))) as slide:
        by_mask, by_roi = load_tissue(str(mask_path), slide), load_tissue(str(roi_path), slide)
        with pytest.raises(UsageError, match=r"no\.png"):
            load_tissue(str(tmp_path / "no.png"), slide)
    assert (by_mask.l0_per_px_x, by_mask.l0_per_px_y, by_mask.source) == (10.0, 10.0, str(mask_path))
    assert by_mask.area_mm2((1.0, 1.0)) == pytest.approx(100 * 100 / 1e6)
    assert by_roi.source == str(roi_path)
    assert by_roi.mask.any()
    assert not by_roi.mask.all()
