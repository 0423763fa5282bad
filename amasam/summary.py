"""Scores of images put together: means with bootstrap intervals, and paired tests between two models."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wilcoxon

from amasam.metrics import ImageMetrics

METRICS = ("dsc", "miou", "f1", "hd", "hd95", "hd_1024", "aji", "aji_plus", "dq", "sq", "pq")
DISTANCES = ("hd", "hd95", "hd_1024")
INSTANCE_METRICS = ("aji", "aji_plus", "dq", "sq", "pq")

RESAMPLES = 2000
SEED = 0  # of the bootstrap: the same scores always give the same interval

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Summary:
    """One metric over images.

    Attributes:
        mean: unweighted over images; of f1, the harmonic mean of mean precision and mean recall.
        sd: over images, n - 1; NaN below two images.
        low, high: 95 % percentile bootstrap interval of the mean over images.
        n: images that count.
        excluded: images for which the metric is not defined.
    """

    mean: float
    sd: float
    low: float
    high: float
    n: int
    excluded: int


def summarise(images: Sequence[ImageMetrics], *, empty: str = "exclude") -> dict[str, Summary]:
    """Put the scores of images together.

    Args:
        images: any number, also none.
        empty: what an image counts whose metric is not defined: "exclude" leaves it out; "value" gives instance metrics
            without any instance on both sides 1, and distances with one side empty the image's diagonal.

    Returns:
        A summary of every name in METRICS.
    """
    if empty not in ("exclude", "value"):
        raise ValueError(f"empty must be exclude or value, got {empty!r}")
    found = {name: _summary(values_of(images, name, empty=empty), _mean) for name in METRICS if name != "f1"}
    found["f1"] = _summary(_precision_recall(images), _f1)
    return {name: found[name] for name in METRICS}


def values_of(images: Sequence[ImageMetrics], name: str, *, empty: str = "exclude") -> Values:
    """One metric per image, float64 (n,); per image, f1 is that image's own, equal to its DSC."""
    field = {"miou": "iou", "f1": "dsc"}.get(name, name)
    values = np.array([getattr(image, field) for image in images], np.float64)
    if empty == "value":
        stand_in = [image.diagonal if name in DISTANCES else 1.0 for image in images]
        if name == "hd_1024":
            stand_in = [float(np.hypot(1024, 1024)) for _ in images]
        values = np.where(np.isnan(values), stand_in, values)
    return values


def paired_test(one: Values, other: Values) -> float:
    """Two-sided paired Wilcoxon signed-rank test over images [C].

    Args:
        one: scores of images under one model; pairs with a NaN are left out.
        other: scores of the same images, in the same order, under another model.

    Returns:
        p; 1 where no pair differs, NaN without pairs.
    """
    if len(one) != len(other):
        raise ValueError(f"paired scores need the same images, got {len(one)} and {len(other)}")
    kept = ~(np.isnan(one) | np.isnan(other))
    if not kept.any():
        return float("nan")
    difference = one[kept] - other[kept]
    return float(wilcoxon(difference).pvalue) if difference.any() else 1.0


def _summary(rows: Values, statistic: Callable[[Values], Values]) -> Summary:
    """Summarise per-image rows (n, columns) or (n,) with a statistic over the second to last axis."""
    rows = rows[:, None] if rows.ndim == 1 else rows
    kept = rows[~np.isnan(rows).any(axis=1)]
    n = len(kept)
    if not n:
        return Summary(np.nan, np.nan, np.nan, np.nan, 0, len(rows))
    draws = np.random.default_rng(SEED).integers(n, size=(RESAMPLES, n))
    low, high = np.percentile(statistic(kept[draws]), (2.5, 97.5))
    each = statistic(kept[:, None])
    sd = float(np.std(each, ddof=1)) if n > 1 else float("nan")
    return Summary(float(statistic(kept)), sd, float(low), float(high), n, len(rows) - n)


def _mean(rows: Values) -> Values:
    return np.asarray(rows[..., 0].mean(axis=-1))


def _f1(rows: Values) -> Values:
    """Harmonic mean of mean precision and mean recall, UN-SAM's form (spec 8)."""
    precision, recall = rows[..., 0].mean(axis=-1), rows[..., 1].mean(axis=-1)
    total = precision + recall
    return np.asarray(np.where(total > 0, 2 * precision * recall / np.where(total > 0, total, 1), 0.0))


def _precision_recall(images: Sequence[ImageMetrics]) -> Values:
    return np.array([(image.precision, image.recall) for image in images], np.float64).reshape(-1, 2)
