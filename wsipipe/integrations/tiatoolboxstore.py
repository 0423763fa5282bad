"""The nuclei of a slide as TIAToolbox's SQLite AnnotationStore, which its viewer TIAViz opens over the slide."""

import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from wsipipe.errors import UsageError
from wsipipe.integrations.tiatoolboximport import import_from_tiatoolbox

_OPTION = "--to annotation-store"
BATCH = 10_000  # nuclei in memory at a time
NAMES = {"class_name": "type", "class_prob": "prob"}  # what TIAViz colours by, and calls it so
_LEFT_OUT = ("uuid", "geometry")  # key and geometry of the annotation


def export(folder: Path, out: Path) -> None:
    """Write one annotation per nucleus: its polygon in level-0 px under its uuid, with every measurement.

    The properties are the columns of nuclei.parquet by their names, but for `type` (class_name) and `prob`
    (class_prob), which TIAViz expects; a value that is null in the table is left out.

    Args:
        folder: a finished slide folder.
        out: the SQLite file; its name must end in .db for TIAViz.

    Raises:
        MissingExtraError: TIAToolbox is not installed.
        UsageError: this Python's SQLite cannot do what TIAToolbox asks of it.
    """
    storage = import_from_tiatoolbox("tiatoolbox.annotation.storage", what=_OPTION)
    if not hasattr(sqlite3.Connection, "enable_load_extension"):
        raise UsageError(
            f"{_OPTION} needs a Python whose sqlite3 can load extensions; make the environment with another one, e.g. "
            f"Debian's or conda's: {sys.executable}"
        )
    store = storage.SQLiteStore(out)
    try:
        with pq.ParquetFile(folder / "nuclei.parquet") as source:
            for rows in source.iter_batches(batch_size=BATCH):
                annotations = [storage.Annotation(polygon, values) for polygon, values in _annotations(rows)]
                store.append_many(annotations, rows["uuid"].to_pylist())
    finally:
        store.close()


def _annotations(rows: pa.RecordBatch) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Yield polygon and properties of each nucleus."""
    names = [name for name in rows.schema.names if name not in _LEFT_OUT]
    polygons = shapely.from_wkb(rows["geometry"].to_numpy(zero_copy_only=False))
    for polygon, row in zip(polygons, rows.select(names).to_pylist(), strict=True):
        yield polygon, {NAMES.get(name, name): value for name, value in row.items() if value is not None}
