"""A slide's nuclei as SpatialData: labels, shapes and a table that annotates them.

Coordinate systems: `global` is level-0 px of the slide, `micrometers` the same times the mpp. SpatialData puts the
corner of the first pixel at (0, 0), as we do, so that both are plain scales.
"""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from wsipipe.api import SlideResult, open_result
from wsipipe.integrations.nucleiarrays import make_anndata

if TYPE_CHECKING:
    from anndata import AnnData
    from geopandas import GeoDataFrame
    from spatialdata.transformations import Scale
    from xarray import DataTree

LABELS, SHAPES, TABLE = "nuclei_labels", "nuclei", "table"
CHUNK = 1024  # px; what one task of the writer holds


def export(folder: Path, out: Path) -> None:
    """Write a SpatialData zarr; labels are streamed, shapes and table are held: about 4 kB per nucleus.

    A slide without nuclei gets labels alone: SpatialData knows no empty shapes.

    Args:
        folder: a finished slide folder.
        out: the folder to write, named *.zarr.
    """
    from spatialdata import SpatialData

    result = open_result(folder)
    data = SpatialData(labels={LABELS: _labels(result)})
    if result.record.nuclei:
        data.shapes[SHAPES] = _shapes(result)
        data.tables[TABLE] = _table(result)
    with warnings.catch_warnings():  # announces a default of anndata's next version, nothing for our users to do
        warnings.filterwarnings("ignore", "zarr v3 autosharding")
        data.write(out)


def _systems(l0_per_px: tuple[float, float], l0_mpp: tuple[float, float]) -> "dict[str, Scale]":
    """Return the ways from an element's px, (x, y), to the coordinate systems."""
    from spatialdata.transformations import Scale

    um_per_px = [scale * mpp for scale, mpp in zip(l0_per_px, l0_mpp, strict=True)]
    axes = ("x", "y")
    return {"global": Scale(list(l0_per_px), axes=axes), "micrometers": Scale(um_per_px, axes=axes)}


def _labels(result: SlideResult) -> "DataTree":
    """Return the label pyramid as it is, lazily: SpatialData's own would lose small nuclei."""
    from spatialdata.models import Labels2DModel
    from spatialdata.transformations import set_transformation
    from xarray import DataTree

    levels = [level.rechunk((CHUNK, CHUNK)) for level in result.label_levels()]
    parsed = [Labels2DModel.parse(level, dims=("y", "x")) for level in levels]
    tree = DataTree.from_dict({f"scale{i}": level.to_dataset(name="image") for i, level in enumerate(parsed)})
    set_transformation(tree, _systems(result.record.scale, result.record.l0_mpp), set_all=True)
    return tree


def _shapes(result: SlideResult) -> "GeoDataFrame":
    """Return the polygons, indexed by label."""
    from geopandas import GeoDataFrame, read_parquet
    from spatialdata.models import ShapesModel

    nuclei = read_parquet(result.folder / "nuclei.parquet", columns=["label", "geometry"])
    shapes = GeoDataFrame(geometry=nuclei.geometry.to_numpy(), index=nuclei["label"].astype(int).rename(None))
    parsed: GeoDataFrame = ShapesModel.parse(shapes, transformations=_systems((1.0, 1.0), result.record.l0_mpp))
    return parsed


def _table(result: SlideResult) -> "AnnData":
    """Return one row per nucleus, linked to the shapes by `label`; the labels have the same ids."""
    import pandas as pd
    from spatialdata.models import TableModel

    table = make_anndata(result)
    table.obs["label"] = table.obs["label"].astype(int)
    table.obs["region"] = pd.Categorical([SHAPES] * table.n_obs)
    parsed: AnnData = TableModel.parse(table, region=SHAPES, region_key="region", instance_key="label")
    return parsed
