"""Measurements as people call them: for axes, tables and sentences of the reports."""

import shlex
from collections.abc import Sequence
from pathlib import PurePath

# column of nuclei.parquet -> (name, unit)
NAMES = {
    "area_um2": ("Area", "µm²"),
    "perimeter_um": ("Perimeter", "µm"),
    "equivalent_diameter_um": ("Equivalent diameter", "µm"),
    "major_axis_um": ("Major axis", "µm"),
    "minor_axis_um": ("Minor axis", "µm"),
    "eccentricity": ("Eccentricity", ""),
    "solidity": ("Solidity", ""),
    "circularity": ("Circularity", ""),
    "max_diameter_um": ("Largest diameter", "µm"),
    "min_diameter_um": ("Smallest diameter", "µm"),
    "hematoxylin_od_mean": ("Hematoxylin", "OD"),
    "hematoxylin_od_std": ("Hematoxylin, spread", "OD"),
    "hematoxylin_od_min": ("Hematoxylin, minimum", "OD"),
    "hematoxylin_od_max": ("Hematoxylin, maximum", "OD"),
    "eosin_od_mean": ("Eosin", "OD"),
    "eosin_od_std": ("Eosin, spread", "OD"),
    "red_mean": ("Red", "0-255"),
    "green_mean": ("Green", "0-255"),
    "blue_mean": ("Blue", "0-255"),
    "neighbour_distance_um": ("Nearest neighbour", "µm"),
    "neighbours_50um": ("Neighbours within 50 µm", ""),
    "nuclei_per_mm2": ("Nuclei per mm²", ""),
    "clark_evans": ("Clark-Evans index", ""),
    "focus_median": ("Focus", ""),
    "wall_seconds": ("Wall time", "s"),
    "stage_seconds": ("Stage time", "s"),
}
STATISTICS = {"mean": "mean", "sd": "spread within slides", "q50": "median"}


def name_of(column: str) -> str:
    """Return a column of the cohort's table in words: `area_um2_mean` -> `Area, mean`."""
    if column in NAMES:
        return NAMES[column][0]
    base, _, statistic = column.rpartition("_")
    if base in NAMES and statistic in STATISTICS:
        name = NAMES[base][0]
        return name if statistic == "mean" else f"{name}, {STATISTICS[statistic]}"
    return column


def unit_of(column: str) -> str:
    """Return the unit of a column, empty for numbers without one."""
    base = column if column in NAMES else column.rpartition("_")[0]
    return NAMES.get(base, ("", ""))[1]


def number(value: float | None, digits: int = 3) -> str:
    """Write a number for people: thousands separated, about `digits` significant digits, a dash for none."""
    if value is None or value != value:
        return "–"
    if isinstance(value, int) or abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}" if abs(value) >= 1e-3 or value == 0 else f"{value:.1e}"


def percent(value: float | None) -> str:
    """Write a share as percent, a dash for none."""
    if value is None or value != value:
        return "–"
    return f"{100 * value:.1f} %" if value < 0.0995 else f"{100 * value:.0f} %"


def command_text(command: Sequence[str]) -> str:
    """Return a command line as one would type it; the program without its folder."""
    if not command:
        return ""
    program = PurePath(command[0]).name
    start = "python -m wsipipe" if program == "__main__.py" else shlex.quote(program)
    return " ".join([start, *(shlex.quote(argument) for argument in command[1:])])


def counted(count: int, one: str, many: str = "") -> str:
    """Write a number of things: 1 slide, 2,000 slides; many: the plural, if it is not the word with an s."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def duration(seconds: float | None) -> str:
    """Write seconds as 12.3 s, 4 min 05 s or 3 h 07 min, a dash for none."""
    if seconds is None:
        return "–"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def roughly(seconds: float) -> str:
    """Write seconds as a person would who guesses: 25 s, 4 min, 3 h 10 min."""
    if seconds < 90:
        return f"{max(5, 5 * round(seconds / 5))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    hours, minutes = divmod(10 * round(seconds / 600), 60)
    return f"{hours} h {minutes:02d} min" if hours < 10 else f"{round(seconds / 3600)} h"


def between(low: float, high: float) -> str:
    """Write a range of seconds: 25 s to 2 min."""
    return f"{roughly(low)} to {roughly(high)}" if roughly(low) != roughly(high) else f"about {roughly(low)}"


def size(count: int | None) -> str:
    """Write bytes as 812 kB, 3.4 GB ..., a dash for none."""
    if count is None:
        return "–"
    value, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.3g} {unit}"
