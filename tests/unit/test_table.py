"""nuclei.parquet: documented, valid GeoParquet, exact, streamed."""

import json
import re
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from support_nuclei import FRAME, PROVENANCE, Sample, make_sample, write_table

from wsipipe import table as table_module
from wsipipe.measure import BLOCK_SCHEMA
from wsipipe.nuclei import Outlines
from wsipipe.outlines import to_shapely
from wsipipe.provenance import provenance_from_json
from wsipipe.table import NAMESPACE, SCHEMA, NucleiTableWriter, nucleus_uuids, read_nuclei, to_wkb

COLUMNS_DOC = Path(__file__).resolve().parents[2] / "docs" / "columns.md"


@pytest.fixture(scope="module")
def sample() -> Sample:
    return make_sample(40)


def _slice(outlines: Outlines, start: int, stop: int) -> Outlines:
    rings = outlines.ring_starts[outlines.polygon_starts[start] : outlines.polygon_starts[stop] + 1]
    polygons = outlines.polygon_starts[start : stop + 1]
    return Outlines(outlines.coords[rings[0] : rings[-1]], rings - rings[0], polygons - polygons[0])


def test_uuids_are_those_of_the_standard_library() -> None:
    slide = uuid.uuid5(NAMESPACE, "key-µ")
    expected = [str(uuid.uuid5(slide, str(label))) for label in range(95, 105)]
    assert nucleus_uuids("key-µ", 95, 10).to_pylist() == expected


def test_the_namespace_never_changes() -> None:
    assert str(NAMESPACE) == str(uuid.uuid5(uuid.NAMESPACE_URL, "https://pypi.org/project/wsipipe/#nucleus"))
    assert nucleus_uuids("a", 1, 0).to_pylist() == []


def test_columns_are_those_of_the_documentation() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", COLUMNS_DOC.read_text(encoding="utf-8"), flags=re.MULTILINE)
    names = {"bool": "bool", "float": "float32", "double": "float64"}
    assert rows == [(field.name, names.get(str(field.type), str(field.type))) for field in SCHEMA]


def test_measured_columns_have_the_same_names_and_types_as_where_they_are_measured() -> None:
    assert [field for field in SCHEMA if field.name in BLOCK_SCHEMA.names] == list(BLOCK_SCHEMA)
    later = {"label", "uuid", "neighbour_distance_um", "neighbours_50um", "is_outlier", "in_artefact", "geometry"}
    assert set(SCHEMA.names) - set(BLOCK_SCHEMA.names) == later


def test_rows_come_back_with_the_documented_schema(tmp_path: Path, sample: Sample) -> None:
    write_table(tmp_path / "n.parquet", sample)
    got = read_nuclei(tmp_path / "n.parquet")
    assert got.schema.names == SCHEMA.names
    assert got.schema.types == SCHEMA.types
    assert got["label"].to_pylist() == list(range(1, len(got) + 1))
    np.testing.assert_array_equal(got["area_um2"].to_numpy(), sample.table["area_um2"].to_numpy())
    assert got["class_prob"].null_count == len(got)
    assert got["neighbour_distance_um"].null_count == 1


def test_geometry_is_the_polygons_themselves(tmp_path: Path, sample: Sample) -> None:
    write_table(tmp_path / "n.parquet", sample)
    polygons = shapely.from_wkb(read_nuclei(tmp_path / "n.parquet", ["geometry"])["geometry"].to_numpy())
    expected = to_shapely(sample.outlines_l0)
    assert shapely.equals_exact(polygons, expected).all()
    assert (shapely.get_num_interior_rings(polygons) > 0).any()
    assert shapely.is_valid(polygons).all()


def test_wkb_is_what_shapely_writes(sample: Sample) -> None:
    expected = shapely.to_wkb(to_shapely(sample.outlines_l0), byte_order=1)
    assert to_wkb(sample.outlines_l0).to_pylist() == list(expected)


def test_metadata_are_those_of_geoparquet_1_1(tmp_path: Path, sample: Sample) -> None:
    write_table(tmp_path / "n.parquet", sample)
    texts = pq.read_metadata(tmp_path / "n.parquet").metadata
    geo = json.loads(texts[b"geo"])
    assert geo["version"] == "1.1.0"
    assert geo["primary_column"] == "geometry"
    column = geo["columns"]["geometry"]
    assert column["encoding"] == "WKB"
    assert column["geometry_types"] == ["Polygon"]
    assert column["crs"] is None
    assert column["bbox"] == shapely.total_bounds(to_shapely(sample.outlines_l0)).tolist()
    exteriors = shapely.get_exterior_ring(to_shapely(sample.outlines_l0))
    assert column["orientation"] == "counterclockwise"
    assert shapely.is_ccw(exteriors).all()


def test_the_file_tells_its_slide_and_model(tmp_path: Path, sample: Sample) -> None:
    write_table(tmp_path / "n.parquet", sample)
    values = json.loads(pq.read_metadata(tmp_path / "n.parquet").metadata[b"wsipipe"])
    assert values["format_version"] == 1
    assert values["work_mpp"] == [FRAME.mpp_x, FRAME.mpp_y]
    assert provenance_from_json(values) == PROVENANCE


def test_a_slide_without_nuclei_has_a_table_without_rows(tmp_path: Path, sample: Sample) -> None:
    with NucleiTableWriter(tmp_path / "n.parquet", PROVENANCE) as writer:
        writer.write(_slice(sample.outlines_l0, 0, 0), sample.table.slice(0, 0))
    assert read_nuclei(tmp_path / "n.parquet").schema.names == SCHEMA.names
    geo = json.loads(pq.read_metadata(tmp_path / "n.parquet").metadata[b"geo"])
    assert geo["columns"]["geometry"]["geometry_types"] == []
    assert "bbox" not in geo["columns"]["geometry"]


def test_bytes_do_not_depend_on_how_rows_are_handed_over(
    tmp_path: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_module, "ROW_GROUP", 7)
    write_table(tmp_path / "whole.parquet", sample)
    n = sample.table.num_rows
    with NucleiTableWriter(tmp_path / "parts.parquet", PROVENANCE) as writer:
        for start, stop in [(0, 3), (3, 3), (3, 20), (20, n)]:
            writer.write(_slice(sample.outlines_l0, start, stop), sample.table.slice(start, stop - start))
    assert (tmp_path / "whole.parquet").read_bytes() == (tmp_path / "parts.parquet").read_bytes()
    groups = pq.ParquetFile(tmp_path / "whole.parquet").metadata
    assert [groups.row_group(i).num_rows for i in range(groups.num_row_groups)] == [7] * (n // 7) + [n % 7] * (
        n % 7 > 0
    )


def test_class_names_may_come_as_a_dictionary(tmp_path: Path, sample: Sample) -> None:
    at = sample.table.column_names.index("class_name")
    coded = sample.table.set_column(at, "class_name", sample.table["class_name"].dictionary_encode())
    with NucleiTableWriter(tmp_path / "n.parquet", PROVENANCE) as writer:
        writer.write(sample.outlines_l0, coded)
    assert read_nuclei(tmp_path / "n.parquet")["class_name"].type == pa.string()


def test_an_error_leaves_the_old_file(tmp_path: Path, sample: Sample) -> None:
    path = tmp_path / "n.parquet"
    path.write_text("old")
    writer = NucleiTableWriter(path, PROVENANCE)
    with pytest.raises(ValueError, match="solidity"), writer:
        writer.write(sample.outlines_l0, sample.table.drop_columns(["solidity"]))
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["n.parquet"]


def test_rows_and_polygons_must_be_equally_many(tmp_path: Path, sample: Sample) -> None:
    writer = NucleiTableWriter(tmp_path / "n.parquet", PROVENANCE)
    with pytest.raises(ValueError, match="one polygon per row"), writer:
        writer.write(sample.outlines_l0, sample.table.slice(1))
