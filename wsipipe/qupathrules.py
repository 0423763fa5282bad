"""What QuPath demands of a GeoJSON feature, and what it would take but our writer never does.

QuPath reads all or nothing: one feature that breaks a rule marked (fatal) loses the whole file. The other rules guard
against parts that QuPath drops or changes without a word. As of QuPath v0.5.1 and v0.7.0 (PathIO, GsonTools,
QuPathTypeAdapters, ROITypeAdapters).
"""

import math
import re
from collections.abc import Iterator
from itertools import chain, repeat
from typing import Any

FEATURE_KEYS = ["type", "id", "geometry", "properties"]
PROPERTY_KEYS = ["objectType", "classification", "measurements"]
GREEK_MU = "\u03bc"  # looks like the micro sign U+00B5, but makes another measurement
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def broken_rules(feature: Any) -> list[str]:
    """Return what is wrong with one parsed feature, besides the validity of its polygon; empty if nothing is.

    Args:
        feature: any JSON value; what a strict parser made of it.
    """
    if not isinstance(feature, dict) or feature.get("type") != "Feature":
        return ["is not a Feature"]
    return [*_identity(feature), *_geometry(feature.get("geometry")), *_properties(feature.get("properties"))]


def _identity(feature: dict[str, Any]) -> Iterator[str]:
    if list(feature) != FEATURE_KEYS:
        yield f"has members {list(feature)}, not {FEATURE_KEYS}"
    if "id" not in feature:
        yield "has no id, so that QuPath invents one"
    elif not isinstance(feature["id"], str) or not _UUID.fullmatch(feature["id"]):
        yield f"has the id {feature['id']!r}, which is no UUID in canonical form"


def _geometry(geometry: Any) -> Iterator[str]:
    if not isinstance(geometry, dict) or list(geometry) != ["type", "coordinates"] or geometry["type"] != "Polygon":
        yield "has no geometry of type Polygon (fatal)"
        return
    rings = geometry["coordinates"]
    if not isinstance(rings, list) or not rings or not all(isinstance(ring, list) for ring in rings):
        yield "has a polygon without rings (fatal)"
        return
    for ring in rings:
        yield from _ring(ring)


def _ring(ring: list[Any]) -> Iterator[str]:
    """Check one ring; sets and maps instead of loops, since this is done for every vertex of a slide."""
    numbers: list[Any] = list(chain.from_iterable(ring)) if set(map(type, ring)) <= {list} else [None]
    are_pairs = set(map(type, numbers)) <= {int, float} and set(map(len, ring)) <= {2}
    if not are_pairs or not math.isfinite(sum(numbers)):
        yield "has a position that is not two finite numbers (fatal)"
    elif len(ring) < 4:
        yield f"has a ring of {len(ring)} positions, fewer than 4"
    elif ring[0] != ring[-1]:
        yield "has a ring that is not closed (fatal)"
    elif list(map(round, numbers, repeat(2))) != numbers:
        yield "has a coordinate with more than 2 decimals, so that QuPath moves it"


def _properties(properties: Any) -> Iterator[str]:
    if not isinstance(properties, dict):
        yield "has no properties object (fatal)"
        return
    if list(properties) != PROPERTY_KEYS:
        yield f"has the properties {list(properties)}, not {PROPERTY_KEYS}"
    if properties.get("objectType") != "detection":
        yield f"has the objectType {properties.get('objectType')!r}, not 'detection'"
    yield from _classification(properties.get("classification"))
    yield from _measurements(properties.get("measurements"))


def _classification(value: Any) -> Iterator[str]:
    if not isinstance(value, dict) or list(value) not in (["name", "color"], ["names", "color"]):
        yield "has a classification without name or colour (fatal)"
        return
    names = value["names"] if "names" in value else [value["name"]]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name.strip() for name in names):
        yield "has a class with a blank name (fatal)"
    colour = value["color"]
    if not isinstance(colour, list) or len(colour) != 3 or not all(type(c) is int and 0 <= c <= 255 for c in colour):
        yield f"has the class colour {colour!r}, not three whole numbers 0..255 (fatal)"


def _measurements(values: Any) -> Iterator[str]:
    if not isinstance(values, dict):
        yield "has no measurements object"
        return
    for name, value in values.items():
        if not _is_number(value):
            yield f"has the measurement {name} = {value!r}, not a finite number"
        if GREEK_MU in name:
            yield f"has the measurement {name} with a Greek mu instead of the micro sign"


def _is_number(value: Any) -> bool:
    return type(value) is int or (type(value) is float and math.isfinite(value))
