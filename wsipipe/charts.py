"""Charts of the reports: matplotlib figures as SVG that takes its colours and its font from the page.

Equal data give equal text. Figures are made without pyplot; only rendering touches matplotlib's settings, under a lock.
"""

import io
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Stand-ins for the page's colours; the SVG gets `var(--name)` in their place.
INK, MUTED, LINE, ACCENT, SECOND, SURFACE = "#0a0a01", "#0a0a02", "#0a0a03", "#0a0a04", "#0a0a05", "#0a0a06"
_VARIABLES = {INK: "ink", MUTED: "muted", LINE: "line", ACCENT: "accent", SECOND: "second", SURFACE: "surface"}
_SETTINGS: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "wsipipe", "font.size": 9, "axes.linewidth": 0.8}
_PX = 1 / 72  # inch per SVG unit
_LOCK = threading.Lock()


def new_figure(width: float, height: float) -> "tuple[Figure, Axes]":
    """Return a figure of width x height SVG units with one plain axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * _PX, height * _PX), layout="constrained")
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    figure.patch.set_alpha(0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(LINE)
    axes.tick_params(colors=MUTED, labelcolor=MUTED, length=3)
    return figure, axes


def to_svg(figure: "Figure", label: str, name: str) -> Markup:
    """Render a figure.

    Args:
        figure: with colours from this module.
        label: what it shows, for those who cannot see it.
        name: unlike that of any other chart on the page; prefix of the ids inside.
    """
    import matplotlib as mpl

    text = io.StringIO()
    with _LOCK, mpl.rc_context(_SETTINGS):
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|"#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px system-ui, sans-serif", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    head = f'<svg role="img" aria-label="{escape(label)}" class="chart"'
    return Markup(re.sub(r'\s(width|height)="[\d.]+pt"', "", svg.replace("<svg", head, 1), count=2))


@dataclass(frozen=True, slots=True)
class Distribution:
    """Values to draw as a histogram. title: with unit, marks: values that are worth a dot below (few)."""

    title: str
    values: NDArray[np.float64]
    unit: str = ""
    marks: tuple[float, ...] = ()


def histogram(data: Distribution, name: str, *, tails: float = 0.005) -> Markup:
    """Draw a histogram with its median; the `tails` share at each end is not shown."""
    figure, axes = new_figure(250, 150)
    values = data.values[np.isfinite(data.values)]
    if len(values):
        low, high = np.quantile(values, [tails, 1 - tails])
        if high <= low:
            low, high = low - 0.5, high + 0.5
        counts, edges = np.histogram(values, bins=min(40, max(8, len(values) // 4)), range=(low, high))
        axes.stairs(counts, edges, fill=True, color=ACCENT, alpha=0.55)
        axes.axvline(float(np.median(values)), color=INK, linewidth=1.2)
        axes.plot(data.marks, [0] * len(data.marks), "o", color=SECOND, markersize=5, clip_on=False)
    axes.set_yticks([])
    axes.locator_params(axis="x", nbins=5)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(data.unit, color=MUTED)
    median = f", median {np.median(values):.3g} {data.unit}".rstrip() if len(values) else ", no values"
    return to_svg(figure, f"Histogram of {data.title}{median}", name)


def ranges(rows: Sequence[tuple[str, float | None, tuple[float, float]]], name: str) -> Markup:
    """Draw each value beside its reference range; rows are (title, value, (low, high))."""
    figure, axes = new_figure(360, 34 + 30 * len(rows))
    for place, (_, value, (low, high)) in enumerate(rows):
        axes.barh(place, high - low, left=low, height=0.5, color=LINE)
        if value is not None:
            inside = low <= value <= high
            axes.plot([value], [place], "o" if inside else "D", color=ACCENT if inside else SECOND, markersize=7)
    axes.set_yticks(range(len(rows)), [row[0] for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set_xlabel("optical density", color=MUTED)
    texts = (f"{title} {value:.2f}" if value is not None else f"{title} unknown" for title, value, _ in rows)
    return to_svg(figure, f"Stain against the reference range: {', '.join(texts)}", name)


def strips(title: str, groups: Mapping[str, Sequence[float]], name: str, unit: str = "") -> Markup:
    """Draw the patients of each group as dots, with the mean of each group."""
    figure, axes = new_figure(250, 190)
    for place, values in enumerate(groups.values()):
        spread = 0.25 * (2 * _scatter(len(values)) - 1)
        axes.plot(place + spread, values, "o", color=ACCENT, alpha=0.7, markersize=5, markeredgewidth=0)
        if len(values):
            axes.plot([place - 0.3, place + 0.3], [np.mean(values)] * 2, color=INK, linewidth=2)
    axes.set_xticks(range(len(groups)), [_short(group) for group in groups])
    for text in axes.get_xticklabels():
        text.set_parse_math(False)  # a dollar sign in a group's name is a dollar sign
    axes.set_xlim(-0.6, len(groups) - 0.4)
    axes.tick_params(axis="x", length=0, labelcolor=INK)
    axes.set_ylabel(unit, color=MUTED)
    means = (f"{group} {np.mean(values):.3g}" for group, values in groups.items() if len(values))
    return to_svg(figure, f"{title} of patients by group; means: {', '.join(means)}", name)


def _scatter(n: int) -> NDArray[np.float64]:
    """Return n numbers in 0..1, evenly spread and in no order (multiples of the golden ratio)."""
    return np.asarray((np.arange(n) * 0.6180339887 + 0.5) % 1.0)


def _short(text: str) -> str:
    return text if len(text) <= 16 else f"{text[:15]}…"


def forest(rows: Sequence[tuple[str, float, float, float]], name: str, label: str) -> Markup:
    """Draw estimates with their intervals, one below the other; rows are (title, value, low, high)."""
    figure, axes = new_figure(440, 44 + 17 * max(1, len(rows)))
    for place, (_, value, low, high) in enumerate(rows):
        clear = low > 0 or high < 0
        colour = ACCENT if clear else MUTED
        axes.plot([low, high], [place, place], color=colour, linewidth=1.6)
        axes.plot([value], [place], "o", color=colour, markersize=5)
    axes.axvline(0, color=INK, linewidth=0.9)
    axes.set_yticks(range(len(rows)), [row[0] for row in rows])
    axes.set_ylim(max(1, len(rows)) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("Hedges' g with 95 % interval", color=MUTED)
    return to_svg(figure, label, name)


def as_array(values: Sequence[Any]) -> NDArray[np.float64]:
    """Return numbers as float64, None as NaN."""
    return np.array([np.nan if value is None else value for value in values], np.float64)
