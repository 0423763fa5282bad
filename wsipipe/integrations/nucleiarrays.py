"""The nuclei of a slide as an AnnData: what anndata and SpatialData exports share."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wsipipe import __version__
from wsipipe.api import SlideResult

if TYPE_CHECKING:
    from anndata import AnnData

FORMAT_VERSION = 1
NOT_MEASURED = ("label", "class_prob", "centroid_x_l0", "centroid_y_l0")  # numbers that describe no property


def make_anndata(result: SlideResult) -> "AnnData":
    """Put the table of a slide into an AnnData.

    Returns:
        X: float32 (n, m), the measurements named by var_names; a value that is null in the table is NaN.
        obs: label, class_name, class_prob and the flags; obs_names are the uuids.
        obsm["spatial"]: float64 (n, 2), centroids x, y in level-0 px; obsm["spatial_um"]: the same in micrometres.
        uns["wsipipe"]: where the nuclei come from; "run_json" is the whole run.json as text.
    """
    import pandas as pd
    from anndata import AnnData

    with pq.ParquetFile(result.folder / "nuclei.parquet") as source:
        schema = source.schema_arrow
        measured = [field.name for field in schema if _is_measured(field)]
        others = [name for name in schema.names if name not in (*measured, "geometry")]
        rows = source.read(columns=others)
        x = _read_matrix(source, measured)
    centroids = np.stack([rows[f"centroid_{axis}_l0"].to_numpy() for axis in "xy"], axis=1)
    obs = rows.drop_columns(["centroid_x_l0", "centroid_y_l0", "uuid"]).to_pandas()
    obs.index = pd.Index(rows["uuid"].to_pylist(), dtype=object)
    obs["class_name"] = pd.Categorical(rows["class_name"].to_pylist())
    obsm = {"spatial": centroids, "spatial_um": centroids * np.asarray(result.record.l0_mpp)}
    return AnnData(
        X=x, obs=obs, var=pd.DataFrame(index=pd.Index(measured, dtype=object)), obsm=obsm, uns=_origin(result)
    )


def _is_measured(field: pa.Field) -> bool:
    is_number = pa.types.is_floating(field.type) or pa.types.is_integer(field.type)
    return is_number and field.name not in NOT_MEASURED


def _read_matrix(source: pq.ParquetFile, names: list[str]) -> Any:
    """Read columns as float32 (n, len(names)), one row group after the other."""
    x = np.empty((source.metadata.num_rows, len(names)), np.float32)
    at = 0
    for rows in source.iter_batches(columns=names):
        for i, name in enumerate(names):
            x[at : at + len(rows), i] = rows[name].to_numpy(zero_copy_only=False)
        at += len(rows)
    return x


def _origin(result: SlideResult) -> dict[str, Any]:
    values = result.record.provenance().to_json(FORMAT_VERSION)
    text = Path(result.folder / "run.json").read_text(encoding="utf-8")
    units = {"spatial": "level-0 px", "spatial_um": "micrometre"}
    return {"wsipipe": values | {"version": __version__, "obsm_units": units, "run_json": text}}
