"""Cohort tables from finished folders: rows, groups that differ by a known factor, the dataset of all nuclei."""

import csv
import dataclasses
import json
import math
from pathlib import Path

import duckdb
import geopandas
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
import zarr
from support_cohort import Invented, invent_slide

from wsipipe import cohort as cohort_module
from wsipipe import open_nuclei
from wsipipe.cohort import EFFECTS_NAME, GROUPS_NAME, read_cohort, rebuild_cohort, write_cohort
from wsipipe.demo import draw_slide
from wsipipe.drawnslide import DemoSpec
from wsipipe.effects import Effect
from wsipipe.errors import OutputError
from wsipipe.failures import Failure, read_failures
from wsipipe.metadata import Metadata, read_metadata
from wsipipe.options import RunOptions
from wsipipe.runner import run_slides
from wsipipe.runrecord import read_record
from wsipipe.slidelist import list_slides

SIZE, DENSITY = 1.4, 1.3  # factors between the groups
PATIENT_SPREAD = 0.08  # standard deviation of a patient's log area and log number


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Metadata]:
    """12 patients of 2 groups with 2 slides each: group b has nuclei 1.4 times larger and 1.3 times denser."""
    out = tmp_path_factory.mktemp("study")
    rng = np.random.default_rng(5)
    rows = ["slide,patient,group,scanner"]
    for patient in range(12):
        is_b = patient % 2
        size, number = rng.normal(0, PATIENT_SPREAD, 2)
        for k in range(2):
            slide = f"{patient:03d}-{k}"
            log_area = math.log(50) + size + is_b * math.log(SIZE)
            n = round(600 * math.exp(number) * DENSITY**is_b)
            invent_slide(out, slide, Invented(n=n, log_area=log_area, seed=10 * patient + k))
            rows.append(f"{slide},P{patient},{'ab'[is_b]},{'xy'[patient // 2 % 2]}")
    path = out.parent / "study.csv"
    path.write_text("\n".join(rows), encoding="utf-8")
    return out, read_metadata(path)


@pytest.fixture(scope="module")
def effects(study: tuple[Path, Metadata]) -> dict[tuple[str, str], Effect]:
    """Effects by group column and measurement."""
    return {(effect.column, effect.measurement): effect for effect in read_cohort(*study).effects}


def test_known_differences_are_recovered_with_intervals_that_cover_them(
    effects: dict[tuple[str, str], Effect],
) -> None:
    for measurement, truth in (("area_um2_mean", SIZE), ("nuclei_per_mm2", DENSITY)):
        effect = effects["group", measurement]
        assert effect.ratio is not None
        assert effect.ratio.covers(truth)
        assert not effect.ratio.covers(1.0)
        assert not effect.difference.covers(0.0)
        assert effect.hedges_g is not None
        assert effect.hedges_g.low > 0
        assert (effect.patients_a, effect.patients_b) == (6, 6)


def test_measurements_and_groups_without_a_difference_show_none(effects: dict[tuple[str, str], Effect]) -> None:
    null = effects["group", "hematoxylin_od_mean_mean"]
    assert null.difference.covers(0.0)
    for measurement in ("area_um2_mean", "nuclei_per_mm2", "hematoxylin_od_mean_mean"):
        effect = effects["scanner", measurement]
        assert effect.difference.covers(0.0)
        assert effect.p_adjusted is not None
        assert effect.p_adjusted > 0.05


def test_intervals_are_those_of_12_patients_not_of_16000_nuclei(effects: dict[tuple[str, str], Effect]) -> None:
    difference = effects["group", "area_um2_mean"].difference
    expected = 2.23 * PATIENT_SPREAD * 60 * math.sqrt(2 / 6)  # t of 10 degrees of freedom; mean area about 60
    assert 0.4 * expected < (difference.high - difference.low) / 2 < 2.5 * expected


def test_tables_and_page_are_written_with_the_metadata(study: tuple[Path, Metadata]) -> None:
    out, metadata = study
    assert len(rebuild_cohort(out, metadata).rows) == 24
    table = pq.read_table(out / "cohort.parquet")
    assert table.column_names[:4] == ["slide", "patient", "group", "scanner"]
    assert pd.read_csv(out / "cohort.csv", dtype={"slide": str})["slide"].tolist() == table["slide"].to_pylist()
    with (out / EFFECTS_NAME).open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    area = next(row for row in rows if row["measurement"] == "area_um2_mean" and row["column"] == "group")
    assert float(area["ratio_low"]) < SIZE < float(area["ratio_high"])
    assert (out / GROUPS_NAME).exists()
    assert "the unit is the patient" in (out / "cohort.html").read_text(encoding="utf-8").lower()
    assert len(rebuild_cohort(out).rows) == 24
    assert not (out / EFFECTS_NAME).exists()
    assert not (out / GROUPS_NAME).exists()


def test_every_library_opens_the_dataset_and_ids_stay_text(study: tuple[Path, Metadata]) -> None:
    out, _ = study
    if not (out / "nuclei.dataset").exists():
        rebuild_cohort(out)
    dataset = str(out / "nuclei.dataset")
    expected = {row["slide"]: row["nuclei"] for row in read_cohort(out).rows}
    assert (
        pd.read_parquet(dataset, columns=["label", "slide"]).groupby("slide", observed=True).size().to_dict()
        == expected
    )
    files = f"{dataset}/*/*.parquet"
    rows = duckdb.sql(f"select slide, count(*) from read_parquet('{files}') group by slide").fetchall()
    assert dict(rows) == expected
    frame = pl.scan_parquet(files, hive_partitioning=True).group_by("slide").len().collect()
    assert dict(frame.iter_rows()) == expected
    shapes = geopandas.read_parquet(dataset, columns=["geometry", "slide"])
    assert len(shapes) == sum(expected.values())
    assert shapes.geometry.is_valid.all()
    lazy = open_nuclei(out)
    assert lazy.count_rows() == sum(expected.values())
    assert set(lazy.to_table(columns=["slide"])["slide"].to_pylist()) == set(expected)


def test_ids_of_digits_keep_their_zeros_and_odd_names_work(tmp_path: Path) -> None:
    for slide in ("007", "a=b %41", "ü & 'x'"):
        invent_slide(tmp_path, slide, Invented(n=5))
    rebuild_cohort(tmp_path)
    found = open_nuclei(tmp_path).to_table(columns=["slide"])["slide"].unique().to_pylist()
    assert sorted(found) == ["007", "a=b %41", "ü & 'x'"]


def test_the_output_folder_can_be_moved(tmp_path: Path) -> None:
    invent_slide(tmp_path / "one", "s", Invented(n=5))
    rebuild_cohort(tmp_path / "one")
    (tmp_path / "one").rename(tmp_path / "two")
    assert open_nuclei(tmp_path / "two").count_rows() == 5


def test_statistics_of_unchanged_nuclei_are_not_redone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = invent_slide(tmp_path, "s1", Invented(n=20))
    invent_slide(tmp_path, "s2", Invented(n=30))
    rebuild_cohort(tmp_path)
    first = pq.read_table(tmp_path / "cohort.parquet")
    done: list[str] = []
    summarise = cohort_module.summarise_slide
    monkeypatch.setattr(
        cohort_module,
        "summarise_slide",
        lambda folder, record, known: (
            (done.append(folder.name) if known is None else None) or summarise(folder, record, known)
        ),
    )
    rebuild_cohort(tmp_path)
    assert done == []
    assert pq.read_table(tmp_path / "cohort.parquet").equals(first)
    record = read_record(folder / "run.json")
    changed = {"nuclei.parquet": dataclasses.replace(record.files["nuclei.parquet"], sha256="0" * 64)}
    dataclasses.replace(record, files=changed).write(folder / "run.json")
    rebuild_cohort(tmp_path)
    assert done == ["s1"]
    (tmp_path / "cohort.parquet").write_bytes(b"damaged")
    assert len(rebuild_cohort(tmp_path).rows) == 2


def test_unfinished_folders_are_not_in_the_cohort(tmp_path: Path) -> None:
    invent_slide(tmp_path, "done", Invented(n=5))
    invent_slide(tmp_path, "running", Invented(n=5), status="running")
    (tmp_path / "other").mkdir()
    assert len(rebuild_cohort(tmp_path).rows) == 1
    with pytest.raises(OutputError, match="does not exist"):
        rebuild_cohort(tmp_path / "nothing")


def test_an_empty_cohort_has_tables_and_a_page(tmp_path: Path) -> None:
    assert len(rebuild_cohort(tmp_path).rows) == 0
    assert pq.read_table(tmp_path / "cohort.parquet").num_rows == 0
    assert "0 slides done" in (tmp_path / "cohort.html").read_text(encoding="utf-8")
    with pytest.raises(OutputError, match="wsipipe cohort"):
        open_nuclei(tmp_path / "nothing")


def test_a_run_leaves_failures_and_its_record(tmp_path: Path) -> None:
    folder = invent_slide(tmp_path, "s", Invented(n=5))
    failures = [
        Failure("/x/b.svs", "b", "cannot be opened, as it says", True),
        Failure("/x/s.svs", "s", "twice", False),
    ]
    write_cohort(tmp_path, [folder], failures, 12.0, RunOptions(out=tmp_path, command=("wsipipe", "run", "x y.svs")))
    assert read_failures(tmp_path) == failures
    page = (tmp_path / "cohort.html").read_text(encoding="utf-8")
    assert "cannot be opened, as it says" in page
    assert "wsipipe run &#39;x y.svs&#39;" in page


def test_folders_that_cannot_be_read_are_left_out_and_listed_until_they_can(tmp_path: Path) -> None:
    for slide in ("good", "damaged", "old"):
        invent_slide(tmp_path, slide, Invented(n=5))
    table, record = tmp_path / "damaged" / "nuclei.parquet", tmp_path / "old" / "run.json"
    whole, text = table.read_bytes(), record.read_text(encoding="utf-8")
    table.write_bytes(b"x" * len(whole))
    record.write_text(json.dumps(json.loads(text) | {"format_version": 0}), encoding="utf-8")
    write_cohort(tmp_path, [tmp_path / "good"], [], 1.0, RunOptions(out=tmp_path))
    assert [row["slide"] for row in read_cohort(tmp_path).rows] == ["good"]
    assert [(failure.slide, failure.fatal) for failure in read_failures(tmp_path)] == [("damaged", True), ("old", True)]
    table.write_bytes(whole)
    record.write_text(text, encoding="utf-8")
    assert len(rebuild_cohort(tmp_path).rows) == 3
    assert read_failures(tmp_path) == []


def test_earlier_failures_stay_until_their_slide_is_done_or_tried_again(tmp_path: Path) -> None:
    options = RunOptions(out=tmp_path)
    failures = {slide: Failure(f"/x/{slide}.svs", slide, "cannot be opened", True) for slide in "abc"}
    write_cohort(tmp_path, [], failures.values(), 1.0, options)
    invent_slide(tmp_path, "b", Invented(n=5))
    again = Failure("/x/c.svs", "c", "has no mpp", True)
    write_cohort(tmp_path, [], [again], 1.0, options)
    assert read_failures(tmp_path) == [again, failures["a"]]
    assert json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["slides_failed"] == 1


@pytest.mark.slow
def test_twelve_drawn_slides_show_how_their_nuclei_were_drawn(tmp_path: Path) -> None:
    truth, rows = [], ["slide,patient,group,reader"]
    for k in range(12):
        is_b = k % 2
        spec = DemoSpec(1000, 1000, seed=100 + k, tissue=1, density=0.7 if is_b else 1.0, diameter=1.2 if is_b else 1.0)
        drawn = draw_slide(tmp_path / f"s{k:02d}.svs", tmp_path / f"s{k:02d}.zarr", spec)
        pixels = np.bincount(np.asarray(zarr.open_array(drawn.truth_path, mode="r")).ravel())[1:]
        truth.append((pixels[pixels > 0].mean(), drawn.n_nuclei))
        rows.append(f"s{k:02d},p{k},{'ab'[is_b]},{'xy'[k // 2 % 2]}")
    table = tmp_path / "study.csv"
    table.write_text("\n".join(rows), encoding="utf-8")
    options = RunOptions(
        out=tmp_path / "out", model="classical", workers=0, tissue="none", geojson_detail="none", metadata=table
    )
    slides = list_slides([str(tmp_path / f"s{k:02d}.svs") for k in range(12)], mpp=None)
    assert run_slides(slides, options, lambda event: None).failures == ()
    assert "group: b compared with a" in (tmp_path / "out" / "cohort.html").read_text(encoding="utf-8")
    found = {(e.column, e.measurement): e for e in read_cohort(tmp_path / "out", read_metadata(table)).effects}
    logs = np.log(truth)
    ratios = np.exp(
        logs[1::2].mean(axis=0) - logs[::2].mean(axis=0)
    )  # about 1.23 (1.2 squared, less clipping) and 0.67
    for measurement, ratio in zip(("area_um2_mean", "nuclei_per_mm2"), ratios, strict=True):
        effect = found["group", measurement]
        assert effect.ratio is not None
        assert effect.ratio.covers(ratio)
        assert not effect.ratio.covers(1.0)
        assert found["reader", measurement].difference.covers(0.0)  # whoever read the slide changes nothing
