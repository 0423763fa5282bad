"""A slide's row: statistics against pandas, arrangement against theory, empty slides."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from support_cohort import TISSUE_MM2, Invented, invent_slide

from wsipipe.runrecord import read_record
from wsipipe.summary import (
    MEASUREMENTS,
    QUANTILES,
    STATISTICS,
    SUMMARY_SCHEMA,
    clark_evans,
    describe,
    read_column,
    summarise_slide,
)


def test_statistics_are_those_of_pandas() -> None:
    values = pd.Series(np.random.default_rng(0).lognormal(3, 0.5, 10_001))
    found = dict(zip(STATISTICS, describe(values.to_numpy().copy()), strict=True))
    expected = {"count": 10_001, "mean": values.mean(), "sd": values.std()}
    expected |= {f"q{round(100 * q):02d}": values.quantile(q) for q in QUANTILES}
    away = (values - values.median()).abs()
    expected["outliers"] = int((away > 5 * 1.4826 * away.median()).sum())
    assert found == pytest.approx(expected, rel=1e-12)
    assert expected["outliers"] > 0


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_values_have_what_can_be_said(n: int) -> None:
    count, mean, sd, *quantiles, outliers = describe(np.arange(n, dtype=float))
    assert (count, outliers) == (n, 0)
    assert (mean is None, sd is None) == (n == 0, n < 2)
    assert all((q is None) == (n == 0) for q in quantiles)


def test_a_row_has_every_column_and_null_values_are_left_out(tmp_path: Path) -> None:
    folder = invent_slide(tmp_path, "s 1", Invented(n=700))
    row = summarise_slide(folder, read_record(folder / "run.json"))
    assert set(row) == set(SUMMARY_SCHEMA.names)
    table = pq.read_table(folder / "nuclei.parquet").to_pandas()
    for name in MEASUREMENTS:
        assert row[f"{name}_count"] == table[name].notna().sum()
        assert row[f"{name}_mean"] == pytest.approx(table[name].astype(float).mean())
        assert row[f"{name}_q50"] == pytest.approx(table[name].astype(float).median())
    assert row["neighbour_distance_um_count"] == 699
    assert row["nuclei_per_mm2"] == 700 / TISSUE_MM2
    assert row["is_outlier_share"] == pytest.approx(table["is_outlier"].mean())


def test_a_slide_without_nuclei_has_a_row(tmp_path: Path) -> None:
    folder = invent_slide(tmp_path, "empty", Invented(n=0), tissue_mm2=0.0)
    row = summarise_slide(folder, read_record(folder / "run.json"))
    assert (row["nuclei"], row["nuclei_per_mm2"], row["area_um2_mean"], row["clark_evans"]) == (0, None, None, None)


def test_columns_are_read_over_row_groups(tmp_path: Path) -> None:
    folder = invent_slide(tmp_path, "s", Invented(n=650))
    with pq.ParquetFile(folder / "nuclei.parquet") as file:
        assert file.num_row_groups == 3
        assert len(read_column(file, "area_um2")) == 650


def test_a_square_lattice_is_regular_and_random_points_are_not() -> None:
    # Clark & Evans 1954: nearest neighbour 1 / sqrt(density) on a square lattice, 0.5 / sqrt(density) at random
    step_um, n = 10.0, 10_000
    tissue_mm2 = n * step_um**2 / 1e6
    assert clark_evans(step_um, n, tissue_mm2) == pytest.approx(2.0)
    assert clark_evans(0.5 * step_um, n, tissue_mm2) == pytest.approx(1.0)
    assert clark_evans(None, n, tissue_mm2) is None
    assert clark_evans(5.0, 1, tissue_mm2) is None
    assert not math.isnan(clark_evans(5.0, 2, 1.0) or 0)
