"""Frozen JSON files: compare with them, or rewrite them."""

import json
import math


def compare_golden(path, value, *, update, tolerance):
    """Compare a value of JSON types with a frozen file, numbers within a relative and equal absolute tolerance."""
    if update:
        path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert_close(value, json.loads(path.read_text(encoding="utf-8")), path.name, tolerance)


def assert_close(got, expected, where, tolerance):
    if isinstance(expected, dict):
        assert got.keys() == expected.keys(), where
        for key, value in expected.items():
            assert_close(got[key], value, f"{where}/{key}", tolerance)
    elif isinstance(expected, list):
        assert len(got) == len(expected), where
        for i, (one, other) in enumerate(zip(got, expected, strict=True)):
            assert_close(one, other, f"{where}[{i}]", tolerance)
    elif isinstance(expected, float):
        assert math.isclose(got, expected, rel_tol=tolerance, abs_tol=tolerance), f"{where}: {got} != {expected}"
    else:
        assert got == expected, where
