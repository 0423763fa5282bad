"""nuclei.parquet as CSV, for everything that reads nothing else."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import shapely
from isal import igzip

from wsipipe.geojson import GZIP_LEVEL


def export(folder: Path, out: Path) -> None:
    """Write every column but the polygons: numbers as short as they can be read back exactly, null as nothing.

    Args:
        folder: a finished slide folder.
        out: the file; gzip if its name ends in .gz.
    """
    _write(folder, out, with_geometry=False)


def export_with_geometry(folder: Path, out: Path) -> None:
    """Write every column, the polygons as WKT in level-0 px."""
    _write(folder, out, with_geometry=True)


def _write(folder: Path, out: Path, *, with_geometry: bool) -> None:
    """Write row group by row group: memory does not grow with the number of nuclei."""
    with pq.ParquetFile(folder / "nuclei.parquet") as source, _open(out) as sink:
        names = [name for name in source.schema_arrow.names if with_geometry or name != "geometry"]
        empty = _as_text(source.schema_arrow.empty_table().select(names))
        with pacsv.CSVWriter(sink, empty.schema) as writer:
            for group in range(source.num_row_groups):
                writer.write_table(_as_text(source.read_row_group(group, columns=names)))


def _as_text(rows: pa.Table) -> pa.Table:
    """Turn the polygons into WKT, rounded to the 0.01 px that they have."""
    if "geometry" not in rows.column_names:
        return rows
    polygons = shapely.from_wkb(rows["geometry"].to_numpy())
    at = rows.column_names.index("geometry")
    return rows.set_column(at, "geometry", pa.array(shapely.to_wkt(polygons, rounding_precision=2), pa.string()))


@contextmanager
def _open(out: Path) -> Iterator[IO[bytes] | igzip.IGzipFile]:
    if out.name.endswith(".gz"):
        # no name and no time inside: equal nuclei give equal bytes
        with (
            out.open("wb") as file,
            igzip.IGzipFile(filename="", mode="wb", compresslevel=GZIP_LEVEL, fileobj=file, mtime=0) as sink,
        ):
            yield sink
    else:
        with out.open("wb") as sink:
            yield sink
