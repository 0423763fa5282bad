"""Recipes: TOML files read into frozen dataclasses; unknown keys and wrong types are errors.

A recipe may start from another one (`extends = "tiny-ama.toml"`, a path beside it) and state only what differs.
"""

import dataclasses
import tomllib
import types
import typing
from pathlib import Path
from typing import Any, Literal, TypeVar

from amasam.trainconfig import TrainConfig
from wsipipe.errors import UsageError

_Config = TypeVar("_Config")


def load_recipe(path: Path) -> TrainConfig:
    """Read a recipe.

    Raises:
        UsageError: no such file, broken TOML, an unknown key, or a value of the wrong type or out of range.
    """
    return config_from_table(TrainConfig, _read_extended(path, ()), str(path))


def config_from_table(kind: type[_Config], table: dict[str, Any], where: str) -> _Config:
    """Build a (nested) frozen dataclass from a table; unknown keys and wrong types are errors.

    Args:
        kind: the dataclass; its fields are scalars, Literals, tuples of them, dicts or dataclasses.
        table: as TOML gives it.
        where: file, and table within it, for messages.
    """
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(table) - set(hints))
    if unknown:
        raise UsageError(f"unknown key {unknown[0]!r}; known are {', '.join(hints)}: {where}")
    values = {key: _value(hints[key], value, f"{where}: {key}") for key, value in table.items()}
    try:
        return kind(**values)
    except ValueError as error:
        raise UsageError(f"{error}: {where}") from None


def _value(hint: Any, value: Any, where: str) -> Any:
    """Check one value against its type, turning lists into tuples and tables into dataclasses."""
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return config_from_table(typing.cast("type[Any]", hint), value, where)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value not in args or type(value) not in {type(arg) for arg in args}:
            raise UsageError(f"must be one of {', '.join(map(repr, args))}, got {value!r}: {where}")
        return value
    if origin in (typing.Union, types.UnionType):
        return _first_fit(args, value, where)
    if origin is tuple and isinstance(value, list | tuple):
        kinds = [args[0]] * len(value) if len(args) == 2 and args[1] is Ellipsis else list(args)
        if len(kinds) != len(value):
            raise UsageError(f"must hold {len(kinds)} values, got {len(value)}: {where}")
        return tuple(_value(kind, item, where) for kind, item in zip(kinds, value, strict=True))
    plain = origin or hint
    if plain is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if plain is not Any and (not isinstance(value, plain) or (isinstance(value, bool) and plain is not bool)):
        raise UsageError(f"must be {getattr(plain, '__name__', plain)}, got {value!r}: {where}")
    return value


def _first_fit(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    for kind in kinds:
        if kind is type(None):
            if value is None:
                return None
            continue
        try:
            return _value(kind, value, where)
        except UsageError:
            continue
    raise UsageError(f"value {value!r} fits none of {kinds}: {where}")


def _read_extended(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    path = path.resolve()
    if path in seen:
        raise UsageError(f"recipe extends itself: {path}")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read recipe, {error.strerror}: {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"recipe is not TOML, {error}: {path}") from None
    base = table.pop("extends", None)
    return table if base is None else _merge(_read_extended(path.parent / str(base), (*seen, path)), table)


def _merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _merge(base[key], value) if both else value
    return merged
