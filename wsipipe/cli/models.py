"""`wsipipe models`: what can be named with --model."""

import dataclasses
from typing import Any

import orjson
import typer

from wsipipe.cli.arguments import Json
from wsipipe.options import DEFAULT_MODEL


def models(json: Json = False) -> None:
    """List the models that --model accepts: what they are, their mpp, licence and where their weights are.

    Example: wsipipe models
    """
    from wsipipe.segmenter import list_segmenters

    rows: list[dict[str, Any]] = []
    for entry in list_segmenters():
        row = {field.name: getattr(entry, field.name) for field in dataclasses.fields(entry)}
        row = {key: value for key, value in row.items() if not callable(value)}
        rows.append({**row, "weights": entry.weights(), "default": entry.name == DEFAULT_MODEL})
    if json:
        typer.echo(orjson.dumps(rows).decode())
        return
    for row in rows:
        mark = " (default)" if row["default"] else ""
        typer.echo(f"{row['name']}{mark}: {row['about']}")
        typer.echo(f"    mpp {row['mpp']:g}, licence {row['licence']}")
        typer.echo(f"    weights: {row['weights']}")
