"""A map of a slide's nuclei for notebooks and figures."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wsipipe.errors import UsageError
from wsipipe.runrecord import RunRecord
from wsipipe.wording import NAMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MIN_BIN_UM, BINS = 50.0, 200  # side of a square of the map; squares along the longer side, at most


def draw_map(table: Path, record: RunRecord, column: str | None, ax: "Axes | None") -> "Axes":
    """Draw nuclei per mm2, or the mean of a column, in squares over the slide; see `SlideResult.plot`.

    Raises:
        UsageError: the column is unknown or holds no numbers.
    """
    width, height = (size * mpp / 1000 for size, mpp in zip(record.l0_size, record.l0_mpp, strict=True))
    step = max(MIN_BIN_UM / 1000, max(width, height) / BINS)
    edges = [np.arange(math.ceil(length / step) + 1) * step for length in (height, width)]
    y, x, values = _read(table, record, column)
    counts = np.histogram2d(y, x, edges)[0]
    if values is None:
        shown, label = counts / step**2, "nuclei per mm²"
    else:
        with np.errstate(invalid="ignore"):
            shown = np.histogram2d(y, x, edges, weights=values)[0] / counts
        name, unit = NAMES.get(column or "", (column, ""))
        label = f"mean {name}" + (f" ({unit})" if unit else "")
    axes = ax or _new_axes(width, height)
    image = axes.pcolormesh(edges[1], edges[0], np.ma.masked_where(counts == 0, shown))
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal", xlabel="mm", ylabel="mm")
    axes.set_title(Path(record.slide_path).name, parse_math=False)
    axes.figure.colorbar(image, ax=axes, label=label, shrink=0.8)
    return axes


_Column = np.ndarray[tuple[int], np.dtype[np.float64]]


def _read(table: Path, record: RunRecord, column: str | None) -> tuple[_Column, _Column, _Column | None]:
    """Return y and x in mm, and the column, of the nuclei where it is not null."""
    schema = pq.read_schema(table)
    if column is not None and not (column in schema.names and _is_number(schema.field(column).type)):
        numbers = [field.name for field in schema if _is_number(field.type)]
        raise UsageError(f"column must be one of {', '.join(numbers)}; got {column!r}")
    names = ["centroid_y_l0", "centroid_x_l0"] + ([column] if column else [])
    rows = pq.read_table(table, columns=list(dict.fromkeys(names))).drop_null()
    y, x = (rows[n].to_numpy() * mpp / 1000 for n, mpp in zip(names, reversed(record.l0_mpp), strict=False))
    return y, x, rows[column].cast(pa.float64()).to_numpy() if column else None


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _new_axes(width: float, height: float) -> "Axes":
    from matplotlib.figure import Figure

    longest = max(width, height)
    figure = Figure(figsize=(2 + 5 * width / longest, 1 + 5 * height / longest), layout="constrained")
    return figure.add_subplot()
