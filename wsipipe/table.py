"""nuclei.parquet: one row per nucleus, GeoParquet 1.1, streamed in row groups; equal nuclei give equal bytes.

docs/columns.md says what each column means.
"""

import hashlib
import json
import uuid
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numba import njit
from numpy.typing import NDArray

from wsipipe.atomic import replacing
from wsipipe.measure import BLOCK_SCHEMA
from wsipipe.nuclei import Outlines
from wsipipe.provenance import Provenance, provenance_text

FORMAT_VERSION = 1
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://pypi.org/project/wsipipe/#nucleus")
ROW_GROUP = 32_768  # rows; about 20 MB while it is assembled
MAY_BE_NULL = ("class_prob", "neighbour_distance_um")  # unclassified; no other nucleus on the slide

# What is measured inside a block comes first, in its order; then what only the whole slide tells.
SCHEMA = pa.schema(
    [
        pa.field("label", pa.uint32(), nullable=False),
        pa.field("uuid", pa.string(), nullable=False),
        *(field for field in BLOCK_SCHEMA if field.name != "touches_edge"),
        pa.field("neighbour_distance_um", pa.float32()),
        pa.field("neighbours_50um", pa.int32(), nullable=False),
        BLOCK_SCHEMA.field("touches_edge"),
        pa.field("is_outlier", pa.bool_(), nullable=False),
        pa.field("in_artefact", pa.bool_(), nullable=False),
        pa.field("geometry", pa.binary(), nullable=False),
    ]
)


def nucleus_uuids(slide_key: str, first_label: int, n: int) -> pa.StringArray:
    """Name n nuclei: uuid5(uuid5(NAMESPACE, slide_key), str(label)), labels first_label .. first_label + n - 1.

    Returns:
        n canonical texts of 36 characters, as `str(uuid.UUID)` writes them.
    """
    start = hashlib.sha1(uuid.uuid5(NAMESPACE, slide_key).bytes, usedforsecurity=False)
    digests = bytearray()
    for label in range(first_label, first_label + n):
        name = start.copy()
        name.update(b"%d" % label)
        digests += name.digest()
    raw = np.frombuffer(bytes(digests), dtype=np.uint8).reshape(n, 20)[:, :16].copy()
    raw[:, 6] = raw[:, 6] & 0x0F | 0x50  # version 5, RFC 9562 section 5.5
    raw[:, 8] = raw[:, 8] & 0x3F | 0x80  # variant, RFC 9562 section 4.1
    offsets = np.arange(0, 36 * n + 1, 36, dtype=np.int32)
    return pa.StringArray.from_buffers(n, pa.py_buffer(offsets), pa.py_buffer(_hex_text(raw)))


def _hex_text(raw: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Spell (n, 16) bytes as (n, 36) ASCII characters in groups of 8-4-4-4-12."""
    digits = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)
    hexes = np.stack([digits[raw >> 4], digits[raw & 15]], axis=2).reshape(len(raw), 32)  # (n, 16, 2) -> (n, 32)
    dash = np.full((len(raw), 1), ord("-"), dtype=np.uint8)
    cuts = (0, 8, 12, 16, 20, 32)
    groups = [hexes[:, a:b] for a, b in pairwise(cuts)]
    return np.ascontiguousarray(np.hstack([part for group in groups for part in (group, dash)][:-1]))


class NucleiTableWriter:
    """Write nuclei.parquet row group by row group; the file appears when the `with` block ends without an error.

    Bytes depend on the rows only, not on how they were handed over.
    """

    def __init__(self, path: Path, provenance: Provenance) -> None:
        """Prepare to write path; nothing is touched until the `with` block begins."""
        self._path = path
        self._provenance = provenance
        self._stack = ExitStack()
        self._pending: list[pa.Table] = []
        self._rows = 0
        self._bounds = np.array([np.inf, np.inf, -np.inf, -np.inf])

    def __enter__(self) -> Self:
        """Open the file beside its target."""
        partial = self._stack.enter_context(replacing(self._path))
        names = [name for name in SCHEMA.names if name not in ("geometry", "uuid")]
        options = {"compression": "zstd", "compression_level": 3, "write_statistics": names}
        self._writer = self._stack.enter_context(
            pq.ParquetWriter(partial, _WITH_GEO, use_dictionary=["class_name"], **options)
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Complete and rename the file, or remove it after an error."""
        if kind is None:
            self._flush(everything=True)
            text = {"geo": self._geo(), "wsipipe": provenance_text(self._provenance, FORMAT_VERSION)}
            self._writer.add_key_value_metadata(text)
        return self._stack.__exit__(kind, error, trace)

    def write(self, outlines_l0: Outlines, table: pa.Table) -> None:
        """Append nuclei.

        Args:
            outlines_l0: their polygons, l0 px, rounded to 0.01.
            table: one row per polygon, all columns of SCHEMA but geometry, in any order; others are dropped.

        Raises:
            ValueError: a column is missing, or rows and polygons differ in number.
        """
        if table.num_rows != len(outlines_l0):
            raise ValueError(f"one polygon per row, got {len(outlines_l0)} polygons for {table.num_rows} rows")
        rows = final_columns(table, SCHEMA.names[:-1]).append_column(SCHEMA.field("geometry"), to_wkb(outlines_l0))
        self._rows += len(rows)
        if len(outlines_l0.coords):
            low, high = outlines_l0.coords.min(axis=0), outlines_l0.coords.max(axis=0)
            self._bounds[:2] = np.minimum(self._bounds[:2], low)
            self._bounds[2:] = np.maximum(self._bounds[2:], high)
        self._pending.append(rows)
        self._flush(everything=False)

    def _flush(self, *, everything: bool) -> None:
        held = sum(len(rows) for rows in self._pending)
        if held < ROW_GROUP and not (everything and held):
            return
        rows = pa.concat_tables(self._pending)
        stop = held if everything else held - held % ROW_GROUP
        for start in range(0, stop, ROW_GROUP):
            group = rows.slice(start, min(ROW_GROUP, stop - start)).combine_chunks()
            self._writer.write_table(group, row_group_size=ROW_GROUP)
        self._pending = [rows.slice(stop).combine_chunks()] if stop < held else []

    def _geo(self) -> str:
        if not self._rows:
            return _geo_text()
        return _geo_text(geometry_types=["Polygon"], bbox=[float(value) for value in self._bounds])


def _geo_text(**known: object) -> str:
    """Return the `geo` metadata of GeoParquet 1.1; crs null: coordinates are pixels, not places on Earth."""
    column: dict[str, object] = {
        "encoding": "WKB",
        "geometry_types": [],
        "crs": None,
        "orientation": "counterclockwise",
        "edges": "planar",
    }
    return json.dumps({"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column | known}})


# Of a dataset of many files geopandas sees the Arrow schema only, so it carries what is true of every file.
_WITH_GEO = SCHEMA.with_metadata({"geo": _geo_text()})


def final_columns(table: pa.Table, names: list[str]) -> pa.Table:
    """Select columns in the order of names with the types of SCHEMA; NaN becomes null where SCHEMA allows it.

    Raises:
        ValueError: a column is missing.
    """
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise ValueError(f"table must hold the column(s) {', '.join(missing)}, got {', '.join(table.column_names)}")
    columns = [table[name].cast(SCHEMA.field(name).type) for name in names]
    for i, name in enumerate(names):
        if name in MAY_BE_NULL:
            columns[i] = pa.chunked_array([pa.array(columns[i].to_numpy(), pa.float32(), from_pandas=True)])
    return pa.Table.from_arrays(columns, schema=pa.schema([SCHEMA.field(name) for name in names]))


def read_nuclei(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read nuclei.parquet, or some of its columns."""
    return pq.read_table(path, columns=columns)


def to_wkb(outlines: Outlines) -> pa.BinaryArray:
    """Return polygons as little-endian WKB (OGC 06-103r4, section 8): no SRID, x and y only."""
    n = len(outlines)
    rings = np.diff(outlines.polygon_starts)
    first = outlines.ring_starts[outlines.polygon_starts]
    sizes = 9 + 4 * rings + 16 * np.diff(first)
    offsets = np.zeros(n + 1, dtype=np.int64)
    np.cumsum(sizes, out=offsets[1:])
    if offsets[-1] > np.iinfo(np.int32).max:
        raise ValueError(f"polygons of one call must stay below 2 GiB of WKB, got {offsets[-1]} bytes")
    coords = np.ascontiguousarray(outlines.coords, dtype="<f8").reshape(-1).view(np.uint8)
    data = np.empty(int(offsets[-1]), dtype=np.uint8)
    _fill_wkb(coords, outlines.ring_starts, outlines.polygon_starts, offsets, data)
    return pa.BinaryArray.from_buffers(
        pa.binary(), n, [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(data)]
    )


@njit(cache=True, nogil=True)
def _put_uint32(data: NDArray[np.uint8], at: int, value: int) -> int:
    for k in range(4):
        data[at + k] = (value >> (8 * k)) & 0xFF
    return at + 4


@njit(cache=True, nogil=True)
def _fill_wkb(
    coords: NDArray[np.uint8],
    ring_starts: NDArray[np.int64],
    polygon_starts: NDArray[np.int64],
    offsets: NDArray[np.int64],
    data: NDArray[np.uint8],
) -> None:
    """Write polygon i to data[offsets[i]:offsets[i + 1]]; coords are the bytes of (V, 2) float64."""
    for i in range(len(polygon_starts) - 1):
        at = offsets[i]
        data[at] = 1  # little-endian
        at = _put_uint32(data, at + 1, 3)  # Polygon
        at = _put_uint32(data, at, polygon_starts[i + 1] - polygon_starts[i])
        for ring in range(polygon_starts[i], polygon_starts[i + 1]):
            at = _put_uint32(data, at, ring_starts[ring + 1] - ring_starts[ring])
            for k in range(16 * ring_starts[ring], 16 * ring_starts[ring + 1]):
                data[at] = coords[k]
                at += 1
