"""nuclei.geojson.gz: one QuPath `detection` per nucleus, streamed, one feature per line, equal bytes for equal nuclei.

The rules that the file keeps are QuPath's (tags v0.5.1 and v0.7.0): coordinates in level-0 px at the edges of pixels,
on a grid of 0.01 px; rings closed; a classification always with its colour; no null and no NaN, a missing measurement
is left out; names and formulas of measurements as in `ObjectMeasurements.addShapeMeasurements`. Numbers are formatted
and lines assembled in one compiled loop: through `geojson.dumps` they would take longer than the model does on a GPU.
"""

import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from isal import igzip
from numpy.typing import NDArray

from wsipipe.atomic import replacing
from wsipipe.geojsonbytes import Features, assemble, feature_texts
from wsipipe.nuclei import Outlines
from wsipipe.shape import polygon_areas

Detail = Literal["shape", "full"]

GZIP_LEVEL = 1  # benchmarks/geojson_writer.py: level 2 saves 1 % of the size, level 3 saves 3 % for 1.6 times the time
HEAD, TAIL = b'{"type":"FeatureCollection","features":[', b"\n]}\n"
COLOURS = ((200, 0, 0), (0, 110, 200), (0, 150, 60), (230, 140, 0), (140, 60, 180), (0, 160, 160), (150, 110, 60))
_BATCH = 4096  # nuclei assembled at once; bounds the buffer to a few MB
_PIECE = 1 << 20  # bytes handed to the compressor at once, always exactly, so that its output has one form
_GRID = 100  # coordinates are multiples of 1 / _GRID px


POLYGON_AREA = "area of the polygon"


@dataclass(frozen=True, slots=True)
class Measurement:
    """A number in the GeoJSON: QuPath's or a stated name, the column that it comes from, digits after the point.

    What comes from POLYGON_AREA is no column: it is the area of the polygon as written, less its holes, in um2.
    """

    name: str
    column: str
    decimals: int


SHAPE_MEASUREMENTS = (
    Measurement("Area µm^2", POLYGON_AREA, 3),
    Measurement("Length µm", "perimeter_um", 3),
    Measurement("Circularity", "circularity", 4),
    Measurement("Solidity", "solidity", 4),
    Measurement("Max diameter µm", "max_diameter_um", 3),
    Measurement("Min diameter µm", "min_diameter_um", 3),
)
FULL_MEASUREMENTS = (
    *SHAPE_MEASUREMENTS,
    Measurement("Equivalent diameter µm", "equivalent_diameter_um", 3),
    Measurement("Major axis µm", "major_axis_um", 3),
    Measurement("Minor axis µm", "minor_axis_um", 3),
    Measurement("Eccentricity", "eccentricity", 4),
    Measurement("Orientation rad", "orientation_rad", 4),
    Measurement("Hematoxylin: Mean", "hematoxylin_od_mean", 4),
    Measurement("Hematoxylin: Std.Dev.", "hematoxylin_od_std", 4),
    Measurement("Hematoxylin: Min", "hematoxylin_od_min", 4),
    Measurement("Hematoxylin: Max", "hematoxylin_od_max", 4),
    Measurement("Eosin: Mean", "eosin_od_mean", 4),
    Measurement("Eosin: Std.Dev.", "eosin_od_std", 4),
    Measurement("Red: Mean", "red_mean", 2),
    Measurement("Green: Mean", "green_mean", 2),
    Measurement("Blue: Mean", "blue_mean", 2),
    Measurement("Nearest neighbour µm", "neighbour_distance_um", 3),
    Measurement("Neighbours within 50 µm", "neighbours_50um", 0),
    Measurement("Touches edge", "touches_edge", 0),
    Measurement("Is outlier", "is_outlier", 0),
    Measurement("In artefact", "in_artefact", 0),
    Measurement("Class probability", "class_prob", 4),
)
MEASUREMENTS: dict[Detail, tuple[Measurement, ...]] = {"shape": SHAPE_MEASUREMENTS, "full": FULL_MEASUREMENTS}


def classification(class_names: tuple[str, ...], index: int) -> dict[str, object]:
    """Return the classification object of a class: `A: B` is a derived class, which QuPath spells as a list."""
    levels = class_names[index].split(": ")
    if not all(level.strip() for level in levels):
        raise ValueError(f"class names must not be blank, got {class_names[index]!r}")
    colour = list(COLOURS[index % len(COLOURS)])
    return {"names": levels, "color": colour} if len(levels) > 1 else {"name": levels[0], "color": colour}


class GeoJsonWriter:
    """Write nuclei.geojson.gz nucleus by nucleus; the file appears when the `with` block ends without an error.

    Bytes depend on the nuclei only, not on how they were handed over. Memory does not grow with their number.
    """

    def __init__(
        self,
        path: Path,
        *,
        l0_mpp: tuple[float, float],
        detail: Detail = "shape",
        class_names: tuple[str, ...] = ("Nucleus",),
    ) -> None:
        """Prepare to write path; nothing is touched until the `with` block begins.

        Args:
            path: target, its name must end in .geojson.gz: QuPath goes by the name.
            l0_mpp: (x, y) micrometres per l0 px, for the polygons' areas.
            detail: which measurements are written, `MEASUREMENTS[detail]`.
            class_names: the segmenter's classes; a class's place decides its colour.
        """
        if not path.name.lower().endswith(".geojson.gz"):
            raise ValueError(f"name must end in .geojson.gz, or QuPath reads nothing from it: {path}")
        self._path = path
        self._px_um2 = l0_mpp[0] * l0_mpp[1]
        self._class_names = class_names
        self._measurements = MEASUREMENTS[detail]
        self._texts = feature_texts(
            [_compact(classification(class_names, i)) for i in range(len(class_names))],
            [_compact(measurement.name) for measurement in self._measurements],
            [measurement.decimals for measurement in self._measurements],
        )
        self._stack = ExitStack()
        self._pending = bytearray(HEAD)
        self._is_first = True

    def __enter__(self) -> Self:
        """Open the file beside its target."""
        partial = self._stack.enter_context(replacing(self._path))
        handle = self._stack.enter_context(partial.open("wb"))
        file = igzip.IGzipFile(filename="", mode="wb", compresslevel=GZIP_LEVEL, fileobj=handle, mtime=0)
        self._gzip = self._stack.enter_context(file)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Complete and rename the file, or remove it after an error."""
        if kind is None:
            self._pending += TAIL
            self._gzip.write(bytes(self._pending))
        return self._stack.__exit__(kind, error, trace)

    def write(self, outlines_l0: Outlines, table: pa.Table) -> None:
        """Append nuclei.

        Args:
            outlines_l0: their polygons, l0 px, valid after rounding to 0.01.
            table: one row per polygon: uuid, class_name and the columns of the measurements.

        Raises:
            ValueError: a polygon or value cannot be written so that QuPath takes it.
        """
        if table.num_rows != len(outlines_l0):
            raise ValueError(f"one polygon per row, got {len(outlines_l0)} polygons for {table.num_rows} rows")
        features = self._features(outlines_l0, table)
        for start in range(0, len(outlines_l0), _BATCH):
            self._emit(features, start, min(start + _BATCH, len(outlines_l0)))

    def _features(self, outlines: Outlines, table: pa.Table) -> Features:
        coords = grid_coords(outlines.coords)
        values = np.empty((table.num_rows, len(self._measurements)), dtype=np.float64)
        for k, measurement in enumerate(self._measurements):
            if measurement.column == POLYGON_AREA:
                areas = polygon_areas(coords / _GRID, outlines.ring_starts, outlines.polygon_starts)
                values[:, k] = areas * self._px_um2
            else:
                values[:, k] = table[measurement.column].cast(pa.float64()).to_numpy()  # null -> NaN
        if (np.abs(values[np.isfinite(values)]) > 1e12).any():
            raise ValueError("a measurement beyond 1e12 cannot be written with fixed decimals")
        return Features(
            coords,
            outlines.ring_starts,
            outlines.polygon_starts,
            _uuid_bytes(table["uuid"]),
            _class_index(table["class_name"], self._class_names),
            values,
        )

    def _emit(self, features: Features, start: int, stop: int) -> None:
        text = assemble(features, self._texts, start, stop, is_first=self._is_first)
        self._is_first = False
        self._pending += text.data
        full = len(self._pending) - len(self._pending) % _PIECE
        for at in range(0, full, _PIECE):
            self._gzip.write(bytes(self._pending[at : at + _PIECE]))
        del self._pending[:full]


def _compact(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def grid_coords(coords: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return l0 px as whole hundredths, (V, 2); raises ValueError where that is impossible."""
    if len(coords) and not np.abs(coords).max() < 1e9:  # also False for NaN
        raise ValueError("polygon coordinates must be finite and below 1e9 px")
    return np.rint(coords * _GRID).astype(np.int64)


def _uuid_bytes(column: pa.ChunkedArray) -> NDArray[np.uint8]:
    """Return (n, 36) characters."""
    joined = "".join(column.to_pylist()).encode()
    if len(joined) != 36 * len(column):
        raise ValueError("uuid must be 36 characters in every row")
    return np.frombuffer(joined, dtype=np.uint8).reshape(-1, 36).copy()


def _class_index(column: pa.ChunkedArray, class_names: tuple[str, ...]) -> NDArray[np.int64]:
    index = pc.index_in(column.cast(pa.string()), value_set=pa.array(class_names))
    if index.null_count:
        raise ValueError(f"class_name must be one of {class_names}, got others in {index.null_count} rows")
    return np.asarray(index.to_numpy(), dtype=np.int64)
