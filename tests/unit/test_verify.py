"""verify passes a folder that the writers made, and names what is wrong with one that was tampered with."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
import zarr
from support_nuclei import FRAME, OUTPUTS, PROVENANCE, Sample, make_folder, make_record, make_sample, write_table

from wsipipe import labels as labels_module
from wsipipe import verifygeojson
from wsipipe.grid import Box
from wsipipe.labels import list_shards, read_labels, write_reduced_shard
from wsipipe.nuclei import Outlines, Runs
from wsipipe.provenance import Provenance
from wsipipe.table import SCHEMA
from wsipipe.verify import verify_folder

GEOJSON, TABLE, LABELS, RUN = "nuclei.geojson.gz", "nuclei.parquet", "labels.ome.zarr", "run.json"


@pytest.fixture(scope="module")
def sample() -> Sample:
    return make_sample(50)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory, sample: Sample) -> Path:
    folder = tmp_path_factory.mktemp("verify") / "slide"
    make_folder(folder, sample)
    return folder


@pytest.fixture
def folder(tmp_path: Path, good: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "slide"))


def _sign(folder: Path, nuclei: int, **changes: object) -> None:
    """Make run.json agree with the files as they are, so that only the checks of their contents can object."""
    make_record(folder, nuclei, OUTPUTS, **changes).write(folder / RUN)


def _edit_geojson(folder: Path, edit: Callable[[list[dict]], None]) -> None:
    lines = gzip.decompress((folder / GEOJSON).read_bytes()).decode().splitlines()
    features = [json.loads(line.rstrip(",")) for line in lines[1:-1]]
    edit(features)
    texts = [json.dumps(feature, ensure_ascii=False, separators=(",", ":")) for feature in features]
    (folder / GEOJSON).write_bytes(gzip.compress("\n".join([lines[0], ",\n".join(texts), "]}", ""]).encode()))


def _edit_table(folder: Path, edit: Callable[[pa.Table], pa.Table]) -> None:
    metadata = pq.read_metadata(folder / TABLE).metadata
    table = edit(pq.read_table(folder / TABLE))
    with pq.ParquetWriter(folder / TABLE, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({name: metadata[name] for name in (b"geo", b"wsipipe")})


def _set(table: pa.Table, name: str, edit: Callable[[list], None]) -> pa.Table:
    values = table[name].to_pylist()
    edit(values)
    at = table.column_names.index(name)
    return table.set_column(at, table.schema.field(name), pa.array(values, table.schema.field(name).type))


def _edit_labels(folder: Path, edit: Callable[[np.ndarray], None]) -> None:
    array = zarr.open_array(str(folder / LABELS / "0"), mode="r+")
    pixels = array[:]
    edit(pixels)
    array[:] = pixels
    for level in (1, 2):
        for shard in list_shards(FRAME, level):
            write_reduced_shard(folder / LABELS, shard)


def _assert_only(problems: list[str], *words: str) -> None:
    """Every word must be in one and the same line."""
    assert any(all(word in line for word in words) for line in problems), problems
    assert all("\n" not in line for line in problems)


def test_a_folder_of_the_writers_has_no_problem(good: Path) -> None:
    assert verify_folder(good) == []


def test_a_folder_with_small_shards_has_no_problem(
    tmp_path: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labels_module, "SHARD", 256)
    monkeypatch.setattr(labels_module, "CHUNK", 64)
    monkeypatch.setattr("wsipipe.table.ROW_GROUP", 9)
    monkeypatch.setattr("wsipipe.verifygeojson.BATCH", 5)
    monkeypatch.setattr("wsipipe.verifytable.BATCH", 4)
    make_folder(tmp_path / "slide", sample)
    assert verify_folder(tmp_path / "slide") == []


def test_a_slide_without_nuclei_has_no_problem(tmp_path: Path, sample: Sample) -> None:
    nothing = Outlines(np.empty((0, 2)), np.zeros(1, np.int64), np.zeros(1, np.int64))
    make_folder(tmp_path / "slide", Sample(sample.labels * 0, _no_runs(sample), nothing, sample.table.slice(0, 0)))
    assert verify_folder(tmp_path / "slide") == []


def _no_runs(sample: Sample) -> Runs:
    runs = sample.runs
    return Runs(runs.row[:0], runs.x0[:0], runs.x1[:0], runs.label[:0])


def test_a_folder_without_geojson_has_no_problem_if_none_was_asked_for(folder: Path, sample: Sample) -> None:
    (folder / GEOJSON).unlink()
    make_record(folder, len(sample.table), (TABLE, LABELS), geojson_detail="none").write(folder / RUN)
    assert verify_folder(folder) == []


def test_a_missing_run_record_is_named(folder: Path) -> None:
    (folder / RUN).unlink()
    _assert_only(verify_folder(folder), "run record is missing")


def test_an_unfinished_run_is_named(folder: Path, sample: Sample) -> None:
    _sign(folder, len(sample.table), status="running")
    _assert_only(verify_folder(folder), RUN, "status must be done, is running")


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / GEOJSON).unlink()
    _assert_only(verify_folder(folder), GEOJSON, "is missing")


def test_a_file_of_another_run_is_named(folder: Path) -> None:
    write_table(folder / TABLE, make_sample(50, seed=9))
    _assert_only(verify_folder(folder), TABLE, "is not the file that this run wrote")


def test_a_table_of_another_slide_is_named_even_with_its_digest(folder: Path, sample: Sample) -> None:
    write_table(folder / TABLE, sample, Provenance("other.svs", "ffff", "classical", "00ff", FRAME))
    _sign(folder, len(sample.table))
    _assert_only(verify_folder(folder), TABLE, "another slide, model or frame")


def test_a_changed_shard_is_named(folder: Path) -> None:
    shard = folder / LABELS / "0" / "c" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:-100])
    _assert_only(verify_folder(folder), LABELS, "is not the file that this run wrote")
    _assert_only(verify_folder(folder), LABELS, "cannot be read")


def test_a_feature_without_id_is_named(folder: Path, sample: Sample) -> None:
    _edit_geojson(folder, lambda features: features[4].pop("id"))
    _sign(folder, len(sample.table))
    problems = verify_folder(folder)
    _assert_only(problems, GEOJSON, "has no id", "feature 5")
    _assert_only(problems, GEOJSON, "missing", "label 5")


def test_an_id_that_stands_twice_is_named(folder: Path, sample: Sample) -> None:
    ids = sample.table["uuid"].to_pylist()
    _edit_geojson(folder, lambda features: features[4].update(id=ids[3]))
    _sign(folder, len(sample.table))
    problems = verify_folder(folder)
    _assert_only(problems, GEOJSON, "id stands more than once", ids[3])
    _assert_only(problems, GEOJSON, "missing", "label 5")


def test_an_invented_id_is_named(folder: Path, sample: Sample) -> None:
    invented = "12345678-1234-5678-9234-123456789abc"
    _edit_geojson(folder, lambda features: features[0].update(id=invented))
    _sign(folder, len(sample.table))
    _assert_only(verify_folder(folder), GEOJSON, "id is not in nuclei.parquet", invented)


def test_a_moved_polygon_in_the_geojson_is_named(folder: Path, sample: Sample) -> None:
    def move(features: list[dict]) -> None:
        rings = features[2]["geometry"]["coordinates"]
        features[2]["geometry"]["coordinates"] = [[[x + 1, y] for x, y in ring] for ring in rings]

    _edit_geojson(folder, move)
    _sign(folder, len(sample.table))
    _assert_only(
        verify_folder(folder), GEOJSON, "polygon is not that of nuclei.parquet", sample.table["uuid"][2].as_py()
    )


def test_a_polygon_moved_everywhere_is_named(folder: Path, sample: Sample) -> None:
    coords = sample.outlines_l0.coords.copy()
    coords[: sample.outlines_l0.ring_starts[1]] += 40
    moved = Outlines(coords, sample.outlines_l0.ring_starts, sample.outlines_l0.polygon_starts)
    write_table(folder / TABLE, Sample(sample.labels, sample.runs, moved, sample.table))
    _sign(folder, len(sample.table))
    _assert_only(verify_folder(folder), TABLE, "centroid lies outside the polygon's box", "label 1")


def test_a_bow_tie_is_named(folder: Path, sample: Sample) -> None:
    bow_tie = [[[10, 10], [30, 30], [30, 10], [10, 30], [10, 10]]]
    _edit_geojson(folder, lambda features: features[1]["geometry"].update(coordinates=bow_tie))
    _edit_table(
        folder,
        lambda table: _set(table, "geometry", lambda v: v.__setitem__(1, shapely.Polygon(bow_tie[0]).wkb)),
    )
    _sign(folder, len(sample.table))
    problems = verify_folder(folder)
    _assert_only(problems, GEOJSON, "polygon is not valid", sample.table["uuid"][1].as_py())
    _assert_only(problems, TABLE, "polygon is not valid", "label 2")


def test_a_polygon_of_the_wrong_size_is_named(folder: Path, sample: Sample) -> None:
    def shrink(values: list[bytes]) -> None:
        polygon = shapely.from_wkb(values[1]).buffer(-1.5)
        values[1] = shapely.set_precision(polygon, 0.01).wkb

    _edit_table(folder, lambda table: _set(table, "geometry", shrink))
    _sign(folder, len(sample.table))
    _assert_only(verify_folder(folder), TABLE, "area of the polygon is not that of the label's pixels", "label 2")


def test_coordinates_at_double_scale_are_named(folder: Path, sample: Sample) -> None:
    doubled = Outlines(sample.outlines_l0.coords * 2, sample.outlines_l0.ring_starts, sample.outlines_l0.polygon_starts)
    changed = Sample(sample.labels, sample.runs, doubled, sample.table)
    make_folder(folder, changed)
    problems = verify_folder(folder)
    _assert_only(problems, TABLE, "area of the polygon is not that of the label's pixels")
    _assert_only(problems, TABLE, "polygon reaches beyond the slide")


def test_a_coordinate_off_the_grid_is_named(folder: Path, sample: Sample) -> None:
    def shift(features: list[dict]) -> None:
        ring = features[0]["geometry"]["coordinates"][0]
        ring[1] = [ring[1][0] + 0.001, ring[1][1]]

    _edit_geojson(folder, shift)
    _sign(folder, len(sample.table))
    _assert_only(verify_folder(folder), GEOJSON, "more than 2 decimals")


def test_a_wrong_zarr_scale_is_named(folder: Path, sample: Sample) -> None:
    group = zarr.open_group(str(folder / LABELS), mode="r+")
    ome = dict(group.attrs["ome"])
    ome["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"] = [1.0, 1.0]
    group.attrs["ome"] = ome
    _sign(folder, len(sample.table))
    _assert_only(verify_folder(folder), LABELS, "scale or translation of level 0")


def test_broken_zarr_metadata_are_named(folder: Path, sample: Sample) -> None:
    group = zarr.open_group(str(folder / LABELS), mode="r+")
    ome = dict(group.attrs["ome"])
    del ome["multiscales"][0]["axes"]
    group.attrs["ome"] = ome
    _sign(folder, len(sample.table))
    _assert_only(verify_folder(folder), LABELS, "metadata is not OME-Zarr 0.5")


def test_a_truncated_geojson_is_named(folder: Path, sample: Sample) -> None:
    data = (folder / GEOJSON).read_bytes()
    (folder / GEOJSON).write_bytes(data[: len(data) // 2])
    _sign(folder, len(sample.table))
    _assert_only(verify_folder(folder), GEOJSON, "cannot be read")


def test_a_geojson_whose_end_is_missing_is_named(folder: Path, sample: Sample) -> None:
    text = gzip.decompress((folder / GEOJSON).read_bytes())
    (folder / GEOJSON).write_bytes(gzip.compress(text[: text.rindex(b",\n")]))
    _sign(folder, len(sample.table))
    _assert_only(verify_folder(folder), GEOJSON, "ends before the FeatureCollection does")


def test_a_renumbered_label_is_named(folder: Path, sample: Sample) -> None:
    def swap(pixels: np.ndarray) -> None:
        one, two = pixels == 1, pixels == 2
        pixels[one], pixels[two] = 2, 1

    _edit_labels(folder, swap)
    _sign(folder, len(sample.table))
    _assert_only(verify_folder(folder), TABLE, "centroid is not that of the label's pixels", "label 1", "label 2")


def test_a_label_beyond_the_table_is_named(folder: Path, sample: Sample) -> None:
    n = len(sample.table)
    _edit_labels(folder, lambda pixels: np.putmask(pixels, pixels == 1, n + 7))
    _sign(folder, n)
    problems = verify_folder(folder)
    _assert_only(problems, LABELS, f"labels beyond {n}", str(n + 7))
    _assert_only(problems, LABELS, "labels without a pixel", "1")


def test_a_level_that_does_not_follow_from_the_one_below_is_named(folder: Path, sample: Sample) -> None:
    array = zarr.open_array(str(folder / LABELS / "1"), mode="r+")
    assert read_labels(folder / LABELS, Box(0, 0, *array.shape[::-1]), 1).any()
    array[0, 0] = 1
    _sign(folder, len(sample.table))
    _assert_only(verify_folder(folder), LABELS, "level 1 is not the halved level 0", "shard 0/0")


def test_a_nucleus_dropped_from_the_geojson_is_named(folder: Path, sample: Sample) -> None:
    _edit_geojson(folder, lambda features: features.pop(7))
    _sign(folder, len(sample.table))
    problems = verify_folder(folder)
    assert problems == [f"{GEOJSON}: nuclei of nuclei.parquet are missing: label 8"]


def test_a_nucleus_dropped_from_the_table_is_named(folder: Path, sample: Sample) -> None:
    _edit_table(folder, lambda table: table.slice(1))
    _sign(folder, len(sample.table))
    problems = verify_folder(folder)
    _assert_only(problems, TABLE, f"must have {len(sample.table)} rows")
    _assert_only(problems, TABLE, "labels are not 1, 2, 3")
    _assert_only(problems, GEOJSON, "id is not in nuclei.parquet", sample.table["uuid"][0].as_py())


def test_a_measurement_that_is_no_number_is_named(folder: Path, sample: Sample) -> None:
    _edit_table(folder, lambda table: _set(table, "solidity", lambda v: v.__setitem__(3, float("nan"))))
    _edit_geojson(folder, lambda features: features[5]["properties"]["measurements"].update(Solidity=None))
    _sign(folder, len(sample.table))
    problems = verify_folder(folder)
    _assert_only(problems, TABLE, "solidity is NaN or null", "label 4")
    _assert_only(problems, GEOJSON, "Solidity = None, not a finite number", sample.table["uuid"][5].as_py())


def test_nan_in_the_geojson_text_is_named(folder: Path, sample: Sample) -> None:
    _edit_geojson(folder, lambda features: features[5]["properties"]["measurements"].update(Solidity=float("nan")))
    _sign(folder, len(sample.table))
    _assert_only(verify_folder(folder), GEOJSON, "is not strict JSON")


def test_the_geojson_package_looks_at_an_even_sample(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    monkeypatch.setattr(verifygeojson, "SAMPLE", 10)
    monkeypatch.setattr(verifygeojson, "_invalid", lambda feature: looked.append(feature["id"]) or ["one"])
    (line,) = verify_folder(good)
    assert "not valid for the geojson package" in line
    ids = pq.read_table(good / TABLE)["uuid"].to_pylist()
    assert looked == ids[:: -(-len(ids) // 10)]


def test_a_polygon_that_the_geojson_package_refuses_is_named() -> None:
    feature = {
        "type": "Feature",
        "id": "x",
        "properties": {},
        "geometry": {"type": "Polygon", "coordinates": [[[0, 0]]]},
    }
    (name,) = verifygeojson._invalid(feature)
    assert name.startswith("x (")


def test_another_measurement_in_the_geojson_is_named(folder: Path, sample: Sample) -> None:
    _edit_geojson(folder, lambda features: features[5]["properties"]["measurements"].update({"Area µm^2": 1.0}))
    _sign(folder, len(sample.table))
    _assert_only(
        verify_folder(folder), GEOJSON, "Area µm^2 is not area of the polygon", sample.table["uuid"][5].as_py()
    )


def test_a_missing_column_is_named(folder: Path, sample: Sample) -> None:
    _edit_table(folder, lambda table: table.drop_columns(["circularity"]))
    _sign(folder, len(sample.table))
    _assert_only(verify_folder(folder), TABLE, "documented columns are missing", "circularity")


def test_a_column_of_another_type_is_named(folder: Path, sample: Sample) -> None:
    at = SCHEMA.names.index("area_um2")
    _edit_table(folder, lambda table: table.set_column(at, "area_um2", table["area_um2"].cast(pa.float64())))
    _sign(folder, len(sample.table))
    _assert_only(verify_folder(folder), TABLE, "another type", "area_um2 is double, not float")


def test_a_uuid_that_does_not_follow_from_slide_and_label_is_named(folder: Path, sample: Sample) -> None:
    wrong = "12345678-1234-5678-9234-123456789abc"
    _edit_table(folder, lambda table: _set(table, "uuid", lambda v: v.__setitem__(2, wrong)))
    _edit_geojson(folder, lambda features: features[2].update(id=wrong))
    _sign(folder, len(sample.table))
    assert verify_folder(folder) == [f"{TABLE}: uuid is not uuid5 of slide key and label: label 3"]


def test_missing_metadata_are_named(folder: Path, sample: Sample) -> None:
    pq.write_table(pq.read_table(folder / TABLE), folder / TABLE)
    _sign(folder, len(sample.table))
    _assert_only(verify_folder(folder), TABLE, "metadata `geo` or `wsipipe` is missing")


def test_a_file_that_is_no_parquet_is_named(folder: Path, sample: Sample) -> None:
    (folder / TABLE).write_text("no table")
    _sign(folder, len(sample.table))
    _assert_only(verify_folder(folder), TABLE, "cannot be read")


def test_many_problems_of_one_kind_are_one_line(folder: Path, sample: Sample) -> None:
    n = len(sample.table)
    _edit_geojson(folder, lambda features: [feature["properties"].update(name="x") for feature in features])
    _sign(folder, n)
    (line, missing) = verify_folder(folder)
    assert line.endswith(f"and {n - 5} more")
    assert "missing" in missing


def test_the_provenance_of_the_record_is_that_of_the_files(folder: Path, sample: Sample) -> None:
    assert make_record(folder, len(sample.table), OUTPUTS).provenance() == PROVENANCE
