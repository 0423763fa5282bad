"""Write an evaluation: evaluation.md, evaluation.json, images.csv, and overlays of the best, median and worst image."""

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from amasam.evaluate import Evaluation, ScoredImage, compare, summarise_group
from amasam.metrics import ImageMetrics
from amasam.overlay import draw_comparison, write_rgb
from amasam.papernumbers import CAUTIONS, PAPER_ROWS
from amasam.papernumbers import COLUMNS as PAPER_COLUMNS
from amasam.summary import DISTANCES, Summary
from wsipipe.atomic import write_text

COLUMNS = ("dsc", "miou", "f1", "hd_1024", "aji", "aji_plus", "dq", "sq", "pq", "aji_cc", "pq_cc")
COMPARED = ("dsc", "aji", "pq")
PAPER_SETS = {"monuseg": "MoNuSeg", "tnbc": "TNBC"}  # beginning of a set's name -> name in the paper
PAPER_METHODS = ("U-Net", "HoVer-Net", "UN-SAM", "AMA-SAM", "AMA-SAM +")
_PAPER_COLUMN = {"hd_1024": "hd"}


def write_report(out: Path, evaluations: Sequence[Evaluation], facts: dict[str, Any]) -> None:
    """Write all files of an evaluation.

    Args:
        out: folder, made if missing.
        evaluations: one per model, all on the same images.
        facts: what was asked for; goes into the JSON file and the head of the Markdown file.
    """
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "images.csv", images_csv(evaluations))
    write_text(out / "evaluation.json", json.dumps(as_json(evaluations, facts), indent=1) + "\n")
    write_text(out / "evaluation.md", as_markdown(evaluations, facts))
    for number, evaluation in enumerate(evaluations):
        for place, image in best_median_worst(evaluation.images):
            picture = draw_comparison(image.sample.image, image.sample.labels, image.labels)
            write_rgb(out / f"model{number}-{place}-{image.sample.domain}-{image.sample.name}.png", picture)


def best_median_worst(images: Sequence[ScoredImage]) -> list[tuple[str, ScoredImage]]:
    """Choose the images of the highest, middle and lowest AJI; fewer where there are fewer."""
    ranked = sorted((i for i in images if not math.isnan(i.metrics.aji)), key=lambda image: -image.metrics.aji)
    if not ranked:
        return []
    chosen = {"best": ranked[0], "median": ranked[len(ranked) // 2], "worst": ranked[-1]}
    return list(chosen.items())[: max(1, len(ranked))]


def images_csv(evaluations: Sequence[Evaluation]) -> str:
    """Return one row per model and image with all its metrics."""
    names = [field.name for field in fields(ImageMetrics)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["model", "set", "image", "patient", "organ", "mpp", *names, "aji_cc", "pq_cc"])
    for evaluation in evaluations:
        for image in evaluation.images:
            sample, values = image.sample, asdict(image.metrics)
            head = [evaluation.model, sample.domain, sample.name, sample.patient, sample.organ, f"{sample.mpp:g}"]
            numbers = [*(values[name] for name in names), image.components.aji, image.components.pq]
            writer.writerow([*head, *(f"{number:.6g}" for number in numbers)])
    return text.getvalue()


def as_json(evaluations: Sequence[Evaluation], facts: dict[str, Any]) -> dict[str, Any]:
    """Return facts, summaries of every group, and comparisons of every model with the first, as JSON values."""
    return {
        **facts,
        "scores": {
            evaluation.model: {
                group: {name: _plain(asdict(summary)) for name, summary in summarise_group(images).items()}
                for group, images in evaluation.groups().items()
            }
            for evaluation in evaluations
        },
        "comparisons": [
            {
                "models": [evaluations[0].model, other.model],
                "metrics": {
                    name: _plain({"difference": difference, "p": p})
                    for name, (difference, p) in compare(evaluations[0], other, COMPARED).items()
                },
            }
            for other in evaluations[1:]
        ],
    }


def as_markdown(evaluations: Sequence[Evaluation], facts: dict[str, Any]) -> str:
    """Return the tables: all sets with intervals, organs, comparisons, the paper's numbers."""
    lines = ["# Evaluation", ""]
    lines += [f"- {key}: {value}" for key, value in facts.items() if key != "models"]
    for name, about in facts.get("models", {}).items():
        lines.append(f"- {name}: " + ", ".join(f"{key} {value}" for key, value in about.items()))
    lines += [
        "",
        "Means over images, in brackets the 95 % bootstrap interval; all but HD in percent, HD in px of a 1024",
    ]
    lines += ["grid. `_cc`: components against components of the truth, the protocol that the paper may have used."]
    for group in evaluations[0].groups():
        lines += ["", f"## {group} (n = {len(evaluations[0].groups()[group])})", ""]
        rows = [[e.model, *_cells(summarise_group(e.groups()[group]))] for e in evaluations]
        lines += _table(["model", *COLUMNS], [*rows, *_paper_rows(group)])
    for other in evaluations[1:]:
        lines += ["", f"## {evaluations[0].model} against {other.model}", ""]
        found = compare(evaluations[0], other, COMPARED)
        rows = [[name, f"{100 * difference:+.2f}", f"{p:.3g}"] for name, (difference, p) in found.items()]
        lines += _table(["metric", "mean difference", "p (paired Wilcoxon)"], rows)
    if any(_paper_rows(group) for group in evaluations[0].groups()):
        lines += ["", "The paper's numbers are not from these images. " + "; ".join(CAUTIONS) + "."]
    return "\n".join(lines) + "\n"


def _paper_rows(group: str) -> list[list[str]]:
    data = next((name for start, name in PAPER_SETS.items() if group.startswith(start) and ":" not in group), None)
    rows = [row for row in PAPER_ROWS if row.table == 1 and row.data == data and row.method in PAPER_METHODS]
    found = []
    for row in rows:
        known = dict(zip(PAPER_COLUMNS, row.values, strict=True))
        cells = [known.get(_PAPER_COLUMN.get(column, column)) for column in COLUMNS]
        found.append([f"paper: {row.method}", *("" if cell is None else f"{cell:.2f}" for cell in cells)])
    return found


def _cells(summaries: dict[str, Summary]) -> Iterable[str]:
    for name in COLUMNS:
        summary, factor = summaries[name], 1 if name in DISTANCES else 100
        if summary.n == 0:
            yield "-"
        else:
            low, high = factor * summary.low, factor * summary.high
            yield f"{factor * summary.mean:.2f}" + (f" [{low:.1f}, {high:.1f}]" if summary.n > 1 else "")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {' | '.join(row)} |" for row in rows)]


def _plain(values: dict[str, float]) -> dict[str, float | None]:
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in values.items()}
