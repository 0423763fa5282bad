import csv
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support_nuclei import make_folder, make_sample

from wsipipe.classcounts import count_classes
from wsipipe.cohort import rebuild_cohort
from wsipipe.runrecord import path_digest, read_record


@pytest.fixture
def folder(tmp_path):
    """A slide folder whose model told no classes."""
    place = tmp_path / "slide-1"
    make_folder(place, make_sample(20))
    return place


def set_classes(folder, names, probability=0.5):
    """Rewrite the table with these classes."""
    path = folder / "nuclei.parquet"
    table = pq.read_table(path)
    names = (names * table.num_rows)[: table.num_rows]
    at = {name: table.column_names.index(name) for name in ("class_name", "class_prob")}
    table = table.set_column(at["class_name"], table.schema.field("class_name"), pa.array(names))
    values = pa.array([probability] * table.num_rows, pa.float32())
    pq.write_table(table.set_column(at["class_prob"], table.schema.field("class_prob"), values), path)
    return names


def test_every_nucleus_is_counted_once_the_most_frequent_class_first(folder):
    names = set_classes(folder, ["A", "B", "A"])
    record = read_record(folder / "run.json")
    counts = count_classes(folder, record)
    assert [count.class_name for count in counts] == ["A", "B"]
    assert {count.class_name: count.nuclei for count in counts} == {name: names.count(name) for name in "AB"}
    assert sum(count.share for count in counts) == pytest.approx(1, abs=1e-5)
    for count in counts:
        assert count.nuclei_per_mm2 == pytest.approx(count.nuclei / record.tissue_mm2, rel=1e-3)


def test_a_model_without_classes_has_no_counts(folder):
    assert count_classes(folder, read_record(folder / "run.json")) == []


def test_the_cohorts_table_of_classes_is_there_only_with_classes(folder):
    table = folder.parent / "cohort-classes.csv"
    rebuild_cohort(folder.parent)
    assert not table.exists()
    set_classes(folder, ["A", "B"])
    record = read_record(folder / "run.json")
    digest = path_digest(folder / "nuclei.parquet")
    replace(record, files={**record.files, "nuclei.parquet": digest}).write(folder / "run.json")
    rebuild_cohort(folder.parent)
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert {row["slide"] for row in rows} == {"slide-1"}
    assert [row["class_name"] for row in rows] == ["A", "B"]
    assert sum(int(row["nuclei"]) for row in rows) == record.nuclei
