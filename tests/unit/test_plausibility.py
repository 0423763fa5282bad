"""Flags of a slide: odd counts and sizes, in plain words."""

import math

import pytest

from wsipipe.plausibility import plausibility_flags


@pytest.mark.parametrize(
    ("nuclei", "tissue", "diameter", "says"),
    [
        (0, 0.0, math.nan, "no tissue was found"),
        (0, 3.0, math.nan, "no nucleus was found"),
        (50, 3.0, 2.0, "median nucleus diameter is 2.0 um"),
        (50, 3.0, 20.0, "check the mpp"),
    ],
)
def test_what_is_odd_is_said(nuclei: int, tissue: float, diameter: float, says: str) -> None:
    (flag,) = plausibility_flags(nuclei=nuclei, tissue_mm2=tissue, median_diameter_um=diameter)
    assert says in flag


@pytest.mark.parametrize("diameter", [4.0, 7.5, 15.0])
def test_usual_slides_have_no_flags(diameter: float) -> None:
    assert plausibility_flags(nuclei=1000, tissue_mm2=3.0, median_diameter_um=diameter) == ()
