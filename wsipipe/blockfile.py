"""The nuclei of one block as one file: written whole or not at all, checked when read, read in part.

A file is a zip archive of three Arrow streams, stored (Arrow compresses): `table.arrow`, `runs.arrow` and
`outlines.arrow`. The archive's CRC-32 of each part is what tells a damaged file from a good one. Equal nuclei give
equal bytes: no time, name or machine goes in.
"""

import json
import zipfile
import zlib
from pathlib import Path
from zipfile import ZipFile, ZipInfo

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from wsipipe.atomic import replacing
from wsipipe.errors import BlockFileError
from wsipipe.grid import Box
from wsipipe.nuclei import BlockNuclei, Outlines, Runs

FORMAT_VERSION = 1
_TABLE, _RUNS, _OUTLINES = "table.arrow", "runs.arrow", "outlines.arrow"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip archive can hold
_OPTIONS = pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", compression_level=1))
_DAMAGE = (zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError, NotImplementedError, pa.ArrowException)


def write_block(path: Path, nuclei: BlockNuclei) -> None:
    """Write the nuclei of one block.

    Args:
        path: target; its folder must exist.
        nuclei: frames as in `BlockNuclei`; kept exactly.
    """
    window = nuclei.window
    head = {"format_version": FORMAT_VERSION, "window": [window.x0, window.y0, window.x1, window.y1]}
    table = nuclei.table.replace_schema_metadata({"wsipipe": json.dumps(head)})
    runs = nuclei.runs
    columns = {"row": runs.row, "x0": runs.x0, "x1": runs.x1, "label": runs.label}
    with replacing(path) as partial, ZipFile(partial, "w") as archive:
        _put(archive, _TABLE, table.combine_chunks())
        _put(archive, _RUNS, pa.table({name: pa.array(values, pa.int32()) for name, values in columns.items()}))
        _put(archive, _OUTLINES, pa.table({"polygon": _to_arrow(nuclei.outlines)}))


def read_block(path: Path) -> BlockNuclei:
    """Read everything about one block.

    Raises:
        BlockFileError: the file is missing, damaged or of another format; the block must be extracted again.
    """
    table = _get(path, _TABLE)
    try:
        head = json.loads((table.schema.metadata or {})[b"wsipipe"])
        if head["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format_version must be {FORMAT_VERSION}, got {head['format_version']}")
        window = Box(*head["window"])
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error
    return BlockNuclei(window, read_block_runs(path), read_block_outlines(path), table.replace_schema_metadata(None))


def read_block_table(path: Path) -> pa.Table:
    """Read only the measurements of one block; row i is local label i + 1.

    Raises:
        BlockFileError: as `read_block`.
    """
    return _get(path, _TABLE).replace_schema_metadata(None)


def read_block_runs(path: Path) -> Runs:
    """Read only the pixels of one block, work px.

    Raises:
        BlockFileError: as `read_block`.
    """
    table = _get(path, _RUNS)
    row, x0, x1, label = (_int32(table, name) for name in ("row", "x0", "x1", "label"))
    return Runs(row, x0, x1, label)


def read_block_outlines(path: Path) -> Outlines:
    """Read only the polygons of one block, work px.

    Raises:
        BlockFileError: as `read_block`.
    """
    polygons = _get(path, _OUTLINES)["polygon"].combine_chunks()
    rings = polygons.values
    coords = np.ascontiguousarray(rings.values.values.to_numpy(zero_copy_only=True).reshape(-1, 2))
    return Outlines(coords, rings.offsets.to_numpy().astype(np.int64), polygons.offsets.to_numpy().astype(np.int64))


def _to_arrow(outlines: Outlines) -> pa.ListArray:
    """Nest the ragged arrays as list<list<fixed_size_list<double, 2>>>, the layout of GeoArrow polygons."""
    points = pa.FixedSizeListArray.from_arrays(pa.array(outlines.coords.reshape(-1), pa.float64()), 2)
    rings = pa.ListArray.from_arrays(pa.array(outlines.ring_starts, pa.int32()), points)
    return pa.ListArray.from_arrays(pa.array(outlines.polygon_starts, pa.int32()), rings)


def _put(archive: ZipFile, name: str, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=_OPTIONS) as stream:
        stream.write_table(table)
    archive.writestr(ZipInfo(name, _EPOCH), sink.getvalue().to_pybytes())


def _get(path: Path, name: str) -> pa.Table:
    try:
        with ZipFile(path) as archive:
            data = archive.read(name)
        return pa.ipc.open_stream(data).read_all().combine_chunks()
    except FileNotFoundError as error:
        raise BlockFileError(f"block file is missing; the same command extracts it again: {path}") from error
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def _int32(table: pa.Table, name: str) -> NDArray[np.int32]:
    return np.asarray(table[name].to_numpy(), dtype=np.int32)


def _damaged(path: Path, error: Exception) -> BlockFileError:
    return BlockFileError(f"block file is damaged ({error}); delete it and the same command extracts it again: {path}")
