"""A slide, its labels and its nuclei in napari; world coordinates are micrometres, (0, 0) is the slide's corner.

Nothing is loaded that is not on the screen: image and labels are lazy pyramids. Shapes are what makes napari slow, so
outlines are drawn for a region or for at most MAX_OUTLINES nuclei; beyond that the labels show them as contours.
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray
from PIL import Image

from wsipipe.api import SlideResult
from wsipipe.atomic import replacing
from wsipipe.errors import SlideError, SlideOpenError
from wsipipe.frames import WorkFrame
from wsipipe.grid import Box
from wsipipe.slide import Slide, open_slide

if TYPE_CHECKING:
    import napari
    import pandas as pd

MAX_OUTLINES = 10_000  # napari takes about 0.3 ms for each when the layer is made
CHUNK = 512  # px of the slide that are read at once
TOP_SIDE = 2048  # px; napari always loads the coarsest level whole
OUTLINE_PX = 1.0  # work px
SCREENSHOT_SIDE = 1200  # px, the longer side
WINDOW_SIDE = 700  # px that a region gets in a window that napari has just opened
YELLOW = "#ffe600"
UNITS = ("um", "um")

log = logging.getLogger(__name__)


def open_slide_of(result: SlideResult, path: Path | None) -> Slide:
    """Open the slide that a result comes from.

    Args:
        result: a finished slide.
        path: where it lies now; None: where the run found it.

    Raises:
        SlideError: there is no slide, or it is another one.
    """
    at = path or Path(result.record.slide_path)
    if not at.exists():
        raise SlideOpenError(f"slide does not lie here; pass its place with --slide: {at}")
    slide = open_slide(at, mpp=result.record.l0_mpp[0])
    if slide.identity != result.record.slide_key:
        slide.close()
        raise SlideError(f"slide is not the one that these nuclei come from ({result.record.slide_path}): {at}")
    return slide


def slide_levels(slide: Slide) -> list[da.Array]:
    """Return the slide as a lazy pyramid, finest first: uint8 (H, W, 3).

    Levels are the slide's own; if the coarsest is larger than TOP_SIDE, coarser ones are made while they are read.
    """
    downsamples = sorted({float(downsample) for downsample in slide.downsamples})
    while max(slide.width, slide.height) / downsamples[-1] > TOP_SIDE:
        downsamples.append(downsamples[-1] * 2)
    return [_lazy_level(slide, downsample) for downsample in downsamples]


def _lazy_level(slide: Slide, downsample: float) -> da.Array:
    frame = WorkFrame(slide.width, slide.height, slide.mpp.x, slide.mpp.y, downsample, downsample)

    def read(block_info: Any = None) -> NDArray[np.uint8]:
        (y0, y1), (x0, x1), _ = block_info[None]["array-location"]
        return slide.read(Box(x0, y0, x1, y1), frame)

    shape = (frame.height, frame.width, 3)
    chunks = da.core.normalize_chunks((CHUNK, CHUNK, 3), shape=shape, dtype=np.uint8)
    name = f"slide-{slide.identity}-{downsample}"  # a name of ours: Dask must not look into the open slide for one
    level: da.Array = da.map_blocks(read, chunks=chunks, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8), name=name)
    return level


def select_nuclei(result: SlideResult, region_l0: Box | None) -> pa.Table:
    """Return the rows whose outlines are to be drawn.

    Args:
        result: a finished slide.
        region_l0: only nuclei whose centroids lie in it; None: all, if they are not more than MAX_OUTLINES.

    Returns:
        At most MAX_OUTLINES rows of nuclei.parquet, those with the lowest labels; none if there are more and no region
        was asked for.
    """
    rows = result.table
    if region_l0 is not None:
        x, y = rows["centroid_x_l0"], rows["centroid_y_l0"]
        inside = [pc.greater_equal(x, region_l0.x0), pc.less(x, region_l0.x1)]
        inside += [pc.greater_equal(y, region_l0.y0), pc.less(y, region_l0.y1)]
        rows = rows.filter(pc.and_(pc.and_(*inside[:2]), pc.and_(*inside[2:])))
    if rows.num_rows <= MAX_OUTLINES:
        return rows
    advice = f"outlines are drawn for at most {MAX_OUTLINES} nuclei, here are {rows.num_rows}"
    log.warning("%s; the labels show all of them; --region draws a smaller part", advice)
    return rows.slice(0, 0 if region_l0 is None else MAX_OUTLINES)


def fill_viewer(viewer: "napari.Viewer", result: SlideResult, slide: Slide, region_l0: Box | None) -> None:
    """Add the layers slide, labels and, where they are not too many, outlines."""
    drawn = select_nuclei(result, region_l0)
    l0_mpp = np.asarray(result.record.l0_mpp)[::-1]  # (y, x)
    viewer.add_image(**_pyramid(slide_levels(slide)), name="slide", rgb=True, **_place(l0_mpp))
    labels = viewer.add_labels(
        **_pyramid(result.label_levels()),
        name="labels",
        features=_features(result.table, index="label"),
        **_place(np.asarray(result.record.work_mpp)[::-1]),
    )
    if drawn.num_rows:
        labels.opacity = 0.3
        _add_outlines(viewer, drawn, l0_mpp, width=OUTLINE_PX * result.record.scale[0])
    else:
        labels.contour = 1
    viewer.scale_bar.visible = True


def _pyramid(levels: list[da.Array]) -> dict[str, Any]:
    """Name the levels as napari wants them: a single one is no pyramid."""
    return {"data": levels if len(levels) > 1 else levels[0], "multiscale": len(levels) > 1}


def _place(um_per_px: NDArray[np.float64]) -> dict[str, Any]:
    """Place pixels, (y, x): napari counts from the centre of the first pixel, we from its corner."""
    return {"scale": um_per_px, "translate": um_per_px / 2, "units": UNITS}


def _add_outlines(viewer: "napari.Viewer", rows: pa.Table, l0_mpp: NDArray[np.float64], *, width: float) -> None:
    """Add the polygons, whose coordinates count from the slide's corner; width: level-0 px of the line."""
    viewer.add_shapes(
        _exteriors(rows),
        shape_type="path",  # 20 times faster than polygons, whose faces napari triangulates even if nothing fills them
        name="outlines",
        features=_features(rows),
        edge_color=YELLOW,
        edge_width=width,
        scale=l0_mpp,
        units=UNITS,
    )


def _exteriors(rows: pa.Table) -> list[NDArray[np.float64]]:
    """Return the outer rings, level-0 px, (y, x); napari's shapes have no holes."""
    rings = shapely.get_exterior_ring(shapely.from_wkb(rows["geometry"].to_numpy()))
    coordinates, owner = shapely.get_coordinates(rings, return_index=True)
    return np.split(coordinates[:, ::-1], np.flatnonzero(np.diff(owner)) + 1)


def _features(rows: pa.Table, index: str | None = None) -> "pd.DataFrame":
    """Return every column but the polygons; napari finds the row of a label by the column `index`."""
    table = rows.drop_columns(["geometry"])
    if index is not None:
        table = table.append_column("index", table[index])
    return table.to_pandas()


def look_at(viewer: "napari.Viewer", region_l0: Box, l0_mpp: tuple[float, float], size: tuple[int, int]) -> None:
    """Move the camera so that a region fills a canvas of size (height, width) px."""
    x_um, y_um = ((region_l0.x0 + region_l0.x1) / 2 * l0_mpp[0], (region_l0.y0 + region_l0.y1) / 2 * l0_mpp[1])
    viewer.camera.center = (0, y_um, x_um)
    viewer.camera.zoom = min(size[0] / (region_l0.height * l0_mpp[1]), size[1] / (region_l0.width * l0_mpp[0]))


def canvas_size(region_l0: Box, l0_mpp: tuple[float, float], side: int) -> tuple[int, int]:
    """Return the (height, width) of a picture of a region, side px along the longer side."""
    height, width = region_l0.height * l0_mpp[1], region_l0.width * l0_mpp[0]
    scale = side / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def view(result: SlideResult, slide: Slide, region_l0: Box | None, screenshot: Path | None) -> None:
    """Open napari and wait until its window is closed, or write a picture.

    Args:
        result: a finished slide.
        slide: its slide.
        region_l0: what to look at and to draw outlines in, level-0 px; None: the whole slide.
        screenshot: PNG to write instead of waiting.
    """
    import napari

    viewer = napari.Viewer(title=f"wsipipe: {result.folder.name}")
    fill_viewer(viewer, result, slide, region_l0)
    box, l0_mpp = region_l0 or Box(0, 0, slide.width, slide.height), result.record.l0_mpp
    if screenshot is None:
        look_at(viewer, box, l0_mpp, canvas_size(box, l0_mpp, WINDOW_SIDE))
        napari.run()
        return
    size = canvas_size(box, l0_mpp, SCREENSHOT_SIDE)
    look_at(viewer, box, l0_mpp, size)
    with replacing(screenshot) as partial:
        Image.fromarray(viewer.screenshot(size=size, canvas_only=True, flash=False)).save(partial, format="png")
    viewer.close()
