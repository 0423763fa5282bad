"""Curves of a training run as one PNG, drawn from its log."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from amasam.trainlog import read_log

_PANELS = (
    ("losses", "train", ("loss", "fine", "coarse", "domain", "dense", "distance", "boundary"), True),
    ("discriminator accuracy", "train", ("accuracy_primary", "accuracy_auxiliary"), False),
    ("gradient norm at F_enc", "train", ("grad_fine", "grad_coarse", "grad_maps", "grad_domain"), True),
    ("validation, averaged weights", "validation", ("dsc", "aji", "pq"), False),
    ("learning rate", "train", ("lr",), False),
    ("images per second", "train", ("images_per_s",), False),
)


def draw_curves(log: Path, out: Path) -> None:
    """Draw losses, domain accuracy, gradient norms, validation metrics, learning rate and speed over the steps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    entries = read_log(log)
    figure = Figure(figsize=(13, 7))
    figure.subplots_adjust(0.04, 0.07, 0.99, 0.95, wspace=0.14, hspace=0.28)
    FigureCanvasAgg(figure)
    for axes, (title, kind, keys, is_log) in zip(figure.subplots(2, 3).flat, _PANELS, strict=True):
        lines = [entry for entry in entries if entry["kind"] == kind]
        for key in keys:
            steps, values = _series(lines, key)
            if any(values):
                axes.plot(steps, values, label=key, linewidth=1, marker="o" if kind == "validation" else None)
        if is_log and axes.lines:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))  # no TeX: ten times faster
            axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("step", fontsize=8)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=7)
    partial = out.with_name(out.name + ".partial")
    figure.savefig(partial, dpi=110, format="png")
    partial.replace(out)


def _series(lines: Sequence[dict[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """Return steps and values of one key, averaged over windows so that at most 400 points are drawn."""
    pairs = [(line["step"], line[key]) for line in lines if isinstance(line.get(key), int | float)]
    width = max(1, -(-len(pairs) // 400))
    groups = [pairs[i : i + width] for i in range(0, len(pairs), width)]
    return [g[-1][0] for g in groups], [sum(v for _, v in g) / len(g) for g in groups]
