from pathlib import Path

import pytest

from wsipipe.errors import ScaleError, UsageError
from wsipipe.scale import Mpp, check_scale, objective_power, override_flags, slide_mpp

PATH = Path("a b/slide.svs")


def properties(x="0.25", y=None, power=None):
    named = {"openslide.mpp-x": x, "openslide.mpp-y": x if y is None else y, "openslide.objective-power": power}
    return {name: value for name, value in named.items() if value is not None}


def test_the_slides_own_mpp_is_used_when_nothing_is_passed():
    assert slide_mpp(properties("0.25", "0.2501", "40"), None, PATH) == Mpp(0.25, 0.2501, "slide")


@pytest.mark.parametrize(
    "doubtful", [properties(), properties("0.25", "0.5"), properties("352"), properties("1", power="40"), {}]
)
def test_what_the_user_passes_wins_over_everything(doubtful):
    found = slide_mpp(doubtful, 0.3, PATH)
    assert (found.x, found.y, found.source) == (0.3, 0.3, "option")


@pytest.mark.parametrize(("passed", "stated", "flagged"), [(0.25, "0.5", 1), (0.5, "0.499", 0), (0.25, "352", 0)])
def test_a_passed_mpp_far_from_what_a_slide_plausibly_states_is_flagged(passed, stated, flagged):
    flags = override_flags(slide_mpp(properties(stated), passed, PATH))
    assert len(flags) == flagged
    assert all("mpp 0.25 was passed, the slide says 0.5" in flag for flag in flags)


@pytest.mark.parametrize("missing", [{}, properties("0"), properties("nan"), properties("none"), properties("-1")])
def test_a_missing_mpp_is_refused_with_what_to_pass(missing):
    with pytest.raises(ScaleError, match=r"--mpp 0\.25 for a 40x scan: a b/slide\.svs$"):
        slide_mpp(missing, None, PATH)


def test_only_one_direction_is_not_enough():
    with pytest.raises(ScaleError, match="does not tell"):
        slide_mpp({"openslide.mpp-x": "0.25"}, None, PATH)


@pytest.mark.parametrize(
    ("doubtful", "numbers"),
    [
        (properties("0.25", "0.2526"), r"0\.25 and 0\.2526"),
        (properties("0.049"), r"0\.049"),
        (properties("2.01"), r"2\.01"),
        (properties("0.5", power="40"), r"0\.5 contradicts the objective power 40x \(expected about 0\.25"),
        (properties("0.17", power="40"), r"0\.17 contradicts"),
    ],
)
def test_an_implausible_mpp_is_refused_with_the_numbers(doubtful, numbers):
    with pytest.raises(ScaleError, match=numbers) as caught:
        slide_mpp(doubtful, None, PATH)
    assert "\n" not in str(caught.value)
    assert "--mpp" in str(caught.value)


@pytest.mark.parametrize(
    "fine", [properties("0.25", "0.2525"), properties("0.05"), properties("2.0"), properties("0.32", power="40")]
)
def test_values_at_the_limits_pass(fine):
    assert slide_mpp(fine, None, PATH).source == "slide"


def test_an_objective_power_that_makes_no_sense_is_ignored():
    assert slide_mpp(properties(power="0"), None, PATH).x == 0.25
    assert objective_power({"openslide.objective-power": "unknown"}) is None


@pytest.mark.parametrize("override", [0.0, -0.25, float("nan"), float("inf")])
def test_an_mpp_that_is_no_length_is_a_usage_error(override):
    with pytest.raises(UsageError, match="positive"):
        slide_mpp(properties(), override, PATH)


def test_a_slide_much_coarser_than_the_model_is_refused_unless_allowed():
    check_scale((0.625, 0.625), 0.25)
    check_scale((0.1, 0.1), 0.25)
    check_scale((1.0, 1.0), 0.25, allow_upsampling=True)
    with pytest.raises(ScaleError, match=r"4\.0 times coarser .* --allow-upsampling: a b/slide.svs"):
        check_scale((1.0, 1.0), 0.25, path=PATH)
