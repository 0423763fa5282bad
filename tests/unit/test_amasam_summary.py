"""Means, intervals and paired tests over images; the paper's numbers."""

from dataclasses import replace

import numpy as np
import pytest

from amasam.metrics import ImageMetrics, score_image
from amasam.papernumbers import COLUMNS, PAPER_ROWS
from amasam.summary import METRICS, paired_test, summarise, values_of

IMAGE = ImageMetrics(0.8, 0.7, 0.5, 1.0, 5.0, 3.0, 7.0, 0.6, 0.55, 0.7, 0.8, 0.56, 100.0, 9, 8)
BLANK = replace(IMAGE, hd=np.nan, hd95=np.nan, hd_1024=np.nan, aji=np.nan, aji_plus=np.nan, dq=np.nan)


def test_means_are_over_images_and_the_interval_holds_them() -> None:
    summary = summarise([IMAGE, replace(IMAGE, dsc=0.6), replace(IMAGE, dsc=0.7)])["dsc"]
    assert summary.mean == pytest.approx(0.7)
    assert summary.sd == pytest.approx(0.1)
    assert 0.599 < summary.low <= summary.mean <= summary.high < 0.801
    assert summarise([IMAGE] * 5)["dsc"].low == pytest.approx(0.8)


def test_f1_is_the_harmonic_mean_of_mean_precision_and_mean_recall() -> None:
    images = [replace(IMAGE, precision=0.5, recall=1.0), replace(IMAGE, precision=1.0, recall=0.5)]
    assert summarise(images)["f1"].mean == pytest.approx(0.75)  # each image's own is 0.667
    assert summarise([replace(IMAGE, precision=0.0, recall=0.0)])["f1"].mean == 0


def test_undefined_images_are_left_out_and_counted() -> None:
    found = summarise([IMAGE, BLANK])
    assert (found["hd"].mean, found["hd"].n, found["hd"].excluded) == (5.0, 1, 1)
    assert (found["aji"].n, found["dsc"].n) == (1, 2)


def test_undefined_images_can_count_as_right_or_as_far_as_the_diagonal() -> None:
    found = summarise([BLANK], empty="value")
    assert (found["hd"].mean, found["aji"].mean, found["hd"].excluded) == (100.0, 1.0, 0)
    assert found["hd_1024"].mean == pytest.approx(1024 * 2**0.5)


def test_no_images_give_undefined_summaries_of_all_metrics() -> None:
    found = summarise([])
    assert tuple(found) == METRICS
    assert all(np.isnan(item.mean) and item.n == 0 for item in found.values())


def test_the_same_scores_give_the_same_interval() -> None:
    images = [replace(IMAGE, dsc=value) for value in (0.1, 0.5, 0.9, 0.3)]
    assert summarise(images) == summarise(images)


def test_paired_test_sees_a_steady_difference_and_no_difference() -> None:
    rng = np.random.default_rng(0)
    one = rng.random(20)
    assert paired_test(one, one + 0.01) < 0.001
    assert paired_test(one, one) == 1.0
    assert paired_test(one, one + rng.normal(0, 0.1, 20)) > 0.01
    assert np.isnan(paired_test(np.array([np.nan]), np.array([1.0])))


def test_paired_test_of_six_equal_signs_is_that_of_the_table() -> None:
    """Six pairs, all differences positive: two-sided exact p = 2 / 2**6."""
    assert paired_test(np.arange(1.0, 7.0), np.zeros(6)) == pytest.approx(0.03125)


def test_per_image_f1_is_dsc() -> None:
    truth = np.zeros((8, 8), np.int32)
    truth[2:5, 2:6] = 1
    image = score_image(truth, np.roll(truth, 1, 0))
    assert values_of([image], "f1") == pytest.approx(
        2 * image.precision * image.recall / (image.precision + image.recall)
    )


def test_the_papers_table_is_whole() -> None:
    assert sum(row.table == 1 for row in PAPER_ROWS) == 40
    assert all(len(row.values) == len(COLUMNS) for row in PAPER_ROWS)
    first = {
        (row.data, row.method): dict(zip(COLUMNS, row.values, strict=True)) for row in PAPER_ROWS if row.table == 1
    }
    best = first["MoNuSeg", "AMA-SAM +"]
    assert (best["dsc"], best["aji"], best["pq"]) == (85.12, 52.24, 52.36)
    assert first["TNBC", "Unet++"]["aji"] is None
    ablation = next(row for row in PAPER_ROWS if row.method == "auxiliary, CGRL")
    assert ablation.values[:4] == tuple(best.values())[:4]
