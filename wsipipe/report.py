"""report.html of a slide: what was found, where to be careful, and how to get it again; one file, no network."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from markupsafe import Markup
from numpy.typing import NDArray

from wsipipe import charts, gallery
from wsipipe.classcounts import ClassCount, count_classes
from wsipipe.page import data_url, write_page
from wsipipe.quality import EOSIN_RANGE, HEMATOXYLIN_RANGE, MAX_INK, MIN_FOCUS, read_cells
from wsipipe.runrecord import RunRecord
from wsipipe.slide import Slide
from wsipipe.wording import NAMES, command_text, duration, number, percent, size

CHARTED = (
    "area_um2",
    "circularity",
    "eccentricity",
    "hematoxylin_od_mean",
    "eosin_od_mean",
    "neighbour_distance_um",
)
MAP_SIDE = 600  # px of the quality map's longer side, about
_JUDGED = {
    "sharp": (131, 178, 145),
    "out of focus": (226, 128, 54),
    "under ink": (64, 105, 205),
    "too plain to judge": (196, 199, 203),
}
_OUTLINES = {
    "nucleus": gallery.PLAIN,
    "unlike the slide's others (is_outlier)": gallery.OUTLIER,
    "out of focus or under ink (in_artefact)": gallery.ARTEFACT,
}
_OVERVIEW_QUALITY = 80  # JPEG


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart with its heading and what it says in words."""

    title: str
    svg: Markup
    caption: str


@dataclass(frozen=True, slots=True)
class ShownField:
    """A field of the gallery, ready for the page; x, y: its top left corner, l0 px."""

    kind: str
    image: str
    nuclei: int
    doubtful: int
    x: int
    y: int


def write_slide_report(folder: Path, record: RunRecord, slide: Slide) -> None:
    """Write report.html of a slide folder whose other files are in place.

    Args:
        folder: with nuclei.parquet, overview.png and quality.parquet.
        record: what run.json will say.
        slide: the open slide, for the pixels of the gallery.
    """
    with pq.ParquetFile(folder / "nuclei.parquet") as file:
        nuclei = file.read(columns=list(dict.fromkeys((*gallery.COLUMNS, *CHARTED))))
        fields = {kind: list(shown) for kind, shown in groupby(_fields(record, slide, nuclei, file), lambda f: f.kind)}
    cells = read_cells(folder / "quality.parquet")
    values = {
        "title": f"{folder.name} - wsipipe",
        "slide": folder.name,
        "record": record,
        "finished": datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC"),
        "headline": _headline(record),
        "overview": _overview(folder / "overview.png"),
        "fields": list(fields.items()),
        "field_key": [(f"rgb{colour}", name) for name, colour in _OUTLINES.items()],
        "field_um": f"{gallery.FIELD_UM:.0f}",
        "ragged": gallery.RAGGED_SOLIDITY,
        "nuclei": f"{record.nuclei:,}",
        "classes": [_class_row(count) for count in count_classes(folder, record)],
        "charts": [_chart(nuclei, name) for name in CHARTED],
        "quality": list(_quality(record)),
        "stain_chart": _stain_chart(record),
        "quality_map": _quality_map(cells) if cells.num_rows else "",
        "quality_key": [(f"rgb{colour}", name) for name, colour in _JUDGED.items()],
        "provenance": list(_provenance(record)),
        "command": command_text(record.command),
        "files": [(name, f"{size(digest.bytes)}, SHA-256 {digest.sha256}") for name, digest in record.files.items()],
    }
    write_page(folder / "report.html", "slide.html.j2", values)


def _class_row(count: ClassCount) -> tuple[str, str]:
    return count.class_name, f"{count.nuclei:,} ({100 * count.share:.1f} %), {number(count.nuclei_per_mm2)} per mm²"


def _headline(record: RunRecord) -> list[tuple[str, str]]:
    density = record.nuclei / record.tissue_mm2 if record.tissue_mm2 else None
    return [
        (f"{record.nuclei:,}", "nuclei"),
        (f"{record.tissue_mm2:.2f} mm²", _searched(record.tissue_source)),
        (number(density), "nuclei per mm²"),
        (f"{record.l0_mpp[0]:.4g}", f"µm per pixel (from the {record.mpp_source})"),
        (duration(record.wall_seconds), "wall time"),
    ]


def _searched(tissue_source: str) -> str:
    """Name the area in which nuclei were looked for, given what --tissue said."""
    names = {"auto": "tissue", "none": "searched, the whole slide"}
    return names.get(tissue_source) or f"searched, areas of {Path(tissue_source).name}"


def _overview(path: Path) -> str:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise ValueError(f"overview cannot be read as an image: {path}")
    return data_url(gallery.to_jpeg(np.asarray(image, np.uint8), _OVERVIEW_QUALITY), "image/jpeg")


def _fields(record: RunRecord, slide: Slide, nuclei: pa.Table, file: pq.ParquetFile) -> Iterator[ShownField]:
    frame = record.frame
    for field in gallery.choose_fields(nuclei, frame):
        image = gallery.draw_field(field, slide, frame, nuclei, file)
        x, y = round(field.x_um / frame.l0_mpp_x), round(field.y_um / frame.l0_mpp_y)
        url = data_url(gallery.to_jpeg(image), "image/jpeg")
        yield ShownField(field.kind, url, field.nuclei, field.doubtful, x, y)


def _chart(nuclei: pa.Table, column: str) -> Chart:
    title, unit = NAMES[column]
    values = nuclei[column].cast(pa.float64()).drop_null().to_numpy()
    svg = charts.histogram(charts.Distribution(title, values, unit), f"c-{column}")
    if not len(values):
        return Chart(title, svg, "no values")
    low, median, high = (number(float(q)) for q in np.quantile(values, [0.05, 0.5, 0.95]))
    return Chart(title, svg, f"median {median} {unit}, 5 to 95 %: {low} to {high}".replace(" ,", ","))


def _quality(record: RunRecord) -> Iterator[tuple[str, str]]:
    quality = record.quality
    focus = quality.get("focus_median")
    yield "Focus", f"median {number(focus)} (below {MIN_FOCUS:g} is out of focus)" if focus else "nothing to judge"
    yield "Tissue out of focus", percent(quality.get("blurred_share"))
    yield "Tissue under pen marks", percent(quality.get("ink_share"))
    yield "Nuclei in such places (in_artefact)", percent(quality.get("flagged_nuclei_share"))
    for stain in ("hematoxylin", "eosin"):
        vector = ", ".join(f"{value:.3f}" for value in record.stain[stain])
        yield f"{stain.capitalize()} vector", f"{vector} (red, green, blue)"
    yield "Stain vectors from", str(record.stain["source"])


def _wall(record: RunRecord) -> str:
    earlier = record.tiles - record.timed_tiles if record.timed_tiles is not None else 0
    return duration(record.wall_seconds) + (
        f", without the {earlier:,} tiles that a stopped run had done" if earlier else ""
    )


def _stain_chart(record: RunRecord) -> Markup:
    rows = [
        ("Hematoxylin", record.quality.get("hematoxylin_od"), HEMATOXYLIN_RANGE),
        ("Eosin", record.quality.get("eosin_od"), EOSIN_RANGE),
    ]
    return charts.ranges(rows, "c-stain")


def _quality_map(cells: pa.Table) -> str:
    """Draw the cells as a small picture, transparent where there was no tissue."""
    row, col = (cells[name].to_numpy() for name in ("row", "col"))
    focus = charts.as_array(cells["focus"].to_pylist())
    kind = np.select(
        [cells["ink"].to_numpy() > MAX_INK, np.isnan(focus), focus < MIN_FOCUS],
        [list(_JUDGED).index(name) for name in ("under ink", "too plain to judge", "out of focus")],
        list(_JUDGED).index("sharp"),
    )
    image = np.zeros((int(row.max()) + 1, int(col.max()) + 1, 4), np.uint8)
    image[row, col, :3] = np.array(list(_JUDGED.values()), np.uint8)[kind]
    image[row, col, 3] = 255
    return data_url(
        _to_png(
            image.repeat(max(1, MAP_SIDE // max(image.shape)), axis=0).repeat(
                max(1, MAP_SIDE // max(image.shape)), axis=1
            )
        ),
        "image/png",
    )


def _to_png(image: NDArray[np.uint8]) -> bytes:
    done, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGBA2BGRA))
    if not done:
        raise ValueError(f"image of shape {image.shape} cannot be encoded as PNG")
    return bytes(data.tobytes())


def _provenance(record: RunRecord) -> Iterator[tuple[str, Any]]:
    yield "Slide", record.slide_path
    yield "Format, size", f"{record.vendor} read by {record.reader}, {size(record.slide_bytes)}"
    yield "Quickhash", record.quickhash
    yield (
        "Level 0",
        f"{record.l0_size[0]:,} x {record.l0_size[1]:,} px, mpp {record.l0_mpp[0]:.5g} x {record.l0_mpp[1]:.5g}",
    )
    yield "Segmented at", f"mpp {record.frame.mpp:.4g}"
    yield "Model", f"{record.model}, licence {record.model_licence}"
    yield "Model SHA-256", record.model_sha256
    yield "Parameters", ", ".join(f"{name} {value}" for name, value in record.parameters.items()) or "none"
    yield "Device", record.device
    versions = record.versions
    yield "wsipipe", f"{versions.get('wsipipe', '?')}, commit {record.git_commit or 'not known'}"
    yield "Python, system", f"{versions.get('python', '?')}, {versions.get('platform', '?')}"
    yield "Tiles", f"{record.tiles:,}, {record.tiles_per_second:.3g} per second"
    yield "Wall time", _wall(record)
    stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in record.seconds.items())
    yield "Stage time", f"{duration(record.stage_seconds)} before this report, in seconds: {stages}"
    vram = f", GPU {size(record.peak_vram_bytes)}" if record.peak_vram_bytes else ""
    yield "Peak memory", f"{size(record.peak_rss_bytes)}{vram}"
