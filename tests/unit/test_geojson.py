"""nuclei.geojson.gz: what QuPath reads, nothing that it refuses, equal bytes for equal nuclei."""

import gzip
import json
import struct
from pathlib import Path
from typing import Any

import geojson
import numpy as np
import pyarrow as pa
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from support_nuclei import L0_MPP, Sample, make_sample, write_geojson

from wsipipe.geojson import FULL_MEASUREMENTS, POLYGON_AREA, SHAPE_MEASUREMENTS, GeoJsonWriter, classification
from wsipipe.geojsonbytes import Features, assemble, feature_texts
from wsipipe.nuclei import Outlines
from wsipipe.outlines import to_shapely
from wsipipe.qupathrules import broken_rules


@pytest.fixture(scope="module")
def sample() -> Sample:
    return make_sample(40)


def _load(path: Path) -> Any:
    def refuse(token: str) -> None:
        raise AssertionError(f"{token} is no JSON")

    with gzip.open(path) as file:
        return json.loads(file.read().decode("utf-8"), parse_constant=refuse)


def _slice(outlines: Outlines, start: int, stop: int) -> Outlines:
    rings = outlines.ring_starts[outlines.polygon_starts[start] : outlines.polygon_starts[stop] + 1]
    polygons = outlines.polygon_starts[start : stop + 1]
    return Outlines(outlines.coords[rings[0] : rings[-1]], rings - rings[0], polygons - polygons[0])


def _number_text(value: float, decimals: int) -> str:
    """Write one number through the compiled loop."""
    empty = np.empty((0, 2), np.int64), np.zeros(1, np.int64), np.zeros(2, np.int64)
    features = Features(
        *empty, np.full((1, 36), 97, np.uint8), np.zeros(1, np.int64), np.array([[value]], dtype=np.float64)
    )
    text = assemble(features, feature_texts([b"{}"], [b'"v"'], [decimals]), 0, 1, is_first=True).tobytes().decode()
    return text.partition('"measurements":{')[2].removesuffix("}}}").removeprefix('"v":')


def test_the_collection_is_valid_geojson(tmp_path: Path, sample: Sample) -> None:
    write_geojson(tmp_path / "n.geojson.gz", sample)
    with gzip.open(tmp_path / "n.geojson.gz") as file:
        collection = geojson.loads(file.read().decode())
    assert isinstance(collection, geojson.FeatureCollection)
    assert collection.is_valid, collection.errors()
    assert len(collection.features) == sample.table.num_rows
    assert all(feature.geometry.is_valid for feature in collection.features)


@pytest.mark.parametrize("detail", ["shape", "full"])
def test_every_feature_keeps_the_rules_of_qupath(tmp_path: Path, sample: Sample, detail: str) -> None:
    write_geojson(tmp_path / "n.geojson.gz", sample, detail)
    features = _load(tmp_path / "n.geojson.gz")["features"]
    assert [rule for feature in features for rule in broken_rules(feature)] == []


def test_polygons_are_those_of_the_outlines_holes_included(tmp_path: Path, sample: Sample) -> None:
    write_geojson(tmp_path / "n.geojson.gz", sample)
    polygons = np.array([shapely.geometry.shape(f["geometry"]) for f in _load(tmp_path / "n.geojson.gz")["features"]])
    assert shapely.equals_exact(polygons, to_shapely(sample.outlines_l0), tolerance=0).all()
    assert shapely.is_valid(polygons).all()
    assert (shapely.get_num_interior_rings(polygons) > 0).any()


def test_ids_are_the_uuids_of_the_table(tmp_path: Path, sample: Sample) -> None:
    write_geojson(tmp_path / "n.geojson.gz", sample)
    features = _load(tmp_path / "n.geojson.gz")["features"]
    assert [feature["id"] for feature in features] == sample.table["uuid"].to_pylist()


def test_detail_shape_writes_only_the_six_measurements_of_qupath(tmp_path: Path, sample: Sample) -> None:
    write_geojson(tmp_path / "n.geojson.gz", sample, "shape")
    names = ["Area µm^2", "Length µm", "Circularity", "Solidity", "Max diameter µm", "Min diameter µm"]
    assert [m.name for m in SHAPE_MEASUREMENTS] == names
    for feature in _load(tmp_path / "n.geojson.gz")["features"]:
        assert list(feature["properties"]["measurements"]) == names
        assert list(feature["properties"]) == ["objectType", "classification", "measurements"]


def test_the_micro_sign_is_u_00b5() -> None:
    text = "".join(m.name for m in FULL_MEASUREMENTS)
    assert "\u00b5" in text
    assert "\u03bc" not in text


def test_measurements_are_the_columns_rounded_and_the_area_is_that_of_the_polygon(
    tmp_path: Path, sample: Sample
) -> None:
    write_geojson(tmp_path / "n.geojson.gz", sample, "full")
    rows = [feature["properties"]["measurements"] for feature in _load(tmp_path / "n.geojson.gz")["features"]]
    for measurement in FULL_MEASUREMENTS:
        if measurement.column == POLYGON_AREA:
            expected = (shapely.area(to_shapely(sample.outlines_l0)) * L0_MPP[0] * L0_MPP[1]).tolist()
        else:
            expected = sample.table[measurement.column].cast(pa.float64()).to_pylist()
        for row, value in zip(rows, expected, strict=True):
            if np.isnan(value):
                assert measurement.name not in row
            else:
                assert row[measurement.name] == pytest.approx(value, abs=0.5001 * 10**-measurement.decimals)


def test_missing_values_are_left_out_and_the_order_stays(tmp_path: Path, sample: Sample) -> None:
    values = sample.table["solidity"].to_numpy().copy()
    values[0], values[1], values[2] = np.nan, np.inf, -np.inf
    table = sample.table.set_column(sample.table.column_names.index("solidity"), "solidity", pa.array(values))
    with GeoJsonWriter(tmp_path / "n.geojson.gz", l0_mpp=L0_MPP) as writer:
        writer.write(sample.outlines_l0, table)
    order = [m.name for m in SHAPE_MEASUREMENTS]
    for k, feature in enumerate(_load(tmp_path / "n.geojson.gz")["features"]):
        names = list(feature["properties"]["measurements"])
        assert names == [name for name in order if k > 2 or name != "Solidity"]


def test_no_nuclei_make_an_empty_collection(tmp_path: Path, sample: Sample) -> None:
    with GeoJsonWriter(tmp_path / "n.geojson.gz", l0_mpp=L0_MPP) as writer:
        writer.write(_slice(sample.outlines_l0, 0, 0), sample.table.slice(0, 0))
    assert _load(tmp_path / "n.geojson.gz") == {"type": "FeatureCollection", "features": []}


def test_bytes_do_not_depend_on_how_nuclei_are_handed_over(
    tmp_path: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsipipe.geojson._PIECE", 1000)
    write_geojson(tmp_path / "whole.geojson.gz", sample)
    monkeypatch.setattr("wsipipe.geojson._BATCH", 7)
    with GeoJsonWriter(tmp_path / "parts.geojson.gz", l0_mpp=L0_MPP, detail="full") as writer:
        for start, stop in [(0, 1), (1, 1), (1, 17), (17, sample.table.num_rows)]:
            writer.write(_slice(sample.outlines_l0, start, stop), sample.table.slice(start, stop - start))
    whole, parts = (tmp_path / name for name in ("whole.geojson.gz", "parts.geojson.gz"))
    assert whole.read_bytes() == parts.read_bytes()
    assert struct.unpack("<I", whole.read_bytes()[4:8]) == (0,)  # mtime of the gzip header, RFC 1952


def test_an_error_leaves_no_file(tmp_path: Path, sample: Sample) -> None:
    writer = GeoJsonWriter(tmp_path / "n.geojson.gz", l0_mpp=L0_MPP)
    with pytest.raises(ValueError, match="one polygon per row"), writer:
        writer.write(sample.outlines_l0, sample.table.slice(1))
    assert list(tmp_path.iterdir()) == []


def test_a_coordinate_that_is_no_number_is_refused(tmp_path: Path, sample: Sample) -> None:
    coords = sample.outlines_l0.coords.copy()
    coords[5, 0] = np.nan
    broken = Outlines(coords, sample.outlines_l0.ring_starts, sample.outlines_l0.polygon_starts)
    writer = GeoJsonWriter(tmp_path / "n.geojson.gz", l0_mpp=L0_MPP)
    with pytest.raises(ValueError, match="finite"), writer:
        writer.write(broken, sample.table)


def test_a_class_that_the_model_does_not_have_is_refused(tmp_path: Path, sample: Sample) -> None:
    writer = GeoJsonWriter(tmp_path / "n.geojson.gz", l0_mpp=L0_MPP, class_names=("Tumor",))
    with pytest.raises(ValueError, match="class_name must be one of"), writer:
        writer.write(sample.outlines_l0, sample.table)


def test_a_name_that_qupath_ignores_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in \.geojson\.gz"):
        GeoJsonWriter(tmp_path / "nuclei.gz", l0_mpp=L0_MPP)


def test_classes_have_their_own_colours_and_derived_ones_are_lists() -> None:
    names = ("Nucleus", "Tumor: Positive", 'Kern "µ"')
    first, derived, quoted = (classification(names, i) for i in range(3))
    assert first == {"name": "Nucleus", "color": [200, 0, 0]}
    assert derived["names"] == ["Tumor", "Positive"]
    assert quoted["name"] == 'Kern "µ"'
    assert first["color"] != derived["color"] != quoted["color"]
    with pytest.raises(ValueError, match="blank"):
        classification(("Tumor: ",), 0)


def test_class_names_of_any_text_are_escaped(tmp_path: Path, sample: Sample) -> None:
    name = 'Kern "µ"\\\n'
    names = pa.array([name] * sample.table.num_rows)
    table = sample.table.set_column(sample.table.column_names.index("class_name"), "class_name", names)
    with GeoJsonWriter(tmp_path / "n.geojson.gz", l0_mpp=L0_MPP, class_names=(name,)) as writer:
        writer.write(sample.outlines_l0, table)
    assert _load(tmp_path / "n.geojson.gz")["features"][0]["properties"]["classification"]["name"] == name


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (0.0, 2, "0"),
        (12.0, 2, "12"),
        (12.5, 2, "12.5"),
        (0.05, 2, "0.05"),
        (-0.05, 2, "-0.05"),
        (-0.001, 2, "0"),
        (100.0, 0, "100"),
        (1200.0, 3, "1200"),
        (1.005, 2, "1"),
        (99999.99, 2, "99999.99"),
    ],
)
def test_numbers_have_no_zeros_too_many(value: float, decimals: int, text: str) -> None:
    assert _number_text(value, decimals) == text


@given(st.floats(-1e9, 1e9), st.integers(0, 4))
def test_a_number_reads_back_rounded(value: float, decimals: int) -> None:
    text = _number_text(value, decimals)
    assert float(text) == pytest.approx(value, abs=0.5001 * 10**-decimals)
    assert text == "0" or not ("." in text and text.endswith("0"))
    assert not text.endswith(".")
    assert text.lstrip("-") == "0" or not text.lstrip("-").startswith("00")
