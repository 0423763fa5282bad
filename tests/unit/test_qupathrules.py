"""Each rule of QuPath catches what it is there for."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from wsipipe.qupathrules import broken_rules

GOOD: dict[str, Any] = {
    "type": "Feature",
    "id": "12345678-1234-5678-9234-123456789abc",
    "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [0, 1.25], [1, 1], [0, 0]]]},
    "properties": {
        "objectType": "detection",
        "classification": {"name": "Nucleus", "color": [200, 0, 0]},
        "measurements": {"Area µm^2": 12.5, "Neighbours": 3},
    },
}


def test_a_feature_of_the_specification_breaks_no_rule() -> None:
    assert broken_rules(GOOD) == []


@pytest.mark.parametrize("feature", [None, [], "x", {}, {"type": "FeatureCollection"}])
def test_what_is_no_feature_is_said_to_be_none(feature: object) -> None:
    assert broken_rules(feature) == ["is not a Feature"]


CASES: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda f: f.pop("id"), "no id"),
    (lambda f: f.update(id=None), "no UUID"),
    (lambda f: f.update(id="1-2-3-4-5"), "no UUID"),
    (lambda f: f.update(nucleusGeometry=None), "members"),
    (lambda f: f.update(geometry=None), "no geometry"),
    (lambda f: f["geometry"].update(type="MultiPolygon"), "no geometry"),
    (lambda f: f["geometry"].update(plane={"z": 0}), "no geometry"),
    (lambda f: f["geometry"].update(coordinates=[]), "without rings"),
    (lambda f: f["geometry"]["coordinates"][0].append([2, 2]), "not closed"),
    (lambda f: f["geometry"].update(coordinates=[[[0, 0], [1, 1], [0, 0]]]), "fewer than 4"),
    (lambda f: f["geometry"]["coordinates"][0].__setitem__(1, [1, None]), "two finite numbers"),
    (lambda f: f["geometry"]["coordinates"][0].__setitem__(1, [1, float("nan")]), "two finite numbers"),
    (lambda f: f["geometry"]["coordinates"][0].__setitem__(1, [1, 2, 3]), "two finite numbers"),
    (lambda f: f["geometry"]["coordinates"][0].__setitem__(1, [1, 0.125]), "more than 2 decimals"),
    (lambda f: f.update(properties=None), "no properties"),
    (lambda f: f["properties"].update(name="x"), "properties"),
    (lambda f: f["properties"].update(objectType="Detection"), "objectType"),
    (lambda f: f["properties"]["classification"].pop("color"), "without name or colour"),
    (lambda f: f["properties"]["classification"].update(name=" "), "blank"),
    (lambda f: f["properties"]["classification"].update(color=[1, 2]), "three whole numbers"),
    (lambda f: f["properties"]["classification"].update(color=[1, 2, 256]), "three whole numbers"),
    (lambda f: f["properties"].update(measurements=[]), "no measurements"),
    (lambda f: f["properties"]["measurements"].update(Solidity=None), "not a finite number"),
    (lambda f: f["properties"]["measurements"].update(Solidity=True), "not a finite number"),
    (lambda f: f["properties"]["measurements"].update({"Length \u03bcm": 1}), "Greek mu"),
]


@pytest.mark.parametrize(("spoil", "message"), CASES)
def test_a_broken_rule_is_named(spoil: Callable[[dict[str, Any]], object], message: str) -> None:
    feature = copy.deepcopy(GOOD)
    spoil(feature)
    assert any(message in line for line in broken_rules(feature))
