"""Effects between groups: the patient is the unit; estimates against scipy and against truth by simulation."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from wsipipe.effects import Effect, compare_groups, method_words, patient_values, summarise_groups
from wsipipe.metadata import Metadata

M = ("m",)


def study(values: dict[str, tuple[str, str, float | None]], patient: str | None = "patient") -> tuple[dict, Metadata]:
    """Return slides and metadata from slide -> (patient, group, value)."""
    rows = {slide: {"patient": p, "group": g} for slide, (p, g, _) in values.items()}
    slides = {slide: {"m": value} for slide, (_, _, value) in values.items()}
    return slides, Metadata(Path("m.csv"), ("patient", "group"), rows, patient, ("group",))


def two_groups(a: list[float], b: list[float]) -> Effect:
    values = {f"a{i}": (f"pa{i}", "a", v) for i, v in enumerate(a)}
    values |= {f"b{i}": (f"pb{i}", "b", v) for i, v in enumerate(b)}
    (effect,) = compare_groups(*study(values), M)
    return effect


A, B = [4.1, 5.0, 5.2, 6.3, 4.8], [6.0, 7.4, 6.6, 8.1, 7.7, 6.9]


def test_difference_is_welchs() -> None:
    effect = two_groups(A, B)
    expected = stats.ttest_ind(B, A, equal_var=False)
    low, high = expected.confidence_interval(0.95)
    assert effect.difference.value == pytest.approx(np.mean(B) - np.mean(A))
    assert (effect.difference.low, effect.difference.high) == pytest.approx((low, high))
    assert effect.p_value == pytest.approx(expected.pvalue)
    assert (effect.design, effect.patients_a, effect.patients_b, effect.left_out) == ("independent", 5, 6, 0)


def test_hedges_g_has_the_exact_correction_and_an_interval_from_the_noncentral_t() -> None:
    effect = two_groups(A, B)
    n = len(A) + len(B) - 2
    pooled = math.sqrt((4 * np.var(A, ddof=1) + 5 * np.var(B, ddof=1)) / n)
    d = (np.mean(B) - np.mean(A)) / pooled
    assert effect.hedges_g is not None
    # approximation of the correction by Hedges (1981), right to 0.1 % here
    assert effect.hedges_g.value == pytest.approx(d * (1 - 3 / (4 * n - 1)), rel=2e-3)
    root = math.sqrt(len(A) * len(B) / (len(A) + len(B)))
    correction = effect.hedges_g.value / d
    for bound, share in ((effect.hedges_g.low, 0.975), (effect.hedges_g.high, 0.025)):
        assert stats.nct.cdf(d * root, n, bound / correction * root) == pytest.approx(share, abs=1e-6)


def test_ratio_is_of_geometric_means() -> None:
    effect = two_groups(A, B)
    assert effect.ratio is not None
    assert effect.ratio.value == pytest.approx(stats.gmean(B) / stats.gmean(A))
    assert two_groups([*A, -1], B).ratio is None


def test_many_slides_of_a_patient_count_once() -> None:
    once = {f"a{i}": (f"pa{i}", "a", v) for i, v in enumerate(A)} | {
        f"b{i}": (f"pb{i}", "b", v) for i, v in enumerate(B)
    }
    often = {f"{slide}-{k}": row for slide, row in once.items() for k in range(20)}
    (one,), (many,) = compare_groups(*study(once), M), compare_groups(*study(often), M)
    assert (many.difference.low, many.difference.high) == pytest.approx((one.difference.low, one.difference.high))
    assert many.patients_a == 5
    summary = summarise_groups(*study(often), M)[0]
    assert (summary.patients, summary.slides) == (5, 100)


def test_without_patients_each_slide_stands_for_itself_and_the_words_say_so() -> None:
    values = {f"s{i}": ("", "ab"[i % 2], float(i)) for i in range(8)}
    slides, metadata = study(values, patient=None)
    assert sorted(patient_values(slides, metadata, "group", "m")) == ["a", "b"]
    effects = compare_groups(slides, metadata, M)
    assert effects[0].patients_a == 4
    assert "each slide counts as a patient" in method_words(metadata, effects)[0]


def test_patients_in_both_groups_are_compared_within_themselves() -> None:
    before, after = [5.0, 9.0, 2.0, 7.0], [5.5, 9.4, 2.7, 7.4]
    values = {f"a{i}": (f"p{i}", "a", v) for i, v in enumerate(before)}
    values |= {f"b{i}": (f"p{i}", "b", v) for i, v in enumerate(after)} | {"b9": ("p9", "b", 50.0)}
    (effect,) = compare_groups(*study(values), M)
    expected = stats.ttest_rel(after, before)
    low, high = expected.confidence_interval(0.95)
    assert (effect.design, effect.patients_a, effect.left_out) == ("paired", 4, 1)
    assert (effect.difference.low, effect.difference.high) == pytest.approx((low, high))
    assert effect.p_value == pytest.approx(expected.pvalue)
    assert "paired" in " ".join(method_words(study(values)[1], [effect]))


def test_groups_of_one_patient_are_not_compared_but_summarised() -> None:
    values = {"s1": ("p1", "a", 1.0), "s2": ("p2", "b", 2.0), "s3": ("p3", "b", 3.0), "s4": ("p4", "", 9.0)}
    assert compare_groups(*study(values), M) == []
    groups = {s.group: s for s in summarise_groups(*study(values), M)}
    assert (groups["a"].mean, groups["a"].sd, groups["b"].mean) == (1.0, None, 2.5)


def test_values_that_do_not_vary_have_no_g_and_no_p() -> None:
    effect = two_groups([1.0, 1.0, 1.0], [1.0, 1.0])
    assert (effect.hedges_g, effect.p_value, effect.p_adjusted) == (None, None, None)
    assert effect.difference.covers(0)


def test_unknown_values_are_left_out() -> None:
    values = {f"s{i}": (f"p{i}", "ab"[i % 2], None if i < 2 else float(i)) for i in range(8)}
    (effect,) = compare_groups(*study(values), M)
    assert (effect.patients_a, effect.patients_b) == (3, 3)


def test_adjusted_p_is_benjamini_hochberg() -> None:
    rng = np.random.default_rng(0)
    names = tuple("uvwxyz")
    slides = {f"s{i}": dict(zip(names, rng.normal(i % 2, 1.0, 6), strict=True)) for i in range(20)}
    rows = {slide: {"patient": slide, "group": "ab"[int(slide[1:]) % 2]} for slide in slides}
    metadata = Metadata(Path("m.csv"), ("patient", "group"), rows, "patient", ("group",))
    effects = compare_groups(slides, metadata, names)
    expected = stats.false_discovery_control([effect.p_value for effect in effects])
    assert [effect.p_adjusted for effect in effects] == pytest.approx(expected)


def test_intervals_cover_the_truth_as_often_as_they_claim() -> None:
    rng = np.random.default_rng(3)
    hits = []
    for _ in range(150):
        effect = two_groups(rng.normal(10, 1, 4).tolist(), rng.normal(11, 1, 5).tolist())
        assert effect.hedges_g is not None
        hits.append((effect.difference.covers(1.0), effect.hedges_g.covers(1.0)))
    assert (np.mean(hits, axis=0) > 0.90).all()  # 95 % expected; 150 trials leave 3.6 % to chance at two sd
