"""Do groups of patients differ: summaries and effect sizes with intervals, the patient being the unit.

A million nuclei of one patient are one observation of that patient. Each slide gives one value for a measurement, a
patient's value is the mean over the patient's slides in a group, and only these values are compared.

- Difference of means with a 95 % interval: Welch's t (Welch 1947), or the paired t for patients with both groups.
- Hedges' g: the difference in pooled standard deviations, with Hedges' exact correction for small numbers (Hedges
  1981), and its interval from the noncentral t distribution (Steiger & Fouladi 1997). Paired: the mean difference in
  standard deviations of the differences.
- Ratio: of geometric means, from the same t interval on logarithms; only where all values are positive.
- p from the same t test; p_adjusted over all measurements of one comparison (Benjamini & Hochberg 1995).
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean, median, stdev
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wsipipe.metadata import Metadata

LEVEL = 0.95
MIN_PATIENTS = 2  # per group, to compare
_TINY = 1e-12  # a spread below this share of the mean is rounding

Design = Literal["independent", "paired"]
Values = NDArray[np.float64]
SlideValues = Mapping[str, Mapping[str, float | None]]  # slide -> measurement -> value


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float

    def covers(self, truth: float) -> bool:
        """Whether truth lies inside."""
        return self.low <= truth <= self.high


@dataclass(frozen=True, slots=True)
class GroupSummary:
    """One measurement in one group; mean to high are over patients' values."""

    column: str
    group: str
    measurement: str
    patients: int
    slides: int
    mean: float
    sd: float | None
    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Effect:
    """How group b differs from group a in one measurement.

    Attributes:
        column: the metadata column.
        group_a, group_b: its two values.
        measurement: column of the cohort's table.
        design: independent groups of patients, or paired: each patient in both.
        patients_a, patients_b: numbers compared; equal when paired.
        left_out: patients who belong to both groups and were left out of an independent comparison, or to only one and
            were left out of a paired one.
        mean_a, mean_b: over patients.
        difference: b - a, in the measurement's unit.
        hedges_g: the same in standard deviations; None where nothing varies.
        ratio: b / a; None unless all values are positive.
        p_value, p_adjusted: None where nothing varies.
    """

    column: str
    group_a: str
    group_b: str
    measurement: str
    design: Design
    patients_a: int
    patients_b: int
    left_out: int
    mean_a: float
    mean_b: float
    difference: Interval
    hedges_g: Interval | None
    ratio: Interval | None
    p_value: float | None
    p_adjusted: float | None = None


def patient_values(
    slides: SlideValues, metadata: Metadata, column: str, measurement: str
) -> dict[str, dict[str, list[float]]]:
    """Return group -> patient -> values of the patient's slides; slides without group or value are left out."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for slide, values in slides.items():
        group, value = metadata.value(slide, column), values.get(measurement)
        if group and value is not None and math.isfinite(value):
            found[group][metadata.patient_of(slide)].append(value)
    return {group: dict(found[group]) for group in sorted(found)}


def summarise_groups(slides: SlideValues, metadata: Metadata, measurements: Sequence[str]) -> list[GroupSummary]:
    """Summarise every measurement in every group of every group column."""
    return [
        _summary(column, group, measurement, patients)
        for column in metadata.groups
        for measurement in measurements
        for group, patients in patient_values(slides, metadata, column, measurement).items()
    ]


def _summary(column: str, group: str, measurement: str, patients: dict[str, list[float]]) -> GroupSummary:
    means = [fmean(values) for values in patients.values()]
    return GroupSummary(
        column,
        group,
        measurement,
        patients=len(means),
        slides=sum(len(values) for values in patients.values()),
        mean=fmean(means),
        sd=stdev(means) if len(means) > 1 else None,
        median=median(means),
        low=min(means),
        high=max(means),
    )


def compare_groups(slides: SlideValues, metadata: Metadata, measurements: Sequence[str]) -> list[Effect]:
    """Compare every two groups of every group column; pairs with fewer than MIN_PATIENTS patients are left out."""
    found: list[Effect] = []
    for column in metadata.groups:
        groups = sorted({metadata.value(slide, column) for slide in slides} - {""})
        for a, b in combinations(groups, 2):
            effects = []
            for measurement in measurements:
                by_group = patient_values(slides, metadata, column, measurement)
                effect = _compare((column, a, b, measurement), by_group.get(a, {}), by_group.get(b, {}))
                effects += [effect] if effect else []
            found += _adjusted(effects)
    return found


def _compare(names: tuple[str, str, str, str], a: dict[str, list[float]], b: dict[str, list[float]]) -> Effect | None:
    both = a.keys() & b.keys()
    everyone = len(a.keys() | b.keys())
    paired = len(both) >= MIN_PATIENTS and 2 * len(both) >= everyone
    chosen_a, chosen_b = (sorted(both if paired else group.keys() - both) for group in (a, b))
    if min(len(chosen_a), len(chosen_b)) < MIN_PATIENTS:
        return None
    values_a = np.array([fmean(a[patient]) for patient in chosen_a])
    values_b = np.array([fmean(b[patient]) for patient in chosen_b])
    estimate = _paired if paired else _independent
    difference, g, p = estimate(values_a, values_b)
    ratio = None
    if min(values_a.min(), values_b.min()) > 0:
        logs, _, _ = estimate(np.log(values_a), np.log(values_b))
        ratio = Interval(math.exp(logs.value), math.exp(logs.low), math.exp(logs.high))
    return Effect(
        *names,
        design="paired" if paired else "independent",
        patients_a=len(values_a),
        patients_b=len(values_b),
        left_out=everyone - (len(both) if paired else len(chosen_a) + len(chosen_b)),
        mean_a=float(values_a.mean()),
        mean_b=float(values_b.mean()),
        difference=difference,
        hedges_g=g,
        ratio=ratio,
        p_value=p,
    )


def _independent(a: Values, b: Values) -> tuple[Interval, Interval | None, float | None]:
    difference, n_a, n_b = float(b.mean() - a.mean()), len(a), len(b)
    share_a, share_b = float(a.var(ddof=1)) / n_a, float(b.var(ddof=1)) / n_b
    error = math.sqrt(share_a + share_b)
    if error <= _TINY * max(abs(float(a.mean())), abs(float(b.mean()))):
        return Interval(difference, difference, difference), None, None
    freedom = (share_a + share_b) ** 2 / (share_a**2 / (n_a - 1) + share_b**2 / (n_b - 1))
    interval, p = _t_interval(difference, error, freedom)
    pooled = math.sqrt(((n_a - 1) * share_a * n_a + (n_b - 1) * share_b * n_b) / (n_a + n_b - 2))
    g = _standardised(difference / pooled, n_a + n_b - 2, math.sqrt(n_a * n_b / (n_a + n_b)))
    return interval, g, p


def _paired(a: Values, b: Values) -> tuple[Interval, Interval | None, float | None]:
    change, n = b - a, len(a)
    difference, spread = float(change.mean()), float(change.std(ddof=1))
    if spread <= _TINY * max(abs(float(a.mean())), abs(float(b.mean()))):
        return Interval(difference, difference, difference), None, None
    interval, p = _t_interval(difference, spread / math.sqrt(n), n - 1)
    return interval, _standardised(difference / spread, n - 1, math.sqrt(n)), p


def _t_interval(value: float, error: float, freedom: float) -> tuple[Interval, float]:
    from scipy.stats import t

    reach = float(t.ppf(0.5 + LEVEL / 2, freedom)) * error
    return Interval(value, value - reach, value + reach), float(2 * t.sf(abs(value / error), freedom))


def _standardised(d: float, freedom: int, root_n: float) -> Interval:
    """Return Hedges' g of a standardised difference d whose t statistic is d * root_n."""
    if freedom > 1:
        log = math.lgamma(freedom / 2) - math.lgamma((freedom - 1) / 2) - 0.5 * math.log(freedom / 2)
    else:
        log = 0.0  # the correction is undefined for one degree of freedom
    correction = math.exp(log) / root_n
    low, high = (_noncentrality(d * root_n, freedom, tail) for tail in (0.5 + LEVEL / 2, 0.5 - LEVEL / 2))
    return Interval(math.exp(log) * d, correction * low, correction * high)


def _noncentrality(t_value: float, freedom: int, share: float) -> float:
    """Return the noncentrality at which a share of t values lies below t_value."""
    from scipy.optimize import brentq
    from scipy.stats import nct

    def excess(delta: float) -> float:
        return float(nct.cdf(t_value, freedom, delta)) - share

    low, high, step = t_value, t_value, 2.0 + abs(t_value) / 4
    while excess(low) < 0:
        low -= step
    while excess(high) > 0:
        high += step
    return float(brentq(excess, low, high, xtol=1e-9))


def _adjusted(effects: list[Effect]) -> list[Effect]:
    """Add p_adjusted: the smallest false discovery rate at which a measurement still counts as different."""
    tested = sorted((e.p_value, i) for i, e in enumerate(effects) if e.p_value is not None)
    found, smallest = list(effects), 1.0
    for rank in range(len(tested), 0, -1):
        p, i = tested[rank - 1]
        smallest = min(smallest, p * len(tested) / rank)
        found[i] = replace(effects[i], p_adjusted=smallest)
    return found


def method_words(metadata: Metadata, effects: Sequence[Effect]) -> list[str]:
    """Say in plain words how the groups were compared."""
    unit = (
        f"The unit is the patient (column {metadata.patient!r}): a patient's value is the mean over the patient's "
        "slides in a group, so that nuclei or slides of one patient are never counted as independent."
        if metadata.patient
        else "The metadata name no patient, so each slide counts as a patient of its own. If patients have several "
        "slides, the intervals below are too narrow: add a column `patient`."
    )
    words = [
        unit,
        "Intervals are 95 %: Welch's t for the difference of means, the noncentral t for Hedges' g (the difference in "
        "pooled standard deviations, corrected for small numbers), and t on logarithms for the ratio.",
    ]
    if any(effect.design == "paired" for effect in effects):
        words.append(
            "Where at least half of the patients have slides in both groups, the comparison is paired: differences "
            "within patients, paired t, g in standard deviations of the differences."
        )
    if any(effect.left_out for effect in effects):
        words.append("Patients who do not fit the design of a comparison are left out of it (column left_out).")
    words.append(
        "With many measurements, about one interval in twenty misses zero by chance; p_adjusted (Benjamini-Hochberg "
        "over the measurements of a comparison) allows for that."
    )
    return words
