"""Checks of nuclei.parquet: schema, metadata, and each row against the rules and the label image."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from wsipipe.findings import Findings
from wsipipe.provenance import Provenance
from wsipipe.table import FORMAT_VERSION, MAY_BE_NULL, SCHEMA, nucleus_uuids
from wsipipe.verifylabels import LabelPixels

NAME = "nuclei.parquet"
BATCH = 8192
AREA_SHARE, AREA_PX = 0.02, 2.0  # a polygon's area may differ from its pixel count by this share and this many work px
FLOAT32 = 1e-6  # share by which a float32 may differ from its value
CENTROID_PX = 0.02  # work px; centroids are computed from the very pixels
_FLOATS = tuple(field.name for field in SCHEMA if pa.types.is_floating(field.type))
Mask = NDArray[np.bool_]


def open_table(folder: Path, findings: Findings) -> pq.ParquetFile | None:
    """Open nuclei.parquet if it is there and has the documented columns."""
    try:
        file = pq.ParquetFile(folder / NAME)
    except (OSError, pa.ArrowException) as error:
        findings.add(f"{NAME}: cannot be read ({str(error).splitlines()[0]})")
        return None
    found = {field.name: field.type for field in file.schema_arrow}
    findings.add_if(f"{NAME}: documented columns are missing", [name for name in SCHEMA.names if name not in found])
    findings.add_if(f"{NAME}: columns are not documented", [name for name in found if name not in SCHEMA.names])
    other = [f"{f.name} is {found[f.name]}, not {f.type}" for f in SCHEMA if found.get(f.name, f.type) != f.type]
    findings.add_if(f"{NAME}: columns have another type than documented", other)
    if set(SCHEMA.names) - set(found) or other:
        return None
    if file.schema_arrow.names != SCHEMA.names:
        findings.add(f"{NAME}: columns are not in the documented order")
    return file


def check_table(
    file: pq.ParquetFile, provenance: Provenance, nuclei: int, pixels: LabelPixels | None, findings: Findings
) -> None:
    """Check metadata and rows.

    Args:
        file: from `open_table`.
        provenance: what the table must say of itself.
        nuclei: their number as run.json tells.
        pixels: from the label image; None leaves out what needs it.
        findings: gets the problems.
    """
    if file.metadata.num_rows != nuclei:
        findings.add(f"{NAME}: must have {nuclei} rows as run.json tells, has {file.metadata.num_rows}")
    bounds = _check_metadata(file, provenance, findings)
    first = 1
    for batch in file.iter_batches(BATCH):
        _check_rows(pa.Table.from_batches([batch]), first, provenance, (pixels, bounds), findings)
        first += batch.num_rows


def _check_metadata(file: pq.ParquetFile, provenance: Provenance, findings: Findings) -> list[float] | None:
    """Return the bounding box that the metadata state, None where they state none."""
    texts = file.metadata.metadata or {}
    try:
        geo, origin = json.loads(texts[b"geo"]), json.loads(texts[b"wsipipe"])
        column = geo["columns"]["geometry"]
        stated = (geo["version"], geo["primary_column"], column["encoding"], column["crs"])
        kinds, bounds = column["geometry_types"], column.get("bbox")
    except (KeyError, TypeError, ValueError) as error:
        findings.add(f"{NAME}: metadata `geo` or `wsipipe` is missing or damaged ({error!r})")
        return None
    if stated != ("1.1.0", "geometry", "WKB", None) or not set(kinds) <= {"Polygon"}:
        findings.add(f"{NAME}: metadata `geo` is not that of GeoParquet 1.1 with WKB polygons in px")
    if origin != provenance.to_json(FORMAT_VERSION):
        findings.add(f"{NAME}: was written for another slide, model or frame than run.json tells")
    return None if bounds is None else [float(value) for value in bounds]


def _check_rows(
    rows: pa.Table,
    first: int,
    provenance: Provenance,
    known: tuple[LabelPixels | None, list[float] | None],
    findings: Findings,
) -> None:
    labels = rows["label"].to_numpy()
    expected = np.arange(first, first + len(rows))
    names = [f"label {label}" for label in labels]
    _note(findings, "labels are not 1, 2, 3 ... in order", names, labels != expected)
    uuids = np.array(rows["uuid"].to_pylist(), dtype=object)
    right = np.array(nucleus_uuids(provenance.slide_key, first, len(rows)).to_pylist(), dtype=object)
    _note(findings, "uuid is not uuid5 of slide key and label", names, uuids != right)
    for name in SCHEMA.names:
        missing = rows[name].is_null(nan_is_null=True) if name in _FLOATS else rows[name].is_null()
        allowed = rows[name].is_null() if name in MAY_BE_NULL else pa.chunked_array([pa.array([False] * len(rows))])
        bad = missing.to_numpy() & ~allowed.to_numpy()
        _note(findings, f"{name} is NaN or null", names, bad)
    _check_polygons(rows, names, provenance, known, findings)


def _check_polygons(
    rows: pa.Table,
    names: list[str],
    provenance: Provenance,
    known: tuple[LabelPixels | None, list[float] | None],
    findings: Findings,
) -> None:
    pixels, bounds = known
    frame = provenance.frame
    polygons = shapely.from_wkb(rows["geometry"].to_numpy(zero_copy_only=False), on_invalid="ignore")
    _note(findings, "geometry is no polygon", names, shapely.get_type_id(polygons) != shapely.GeometryType.POLYGON)
    _note(findings, "polygon is not valid", names, ~shapely.is_valid(polygons))
    box = shapely.bounds(polygons)  # (n, 4): x0, y0, x1, y1
    coords, owner = shapely.get_coordinates(polygons, return_index=True)
    coarse = np.abs(coords * 100 - np.rint(coords * 100)).max(axis=1, initial=0.0) > 1e-4
    _note(findings, "polygon is not on the 0.01 px grid", names, np.bincount(owner[coarse], minlength=len(rows)) > 0)
    # the last column and row of the work grid may reach beyond the slide by less than 1 work px, and nuclei with them
    grid = np.array([0, 0, frame.width * frame.scale_x, frame.height * frame.scale_y])
    _note(findings, "polygon reaches beyond the slide", names, _outside(box, grid))
    if bounds is not None:
        _note(findings, "polygon reaches beyond the bbox of the metadata", names, _outside(box, np.array(bounds)))
    centre = np.column_stack([rows["centroid_x_l0"].to_numpy(), rows["centroid_y_l0"].to_numpy()])
    inside = (centre >= box[:, :2] - 0.01).all(axis=1) & (centre <= box[:, 2:] + 0.01).all(axis=1)
    _note(findings, "centroid lies outside the polygon's box", names, ~inside)
    if pixels is not None:
        _check_against_pixels(rows, names, shapely.area(polygons), (pixels, provenance), findings)


def _check_against_pixels(
    rows: pa.Table,
    names: list[str],
    area_l0: NDArray[np.float64],
    known: tuple[LabelPixels, Provenance],
    findings: Findings,
) -> None:
    pixels, provenance = known
    frame = provenance.frame
    labels = np.minimum(rows["label"].to_numpy(), len(pixels.count) - 1)
    count, centre_w = pixels.count[labels], pixels.centre[labels]
    allowed = AREA_SHARE * count + AREA_PX
    area_w = area_l0 / (frame.scale_x * frame.scale_y)
    _note(findings, "area of the polygon is not that of the label's pixels", names, np.abs(area_w - count) > allowed)
    area_px = rows["area_um2"].to_numpy() / (frame.mpp_x * frame.mpp_y)
    _note(findings, "area_um2 is not that of the label's pixels", names, np.abs(area_px - count) > FLOAT32 * count)
    scale = np.array([frame.scale_x, frame.scale_y])
    stated = np.column_stack([rows["centroid_x_l0"].to_numpy(), rows["centroid_y_l0"].to_numpy()]) / scale
    off = ~(np.abs(stated - centre_w).max(axis=1, initial=0.0) <= CENTROID_PX)  # also where there is no pixel
    _note(findings, "centroid is not that of the label's pixels", names, off)


def _outside(box: NDArray[np.float64], limits: NDArray[np.float64]) -> Mask:
    return np.asarray((box[:, :2] < limits[:2] - 0.01).any(axis=1) | (box[:, 2:] > limits[2:] + 0.01).any(axis=1))


def _note(findings: Findings, what: str, names: list[str], bad: Iterable[bool]) -> None:
    where = np.flatnonzero(np.asarray(bad, dtype=bool))
    findings.add_if(f"{NAME}: {what}", (names[i] for i in where))


class TableRows:
    """Rows of nuclei.parquet by number, in any order; cheap as long as the numbers mostly grow."""

    def __init__(self, file: pq.ParquetFile) -> None:
        """Read only where each row group begins."""
        self._file = file
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self._held: dict[int, pa.Table] = {}

    def take(self, numbers: NDArray[np.int64]) -> pa.Table:
        """Return rows in the order of their numbers."""
        if not len(numbers):
            return SCHEMA.empty_table()
        groups = np.searchsorted(self._starts, numbers, side="right") - 1
        needed = sorted(set(groups.tolist()))
        parts = [self._group(group).take(numbers[groups == group] - self._starts[group]) for group in needed]
        order = np.argsort(np.argsort(groups, kind="stable"), kind="stable")
        return pa.concat_tables(parts).take(order)

    def _group(self, group: int) -> pa.Table:
        if group not in self._held:
            if len(self._held) > 1:
                del self._held[next(iter(self._held))]
            self._held[group] = self._file.read_row_group(group)
        return self._held[group]
