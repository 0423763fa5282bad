"""The report of a slide: whole run on a drawn slide, gallery, charts, escaping, empty slides."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from markupsafe import Markup

from wsipipe import charts, report
from wsipipe.demo import draw_slide
from wsipipe.drawnslide import DemoSpec
from wsipipe.frames import WorkFrame
from wsipipe.gallery import COLUMNS, FIELD_UM, PER_KIND, choose_fields
from wsipipe.options import RunOptions
from wsipipe.report import write_slide_report
from wsipipe.runner import run_slides
from wsipipe.slide import open_slide
from wsipipe.slidelist import list_slides
from wsipipe.testing import ToySegmenter
from wsipipe.wording import command_text, duration, name_of, number, percent, size, unit_of

NAME = "a <b>&'\" 'slide"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn slide with an awkward name, done."""
    where = tmp_path_factory.mktemp("report")
    draw_slide(where / f"{NAME}.svs", where / "truth.zarr", DemoSpec(width=900, height=700, seed=1))
    command = ("/usr/bin/wsipipe", "run", f"{NAME}.svs", "--mpp", "0.25</pre><script>alert(1)</script>")
    options = RunOptions(out=where / "out", workers=0, command=command)
    summary = run_slides(
        list_slides([str(where / f"{NAME}.svs")], mpp=None), options, lambda e: None, segmenter=ToySegmenter()
    )
    assert not summary.failures
    return summary.results[0].folder


def test_the_report_is_one_of_the_files_of_the_run(folder: Path) -> None:
    from wsipipe.runrecord import path_digest, read_record

    record = read_record(folder / "run.json")
    assert record.files["report.html"] == path_digest(folder / "report.html")
    assert record.seconds["report"] > 0


def test_nothing_in_it_points_to_the_network_and_everything_is_escaped(folder: Path) -> None:
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "alert(1)" in page
    assert "&lt;b&gt;" in page
    assert "<b>&" not in page.split("</style>")[1].replace("<b>&nbsp;", "")
    links = re.findall(r'(?:src|href|url)\s*[=(]\s*["\']?([^"\'\s)>]+)', page)
    assert links
    assert all(link.startswith(("data:", "#")) for link in links)
    assert "default-src 'none'" in page


def test_it_says_what_was_run_and_shows_fields(folder: Path) -> None:
    page = (folder / "report.html").read_text(encoding="utf-8")
    for text in ("wsipipe run", "Quickhash", "Model SHA-256", "<h3>Typical</h3>", "<h3>Densest</h3>", "nuclei per mm²"):
        assert text in page
    assert page.count('src="data:image/jpeg') >= 3
    assert page.count("<svg") == 7


def test_a_slide_without_nuclei_or_cells_has_a_report(folder: Path, tmp_path: Path) -> None:
    import shutil

    import pyarrow.parquet as pq

    from wsipipe.quality import CELL_SCHEMA, write_cells
    from wsipipe.runrecord import read_record
    from wsipipe.table import SCHEMA

    shutil.copy(folder / "overview.png", tmp_path)
    pq.write_table(SCHEMA.empty_table(), tmp_path / "nuclei.parquet")
    write_cells(tmp_path / "quality.parquet", CELL_SCHEMA.empty_table())
    record = read_record(folder / "run.json")
    record = dataclasses.replace(
        record, nuclei=0, tissue_mm2=0.0, quality={}, flags=("no tissue was found",), command=()
    )
    with open_slide(Path(record.slide_path)) as slide:
        write_slide_report(tmp_path, record, slide)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "No nucleus was found" in page
    assert "no tissue was found" in page
    assert "Called from Python" in page


def fields_table(x_um: list[float], flagged: list[bool], area: list[float]) -> pa.Table:
    n = len(x_um)
    columns = [
        np.array(x_um),
        np.full(n, 5.0),
        np.array(area),
        np.full(n, 0.5),
        np.array(flagged, bool),
        np.zeros(n, bool),
        np.ones(n),
    ]
    return pa.table([pa.array(c) for c in columns], names=list(COLUMNS))


def test_fields_are_what_they_are_called_and_none_is_shown_twice() -> None:
    frame = WorkFrame(10_000, 200, 1.0, 1.0, 1.0, 1.0)
    counts = [6, 7, 8, 7, 30, 40, 50, 7, 6]  # nuclei in fields 0, 1, ...
    x = [i * FIELD_UM + 1 + k for i, n in enumerate(counts) for k in range(n)]
    flagged = [i == 8 for i, n in enumerate(counts) for _ in range(n)]
    fields = choose_fields(fields_table(x, flagged, [50.0] * len(x)), frame)
    by_kind = {kind: [round(f.x_um / FIELD_UM) for f in fields if f.kind == kind] for kind in {f.kind for f in fields}}
    assert by_kind["most suspicious"] == [8]
    assert by_kind["densest"] == [6, 5, 4]
    assert len(by_kind["typical"]) == PER_KIND
    assert set(by_kind["typical"]) <= {0, 1, 2, 3, 7}
    assert len({(f.x_um, f.y_um) for f in fields}) == len(fields)


def test_no_nuclei_no_fields() -> None:
    assert choose_fields(fields_table([], [], []), WorkFrame(100, 100, 1.0, 1.0, 1.0, 1.0)) == []


def test_charts_are_the_same_for_the_same_data_and_take_the_pages_colours() -> None:
    data = charts.Distribution("Area", np.random.default_rng(0).normal(50, 5, 300), "µm²")
    first, second = charts.histogram(data, "x"), charts.histogram(data, "x")
    assert isinstance(first, Markup)
    assert first == second
    assert "var(--accent)" in first
    assert "#0a0a" not in first
    assert "Date" not in first
    assert 'aria-label="Histogram of Area' in first


def test_ids_of_charts_do_not_collide_and_references_follow() -> None:
    data = charts.Distribution("Area", np.arange(100.0))
    one, two = charts.histogram(data, "one"), charts.histogram(data, "two")
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in (one, two)]
    assert not ids[0] & ids[1]
    for svg, known in zip((one, two), ids, strict=True):
        assert set(re.findall(r'(?:href="|url\()#([^")]+)', svg)) <= known


def test_charts_escape_names_and_take_dollars_as_dollars() -> None:
    svg = charts.strips("<b>", {"$x$ <i>": [1.0, 2.0], "b&": []}, "s")
    assert "<b>" not in svg
    assert "<i>" not in svg
    assert "$x$ &lt;i&gt;" in svg
    assert "no values" in charts.histogram(charts.Distribution("Empty", np.zeros(0)), "e")
    assert "<svg" in charts.forest([], "f", "nothing")


def test_numbers_are_written_for_people() -> None:
    assert [number(v) for v in (None, float("nan"), 0.0, 0.1234, 12.345, 1234.5, 1234567, 2.5e-7)] == [
        "–",
        "–",
        "0",
        "0.123",
        "12.3",
        "1,234",
        "1,234,567",
        "2.5e-07",
    ]
    assert [percent(v) for v in (None, 0.004, 0.5)] == ["–", "0.4 %", "50 %"]
    assert [duration(v) for v in (12.34, 245, 11220)] == ["12.3 s", "4 min 05 s", "3 h 07 min"]
    assert [size(v) for v in (None, 12, 81_200, 3_400_000_000)] == ["–", "12 bytes", "81.2 kB", "3.4 GB"]
    assert [name_of(c) for c in ("area_um2_mean", "area_um2_q50", "area_um2_sd", "seconds")] == [
        "Area",
        "Area, median",
        "Area, spread within slides",
        "seconds",
    ]
    assert (unit_of("area_um2_sd"), unit_of("clark_evans")) == ("µm²", "")
    assert command_text(("/a/wsipipe/__main__.py", "run", "a b")) == "python -m wsipipe run 'a b'"


@pytest.mark.parametrize(
    ("source", "words"),
    [("auto", "tissue"), ("none", "searched, the whole slide"), ("a/roi.geojson", "searched, areas of roi.geojson")],
)
def test_the_area_is_named_by_how_it_was_chosen(source: str, words: str) -> None:
    assert report._searched(source) == words
