"""labels.ome.zarr as one pyramidal OME-TIFF, for tools that read files and not folders (QuPath, Fiji, ASAP ...)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray

from wsipipe.api import open_result
from wsipipe.runrecord import RunRecord

FORMAT_VERSION = 1
TILE = 512  # px; the chunks of labels.ome.zarr, so that each is read once


def export(folder: Path, out: Path) -> None:
    """Write every level as it is, tile by tile: memory does not grow with the slide.

    uint32, 0 = background, deflate; physical pixel size in OME-XML and in the TIFF tags; BigTIFF.

    Args:
        folder: a finished slide folder.
        out: the file.
    """
    record = open_result(folder).record
    group = zarr.open_group(str(folder / "labels.ome.zarr"), mode="r")
    levels = [array for _, array in sorted(group.arrays(), key=lambda item: int(item[0]))]
    with tifffile.TiffWriter(out, bigtiff=True, ome=True) as tiff:
        for level, array in enumerate(levels):
            tiff.write(
                _tiles(array),
                shape=array.shape,
                dtype=np.uint32,
                tile=(TILE, TILE),
                photometric="minisblack",
                compression="zlib",
                maxworkers=1,
                resolution=tuple(1e4 / (mpp * 2**level) for mpp in record.work_mpp),
                resolutionunit="CENTIMETER",
                **_place(level, len(levels), record),
            )


def _place(level: int, n_levels: int, record: RunRecord) -> dict[str, Any]:
    """Return what makes level 0 an OME image and the others its sub-resolutions."""
    if level > 0:
        return {"subfiletype": 1, "metadata": None}
    mpp_x, mpp_y = record.work_mpp
    metadata = {
        "axes": "YX",
        "Name": f"nuclei of {Path(record.slide_path).name}",
        "Description": json.dumps({"wsipipe": record.provenance().to_json(FORMAT_VERSION)}),
        "PhysicalSizeX": mpp_x,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": mpp_y,
        "PhysicalSizeYUnit": "µm",
    }
    return {"subifds": n_levels - 1, "metadata": metadata}


def _tiles(array: "zarr.Array[Any]") -> Iterator[NDArray[np.uint32]]:
    """Read tiles in raster order; those at the right and bottom are cut at the edge."""
    height, width = array.shape
    for y in range(0, height, TILE):
        for x in range(0, width, TILE):
            yield np.asarray(array[y : y + TILE, x : x + TILE], np.uint32)
