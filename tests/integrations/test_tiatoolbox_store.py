"""`wsipipe export --to annotation-store`, read back by TIAToolbox. Needs TIAToolbox: scripts/test-tiatoolbox."""

import logging
import sqlite3
import sys
import warnings

import pyarrow.parquet as pq
import pytest
import shapely
import support_runs

pytest.importorskip("tiatoolbox", reason="needs TIAToolbox: scripts/test-tiatoolbox")

from wsipipe.errors import UsageError
from wsipipe.integrations import tiatoolboxstore
from wsipipe.integrations.exports import export_slide
from wsipipe.integrations.tiatoolboximport import import_from_tiatoolbox


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("store")
    slide = support_runs.draw_discs(place / "slide.tiff", 500, 400)
    support_runs.run([slide], place / "out", workers=0)
    return place / "out" / "slide"


@pytest.fixture(scope="module")
def store(folder):
    path = export_slide(folder, "annotation-store")
    assert path == folder / "nuclei.db"
    opened = import_from_tiatoolbox("tiatoolbox.annotation.storage", what="test").SQLiteStore.open(path)
    yield opened
    opened.close()


def test_every_nucleus_is_there_once_under_its_uuid(folder, store):
    uuids = pq.read_table(folder / "nuclei.parquet", columns=["uuid"])["uuid"].to_pylist()
    assert len(uuids) > 50
    assert sorted(store.keys()) == sorted(uuids)
    assert len(store) == len(uuids)


def test_outlines_are_equal_within_a_hundredth_of_a_pixel(folder, store):
    table = pq.read_table(folder / "nuclei.parquet", columns=["uuid", "geometry"])
    for uuid, wkb in zip(table["uuid"].to_pylist(), table["geometry"].to_pylist(), strict=True):
        there = store[uuid].geometry
        assert there.is_valid
        assert shapely.hausdorff_distance(there, shapely.from_wkb(wkb)) <= 0.01


def test_measurements_are_properties_and_class_and_probability_have_tiaviz_names(folder, store):
    for row in pq.read_table(folder / "nuclei.parquet").drop_columns(["geometry"]).to_pylist():
        properties = dict(store[row.pop("uuid")].properties)
        assert properties.pop("type") == row.pop("class_name")
        assert properties.pop("prob", None) == row.pop("class_prob")
        assert properties == {name: value for name, value in row.items() if value is not None}


def test_a_place_can_be_asked_for(folder, store):
    row = pq.read_table(folder / "nuclei.parquet", columns=["uuid", "geometry"]).slice(0, 1).to_pylist()[0]
    x0, y0, x1, y1 = shapely.bounds(shapely.from_wkb(row["geometry"]))
    assert row["uuid"] in store.query((x0, y0, x1, y1))


def test_large_slides_are_written_in_parts(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(tiatoolboxstore, "BATCH", 7)
    path = export_slide(folder, "annotation-store", tmp_path / "parts.db")
    n = sqlite3.connect(path).execute("select count(*) from annotations").fetchone()[0]
    assert n == pq.read_metadata(folder / "nuclei.parquet").num_rows


def test_a_python_whose_sqlite_loads_no_extensions_says_so(folder, tmp_path, monkeypatch):
    class Connection:
        pass

    monkeypatch.setattr(tiatoolboxstore.sqlite3, "Connection", Connection)
    with pytest.raises(UsageError, match="needs a Python whose sqlite3 can load extensions"):
        export_slide(folder, "annotation-store", tmp_path / "no.db")
    assert not (tmp_path / "no.db").exists()


def test_importing_tiatoolbox_leaves_log_and_warnings_as_they_were():
    handlers, level, show = list(logging.getLogger().handlers), logging.getLogger().level, warnings.showwarning
    for name in [name for name in sys.modules if name == "tiatoolbox"]:
        del sys.modules[name]  # its __init__ alone, which sets the log up
    import_from_tiatoolbox("tiatoolbox", what="test")
    assert logging.getLogger().handlers == handlers
    assert logging.getLogger().level == level
    assert warnings.showwarning is show
