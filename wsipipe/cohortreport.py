"""cohort.html: all slides of an output folder on one page, groups of patients compared, failures with their reasons."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from wsipipe import charts
from wsipipe.effects import Effect, GroupSummary, Interval, method_words, patient_values
from wsipipe.failures import Failure
from wsipipe.metadata import Metadata, join_notes
from wsipipe.page import link_to, write_page
from wsipipe.report import Chart
from wsipipe.wording import command_text, counted, duration, name_of, number, percent, unit_of

COMPARED_SLIDES = (
    "nuclei_per_mm2",
    "area_um2_q50",
    "circularity_q50",
    "hematoxylin_od_mean_q50",
    "eosin_od_mean_q50",
    "focus_median",
)
STRIPS = (
    "nuclei_per_mm2",
    "area_um2_mean",
    "area_um2_sd",
    "circularity_mean",
    "hematoxylin_od_mean_mean",
    "neighbour_distance_um_mean",
)
MIN_SLIDES = 8  # with the same model, to call one unlike the others
OUTLIER_LIMIT = 3.5
_MAD_TO_SD = 1.4826

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CohortPage:
    """What the page shows: rows of summary.SUMMARY_SCHEMA, groups, failures, and the record of the last run."""

    rows: Sequence[Row]
    metadata: Metadata | None
    groups: Sequence[GroupSummary]
    effects: Sequence[Effect]
    failures: Sequence[Failure]
    run: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table of slides."""

    name: str
    numeric: bool


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: text, the value to sort by if it differs, CSS class, link."""

    text: str
    value: Any = None
    kind: str = ""
    link: str = ""


@dataclass(frozen=True, slots=True)
class TableRow:
    """One slide of the table."""

    flagged: bool
    cells: tuple[Cell, ...]


_NUMBERS = (
    ("Nuclei", "nuclei"),
    ("Tissue mm²", "tissue_mm2"),
    ("Nuclei/mm²", "nuclei_per_mm2"),
    ("Area µm²", "area_um2_q50"),
    ("Circularity", "circularity_q50"),
    ("Hematoxylin", "hematoxylin_od_mean_q50"),
    ("Focus", "focus_median"),
    ("Flagged nuclei", "in_artefact_share"),
    ("Wall time s", "wall_seconds"),
)


def write_cohort_report(path: Path, page: CohortPage) -> None:
    """Write cohort.html."""
    groups = page.metadata.groups if page.metadata else ()
    columns = [Column("Slide", False), *(Column(group, False) for group in groups)]
    columns += [*(Column(name, True) for name, _ in _NUMBERS), Column("Model", False), Column("Look at", False)]
    values = {
        "title": "Cohort",
        "lead": _lead(page),
        "headline": _headline(page.rows),
        "failures": sorted(page.failures, key=lambda failure: not failure.fatal),
        "notes": list(_notes(page)),
        "method": method_words(page.metadata, page.effects) if page.metadata else [],
        "comparisons": list(_comparisons(page)),
        "charts": [_chart(page.rows, column) for column in COMPARED_SLIDES] if len(page.rows) >= MIN_SLIDES else [],
        "flagged": [{**row, "link": link_to(row["slide"], "report.html")} for row in page.rows if row["flags"]],
        "outliers": list(unlike_others(page.rows)),
        "columns": columns,
        "rows": [_table_row(row, page.metadata) for row in page.rows],
        "time": list(_time(page)),
        "command": command_text(page.run.get("command", [])),
    }
    write_page(path, "cohort.html.j2", values, script="table.js")


def _lead(page: CohortPage) -> str:
    models = sorted({row["model"] for row in page.rows})
    failed = sum(failure.fatal for failure in page.failures)
    text = f"{counted(len(page.rows), 'slide')} done" + (f", {failed:,} without a result" if failed else "")
    mixed = "; careful, they were done with different models" if len(models) > 1 else ""
    return f"{text}. Nuclei found by {', '.join(models)}{mixed}." if models else f"{text}."


def _headline(rows: Sequence[Row]) -> list[tuple[str, str]]:
    nuclei, tissue = sum(row["nuclei"] for row in rows), sum(row["tissue_mm2"] for row in rows)
    return [
        (f"{len(rows):,}", "slide" if len(rows) == 1 else "slides"),
        (f"{nuclei:,}", "nuclei"),
        (f"{number(tissue)} mm²", "tissue"),
        (number(nuclei / tissue if tissue else None), "nuclei per mm²"),
        (f"{sum(bool(row['flags']) for row in rows):,} of {len(rows):,}", "to look at (flagged)"),
    ]


def _notes(page: CohortPage) -> Iterator[str]:
    if page.metadata is None:
        return
    yield from join_notes({row["slide"] for row in page.rows}, page.metadata)
    if page.metadata.groups and not page.effects:
        yield "no two groups have two patients each, so nothing was compared"


def _comparisons(page: CohortPage) -> Iterator[dict[str, Any]]:
    if page.metadata is None:
        return
    slides = {row["slide"]: row for row in page.rows}
    pairs = groupby(page.effects, key=lambda effect: (effect.column, effect.group_a, effect.group_b))
    for place, ((column, a, b), items) in enumerate(pairs):
        effects = list(items)
        shown = [effect for effect in effects if effect.hedges_g]
        yield {
            "heading": f"{column}: {b} compared with {a}",
            "sentence": _sentence(effects),
            "a": a,
            "b": b,
            "strips": [_strip(slides, page.metadata, (column, a, b), name, place) for name in STRIPS],
            "forest": charts.forest(
                [(name_of(e.measurement), g.value, g.low, g.high) for e in shown if (g := e.hedges_g)],
                f"g{place}-forest",
                f"Hedges' g of {b} against {a} with 95 % intervals",
            ),
            "rows": [_effect_row(effect) for effect in effects],
        }


def _sentence(effects: Sequence[Effect]) -> str:
    """Say what differs, in words and with intervals."""
    first = effects[0]
    patients = max(effects, key=lambda effect: effect.patients_a + effect.patients_b)
    if first.design == "paired":
        start = f"{patients.patients_a} patients with slides in both groups, compared within patients."
    else:
        start = f"{patients.patients_a} patients in {first.group_a}, {patients.patients_b} in {first.group_b}."
    told = [effect for effect in effects if effect.measurement in ("nuclei_per_mm2", "area_um2_mean")]
    return " ".join([start, *(_told(effect) for effect in told)])


def _told(effect: Effect) -> str:
    change, unit = effect.difference, unit_of(effect.measurement)
    clear = "an effect of zero lies outside the interval" if not change.covers(0) else "which is compatible with none"
    ratio = f", {number(effect.ratio.value)} times" if effect.ratio else ""
    amount = f"{_interval(change)} {unit}".strip()
    return f"{name_of(effect.measurement)}: {effect.group_b} minus {effect.group_a} is {amount}{ratio}; {clear}."


def _interval(value: Interval | None) -> str:
    return "–" if value is None else f"{number(value.value)} ({number(value.low)} to {number(value.high)})"


def _effect_row(effect: Effect) -> dict[str, Any]:
    intervals = (effect.difference, effect.hedges_g, effect.ratio)
    cells = [number(effect.mean_a), number(effect.mean_b), *(_interval(value) for value in intervals)]
    cells += [number(p, 2) for p in (effect.p_value, effect.p_adjusted)]
    return {"name": name_of(effect.measurement), "unit": unit_of(effect.measurement), "cells": cells}


def _strip(
    slides: Mapping[str, Row], metadata: Metadata, names: tuple[str, str, str], measurement: str, place: int
) -> Chart:
    column, *groups = names
    values = patient_values(slides, metadata, column, measurement)
    shown = {group: [float(np.mean(v)) for v in values.get(group, {}).values()] for group in groups}
    title = name_of(measurement)
    svg = charts.strips(title, shown, f"g{place}-{measurement}", unit_of(measurement))
    return Chart(title, svg, "a dot is a patient, the line is the mean")


def _chart(rows: Sequence[Row], column: str) -> Chart:
    values = charts.as_array([row[column] for row in rows])
    finite = values[np.isfinite(values)]
    title, unit = name_of(column), unit_of(column)
    svg = charts.histogram(charts.Distribution(title, finite, unit), f"s-{column}", tails=0)
    if not len(finite):
        return Chart(title, svg, "no values")
    return Chart(title, svg, f"slides: median {number(float(np.median(finite)))}, {len(finite)} values")


def unlike_others(rows: Sequence[Row]) -> Iterator[dict[str, str]]:
    """List the slides whose values lie more than OUTLIER_LIMIT robust standard deviations from their model's median."""
    for model in sorted({row["model"] for row in rows}):
        same = [row for row in rows if row["model"] == model]
        for column in COMPARED_SLIDES if len(same) >= MIN_SLIDES else ():
            known = [row for row in same if row[column] is not None]
            if not known:
                continue
            middle = median(row[column] for row in known)
            scale = _MAD_TO_SD * median(abs(row[column] - middle) for row in known)
            for row in known:
                if scale > 0 and abs(row[column] - middle) > OUTLIER_LIMIT * scale:
                    yield {
                        "slide": row["slide"],
                        "link": link_to(row["slide"], "report.html"),
                        "name": name_of(column),
                        "value": number(row[column]),
                        "median": number(middle),
                    }


def _table_row(row: Row, metadata: Metadata | None) -> TableRow:
    cells = [Cell(row["slide"], kind="id", link=link_to(row["slide"], "report.html"))]
    cells += [Cell(metadata.value(row["slide"], group)) for group in metadata.groups] if metadata else []
    for _, column in _NUMBERS:
        value = row[column]
        text = percent(value) if column.endswith("_share") else number(value, 3)
        cells.append(Cell(text, "" if value is None else round(value, 6), "n"))
    cells += [Cell(row["model"]), Cell(row["flags"], kind="text")]
    return TableRow(bool(row["flags"]), tuple(cells))


def _time(page: CohortPage) -> Iterator[tuple[str, str]]:
    if "wall_seconds" in page.run:
        slides = counted(page.run.get("slides_done", 0), "slide")
        yield "Last run, wall time", f"{duration(page.run['wall_seconds'])} for {slides}"
    walls = [row["wall_seconds"] for row in page.rows if row["wall_seconds"]]
    if walls:
        yield "A slide, wall time", f"median {duration(median(walls))}; slides that were worked on side by side overlap"
    stage, tissue = (sum(row[name] for row in page.rows) for name in ("stage_seconds", "tissue_mm2"))
    if stage > 0:
        yield "All slides, stage time", duration(stage)
        yield "Stage time per mm² of tissue", f"{number(stage / tissue if tissue else None)} s"
        yield "Nuclei per second of stage time", number(sum(row["nuclei"] for row in page.rows) / stage)
    if page.rows:
        yield "Largest peak memory", f"{max(row['peak_rss_bytes'] for row in page.rows) / 1e9:.2f} GB"
        yield "Devices", ", ".join(sorted({row["device"] for row in page.rows}))
