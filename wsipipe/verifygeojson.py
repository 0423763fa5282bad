"""Checks of nuclei.geojson.gz: QuPath's rules, and each feature against its row in nuclei.parquet."""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import geojson
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from isal import igzip
from numpy.typing import NDArray

from wsipipe.findings import Findings
from wsipipe.geojson import HEAD, MEASUREMENTS, POLYGON_AREA, TAIL, Detail
from wsipipe.qupathrules import broken_rules
from wsipipe.verifytable import TableRows

NAME = "nuclei.geojson.gz"
BATCH = 4096
SAMPLE = 1000  # features at most, evenly spread, that the geojson package looks at too; it takes 0.3 ms for each


class GeoJsonError(ValueError):
    """The file as a whole is not what QuPath reads and the writer writes."""


def check_geojson(
    folder: Path, table: pq.ParquetFile | None, detail: Detail, l0_mpp: tuple[float, float], findings: Findings
) -> None:
    """Check the GeoJSON.

    Args:
        folder: the slide folder.
        table: nuclei.parquet; None leaves out the comparison.
        detail: which measurements must be there.
        l0_mpp: (x, y) micrometres per l0 px.
        findings: gets the problems.
    """
    comparison = None if table is None else _Comparison(table, detail, l0_mpp, findings)
    step = 1 if table is None else max(1, -(-table.metadata.num_rows // SAMPLE))
    batch: list[dict[str, Any]] = []
    try:
        for number, feature in enumerate(read_features(folder / NAME)):
            rules = broken_rules(feature)
            for rule in rules:
                findings.add(f"{NAME}: feature {rule}", [_name(feature, number)])
            if not rules:
                batch.append(feature)
                if number % step == 0 and number < step * SAMPLE:
                    findings.add_if(f"{NAME}: feature is not valid for the geojson package", _invalid(feature))
            if len(batch) == BATCH:
                _check_batch(batch, comparison, findings)
                batch = []
    except GeoJsonError as error:
        findings.add(f"{NAME}: {error}")
        return
    _check_batch(batch, comparison, findings)
    if comparison is not None:
        comparison.note_missing()


def _invalid(feature: dict[str, Any]) -> list[str]:
    """Return the id of a feature and what the geojson package has against it; empty if nothing."""
    parsed = geojson.loads(orjson.dumps(feature))
    return [] if parsed.is_valid else [f"{feature['id']} ({parsed.errors()})"]


def read_features(path: Path) -> Iterator[Any]:
    """Parse the features one by one, strictly: JSON as RFC 8259 has it, so no NaN, no comment, no trailing comma.

    Raises:
        GeoJsonError: the file is missing, damaged or cut short, or is no FeatureCollection with one feature a line.
    """
    try:
        with igzip.open(path, "rb") as lines:
            yield from _parsed(iter(lines))
    except (OSError, EOFError, zlib.error, igzip.BadGzipFile) as error:
        raise GeoJsonError(f"cannot be read ({error})") from error
    except orjson.JSONDecodeError as error:
        raise GeoJsonError(f"is not strict JSON ({error})") from error


def _parsed(lines: Iterator[bytes]) -> Iterator[Any]:
    if next(lines, b"").rstrip(b"\n") != HEAD:
        raise GeoJsonError(f"must begin with the line {HEAD.decode()}")
    end = TAIL.strip(b"\n")
    is_last = False
    for line in lines:
        if line.rstrip(b"\n") == end:
            if next(lines, None) is not None:
                raise GeoJsonError("goes on after the end of the FeatureCollection")
            return
        if is_last:
            raise GeoJsonError("lacks a comma between two features")
        text = line.rstrip(b"\n")
        is_last = not text.endswith(b",")
        yield orjson.loads(text if is_last else text[:-1])
    raise GeoJsonError("ends before the FeatureCollection does")


def _name(feature: Any, number: int) -> str:
    identity = feature.get("id") if isinstance(feature, dict) else None
    return str(identity) if isinstance(identity, str) else f"feature {number + 1}"


def polygons_of(features: list[dict[str, Any]]) -> NDArray[np.object_]:
    """Return the polygons of features that break no rule, object (n,)."""
    rings = [feature["geometry"]["coordinates"] for feature in features]
    flat = [ring for polygon in rings for ring in polygon]
    coords = np.array([position for ring in flat for position in ring], dtype=np.float64).reshape(-1, 2)
    ring_starts = np.concatenate([[0], np.cumsum([len(ring) for ring in flat], dtype=np.int64)])
    polygon_starts = np.concatenate([[0], np.cumsum([len(polygon) for polygon in rings], dtype=np.int64)])
    offsets = (ring_starts.astype(np.int64), polygon_starts.astype(np.int64))
    return np.asarray(shapely.from_ragged_array(shapely.GeometryType.POLYGON, coords, offsets), dtype=object)


def _check_batch(features: list[dict[str, Any]], comparison: "_Comparison | None", findings: Findings) -> None:
    if not features:
        return
    polygons = polygons_of(features)
    ids = [feature["id"] for feature in features]
    bad = np.flatnonzero(~shapely.is_valid(polygons))
    findings.add_if(f"{NAME}: polygon is not valid, QuPath drops the whole file", (ids[i] for i in bad))
    if comparison is not None:
        comparison.check(features, polygons)


class _Comparison:
    """Features against rows; holds 17 bytes per nucleus."""

    def __init__(self, table: pq.ParquetFile, detail: Detail, l0_mpp: tuple[float, float], findings: Findings) -> None:
        uuids = table.read(columns=["uuid"])["uuid"]
        keys = np.concatenate([np.empty(0, np.uint64), *(_keys(chunk.to_pylist()) for chunk in uuids.chunks)])
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]
        self._seen = np.zeros(len(keys), dtype=bool)
        self._rows = TableRows(table)
        self._detail = detail
        self._px_um2 = l0_mpp[0] * l0_mpp[1]
        self._findings = findings
        self._colours: dict[str, list[int]] = {}

    def check(self, features: list[dict[str, Any]], polygons: NDArray[np.object_]) -> None:
        """Compare features with the rows of their ids."""
        ids = [feature["id"] for feature in features]
        numbers = self._find(ids)
        self._findings.add_if(f"{NAME}: id is not in nuclei.parquet", (ids[i] for i in np.flatnonzero(numbers < 0)))
        self._note_twice(ids, numbers)
        known = np.flatnonzero(numbers >= 0)
        rows = self._rows.take(numbers[known])
        chosen = [features[i] for i in known]
        other = shapely.from_wkb(rows["geometry"].to_numpy(zero_copy_only=False), on_invalid="ignore")
        differs = ~shapely.equals_exact(polygons[known], other, tolerance=1e-6)
        self._note("polygon is not that of nuclei.parquet", chosen, differs)
        self._check_classes(chosen, rows["class_name"].to_pylist())
        self._check_measurements(chosen, rows, shapely.area(polygons[known]) * self._px_um2)

    def note_missing(self) -> None:
        """Note the nuclei that no feature stands for; call after the last batch."""
        missing = np.flatnonzero(~self._seen)
        self._findings.add_if(f"{NAME}: nuclei of nuclei.parquet are missing", (f"label {row + 1}" for row in missing))

    def _find(self, ids: list[str]) -> NDArray[np.int64]:
        """Return the row of each id, -1 where there is none."""
        keys = _keys(ids)
        if not len(self._keys):
            return np.full(len(ids), -1, dtype=np.int64)
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[at] == keys, self._order[at], -1)

    def _note_twice(self, ids: list[str], numbers: NDArray[np.int64]) -> None:
        twice = []
        for identity, number in zip(ids, numbers.tolist(), strict=True):
            if number >= 0 and self._seen[number]:
                twice.append(identity)
            if number >= 0:
                self._seen[number] = True
        self._findings.add_if(f"{NAME}: id stands more than once", twice)

    def _check_classes(self, features: list[dict[str, Any]], expected: list[str]) -> None:
        wrong, recoloured = [], []
        for feature, name in zip(features, expected, strict=True):
            value = feature["properties"]["classification"]
            wrong.append((": ".join(value["names"]) if "names" in value else value["name"]) != name)
            recoloured.append(self._colours.setdefault(name, value["color"]) != value["color"])
        self._note("class is not that of nuclei.parquet", features, np.array(wrong, dtype=bool))
        self._note("class has another colour than before", features, np.array(recoloured, dtype=bool))

    def _check_measurements(
        self, features: list[dict[str, Any]], rows: pa.Table, areas_um2: NDArray[np.float64]
    ) -> None:
        measurements = MEASUREMENTS[self._detail]
        values = [feature["properties"]["measurements"] for feature in features]
        names = [m.name for m in measurements]
        order = [list(v) != [name for name in names if name in v] for v in values]
        self._note(f"measurements are not those of detail {self._detail}", features, np.array(order, dtype=bool))
        for measurement in measurements:
            stated = np.array([v.get(measurement.name, np.nan) for v in values], dtype=np.float64)
            is_area = measurement.column == POLYGON_AREA
            expected = areas_um2 if is_area else rows[measurement.column].cast(pa.float64()).to_numpy()
            close = np.abs(stated - expected) <= 0.5001 * 10.0**-measurement.decimals
            same = close | (np.isnan(stated) & np.isnan(expected))
            source = measurement.column if is_area else f"{measurement.column} of nuclei.parquet"
            self._note(f"{measurement.name} is not {source}", features, ~same)

    def _note(self, what: str, features: list[dict[str, Any]], bad: NDArray[np.bool_]) -> None:
        self._findings.add_if(f"{NAME}: {what}", (features[i]["id"] for i in np.flatnonzero(bad)))


def _keys(ids: list[str]) -> NDArray[np.uint64]:
    """Return the first 64 bits of each UUID: enough to tell a million nuclei apart, at 8 bytes each."""
    return np.array([int(identity.replace("-", "")[:16], 16) for identity in ids], dtype=np.uint64)
