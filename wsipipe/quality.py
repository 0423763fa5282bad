"""Is what a slide shows fit to be measured: focus, pen marks, stain; flags for nuclei and for the slide.

Nothing is dropped: nuclei in poor places keep their rows and get `in_artefact`, the slide gets a line of text.

Places are cells: the core of each tile is cut into squares of about CELL_UM. The numbers below were measured on 122
annotated H&E images of four sets at 0.25 um/px (TNBC, MoNuSeg training images, GBM at 40x, CPM-15 at 40x): their sharp
cells have a focus of 0.24 and more (1 % quantiles of the sets 0.71, 0.30, 0.24, 0.75); a Gaussian blur of 1 um brings
99 % of the cells of every set below 0.12, one of 0.5 um to 0.10-0.29.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from wsipipe.atomic import replacing
from wsipipe.frames import WorkFrame
from wsipipe.grid import Box, Tile, TileGrid
from wsipipe.stain import QUPATH_HE, od_table, unmix
from wsipipe.tissue import MASK_MPP, find_ink

CELL_UM = 64.0  # side of a cell, about
FOCUS_MPP = 0.5  # um per px at which focus is judged: finer detail is mostly noise and JPEG blocks
MIN_FOCUS = 0.15  # below, a cell is out of focus
MIN_CONTRAST_OD = 0.03  # standard deviation of the mean OD; a flatter cell shows nothing whose focus could be judged
MIN_CELL_PX = 16  # a cell cut by the slide's edge to less than this, at FOCUS_MPP, is not judged
MAX_INK = 0.25  # share of a cell
# 1 % to 99 % range over the 122 images: stain of the mean colour (median over the nuclei), QuPath's H&E vectors
HEMATOXYLIN_RANGE = (0.11, 1.02)
EOSIN_RANGE = (0.07, 0.60)
# Shares from which on a slide is flagged
MAX_BLURRED = 0.20
MAX_INKED = 0.02
MAX_FLAGGED_NUCLEI = 0.10

CELL_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int32(), nullable=False),
        pa.field("col", pa.int32(), nullable=False),
        *(pa.field(f"{name}_l0", pa.float64(), nullable=False) for name in ("x0", "y0", "x1", "y1")),
        pa.field("focus", pa.float32()),
        pa.field("ink", pa.float32(), nullable=False),
        pa.field("in_artefact", pa.bool_(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class CellGrid:
    """Cells over the work grid; none crosses the border of a tile's core.

    Attributes:
        grid: the tiles.
        per_tile: cells along a side of a tile's core.
    """

    grid: TileGrid
    per_tile: int

    def box(self, row: int, col: int) -> Box:
        """Return a cell's px, cut at the edge of the work grid."""
        core, k = self.grid.core, self.per_tile
        x0, x1, y0, y1 = (index * core // k for index in (col, col + 1, row, row + 1))
        return Box(x0, y0, x1, y1).intersect(self.grid.whole)

    def of_tile(self, tile: Tile) -> list[tuple[int, int]]:
        """List the (row, col) of a tile's cells that have px on the work grid."""
        k = self.per_tile
        rows, cols = range(tile.row * k, (tile.row + 1) * k), range(tile.col * k, (tile.col + 1) * k)
        return [(row, col) for row in rows for col in cols if not self.box(row, col).is_empty]

    def find(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the number of the cell at work px (x, y); row-major over cells, one of the last if outside."""
        core, k = self.grid.core, self.per_tile
        n_cols, n_rows = self.grid.cols * k, self.grid.rows * k
        cols = np.clip(np.ceil((np.floor(x) + 1) * k / core).astype(np.int64) - 1, 0, n_cols - 1)
        rows = np.clip(np.ceil((np.floor(y) + 1) * k / core).astype(np.int64) - 1, 0, n_rows - 1)
        return rows * n_cols + cols


def cell_grid(grid: TileGrid, mpp: float) -> CellGrid:
    """Cut tiles into cells of about CELL_UM."""
    return CellGrid(grid, max(1, round(grid.core * mpp / CELL_UM)))


def measure_focus(rgb: NDArray[np.uint8], mpp: float, cells: list[Box]) -> NDArray[np.float32]:
    """Measure how sharp each cell is: mean squared Laplacian over mean squared gradient of the mean OD.

    The ratio does not depend on the amount of stain or tissue: it is the mean square of the spatial frequency, weighted
    by the energy of edges. Blur takes the high frequencies away.

    Args:
        rgb: uint8 (H, W, 3) of a tile's core.
        mpp: its micrometres per px.
        cells: px of rgb.

    Returns:
        float32 (len(cells),), about 0.2-2 where sharp; NaN where there is too little to judge.
    """
    factor = max(1.0, FOCUS_MPP / mpp)
    size = max(1, round(rgb.shape[1] / factor)), max(1, round(rgb.shape[0] / factor))
    small = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA) if factor > 1 else rgb, np.uint8)
    density = np.asarray(cv2.transform(cv2.LUT(small, od_table()), _MEAN_OF_CHANNELS), np.float32)
    laplacian = np.asarray(cv2.Laplacian(density, cv2.CV_32F), np.float32)
    across, down = (cv2.filter2D(density, cv2.CV_32F, kernel) for kernel in (_STEP, _STEP.T))
    energy = np.asarray(cv2.add(cv2.multiply(across, across), cv2.multiply(down, down)), np.float32)
    return np.array([_focus(density, laplacian, energy, _scaled(cell, rgb, small)) for cell in cells], np.float32)


_STEP = np.array([[-1.0, 0.0, 1.0]], np.float32)
_MEAN_OF_CHANNELS = np.full((1, 3), 1 / 3, np.float32)


def _scaled(cell: Box, rgb: NDArray[np.uint8], small: NDArray[np.uint8]) -> tuple[slice, slice]:
    y, x = small.shape[0] / rgb.shape[0], small.shape[1] / rgb.shape[1]
    return slice(round(cell.y0 * y), round(cell.y1 * y)), slice(round(cell.x0 * x), round(cell.x1 * x))


def _focus(
    density: NDArray[np.float32], laplacian: NDArray[np.float32], energy: NDArray[np.float32], at: tuple[slice, slice]
) -> float:
    if min(density[at].shape) < MIN_CELL_PX or density[at].std() < MIN_CONTRAST_OD:
        return math.nan
    edges = float(energy[at].mean())
    return float(np.square(laplacian[at]).mean()) / edges if edges > 0 else math.nan


def measure_ink(rgb: NDArray[np.uint8], mpp: float, cells: list[Box]) -> NDArray[np.float32]:
    """Measure the share of each cell that pen marks cover, judged at tissue.MASK_MPP; float32 (len(cells),)."""
    factor = max(1.0, MASK_MPP / mpp)
    size = max(1, round(rgb.shape[1] / factor)), max(1, round(rgb.shape[0] / factor))
    small = np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
    ink = find_ink(small)
    return np.array([_mean(ink[_scaled(cell, rgb, small)]) for cell in cells], np.float32)


def _mean(mask: NDArray[np.bool_]) -> float:
    return float(mask.mean()) if mask.size else 0.0


def measure_cells(
    rgb: NDArray[np.uint8], tiles: tuple[Tile, ...], window: Box, cells: CellGrid, frame: WorkFrame
) -> pa.Table:
    """Measure the cells of some tiles.

    Args:
        rgb: uint8 (H, W, 3) over window.
        tiles: their cores lie inside window.
        window: work px.
        cells: of the whole slide.
        frame: the work grid on the slide.

    Returns:
        A row of CELL_SCHEMA for each cell, tile by tile.
    """
    parts = [_tile_cells(np.ascontiguousarray(rgb[tile.core.slices(window)]), tile, cells, frame) for tile in tiles]
    return pa.concat_tables([CELL_SCHEMA.empty_table(), *parts])


def _tile_cells(rgb: NDArray[np.uint8], tile: Tile, cells: CellGrid, frame: WorkFrame) -> pa.Table:
    places = cells.of_tile(tile)
    boxes = [cells.box(row, col) for row, col in places]
    x, y = tile.core.x0, tile.core.y0
    inner = [Box(box.x0 - x, box.y0 - y, box.x1 - x, box.y1 - y) for box in boxes]
    focus, ink = measure_focus(rgb, frame.mpp, inner), measure_ink(rgb, frame.mpp, inner)
    scale = np.array([frame.scale_x, frame.scale_y] * 2)
    corners = np.array([(box.x0, box.y0, box.x1, box.y1) for box in boxes], np.float64).reshape(-1, 4) * scale
    with np.errstate(invalid="ignore"):
        poor = (focus < MIN_FOCUS) | (ink > MAX_INK)
    columns = [*np.array(places, np.int32).reshape(-1, 2).T, *corners.T, pa.array(focus, from_pandas=True), ink, poor]
    return pa.table([pa.array(values) for values in columns], schema=CELL_SCHEMA)


def write_cells(path: Path, table: pa.Table) -> None:
    """Write cells as parquet, whole or not at all."""
    with replacing(path) as partial:
        pq.write_table(table, partial, compression="zstd")


def read_cells(path: Path) -> pa.Table:
    """Read what `write_cells` wrote."""
    return pq.read_table(path, schema=CELL_SCHEMA)


def nuclei_in_artefacts(
    centroids_l0: NDArray[np.float64], table: pa.Table, cells: CellGrid, frame: WorkFrame
) -> NDArray[np.bool_]:
    """Tell which nuclei have their centroid in a cell that is out of focus or under ink.

    Args:
        centroids_l0: (n, 2) x, y, l0 px.
        table: the slide's cells; what is not in it counts as good.
        cells: their places.
        frame: the work grid on the slide.
    """
    k = cells.per_tile
    poor = np.zeros(cells.grid.rows * k * cells.grid.cols * k, np.bool_)
    bad = table.filter(table["in_artefact"])
    poor[bad["row"].to_numpy().astype(np.int64) * cells.grid.cols * k + bad["col"].to_numpy()] = True
    return np.asarray(poor[cells.find(centroids_l0[:, 0] / frame.scale_x, centroids_l0[:, 1] / frame.scale_y)])


@dataclass(frozen=True, slots=True)
class SlideQuality:
    """What the cells and nuclei of a slide say about it; None where there was nothing to judge.

    Attributes:
        cells: number of cells, all on tiles with tissue.
        focus_median: of the cells that could be judged.
        blurred_share: share of the judged cells below MIN_FOCUS.
        ink_share: share of the cells that pen marks cover by more than MAX_INK.
        flagged_nuclei_share: share of the nuclei with in_artefact.
        hematoxylin_od, eosin_od: stains of the median colour of the nuclei, QuPath's vectors.
    """

    cells: int
    focus_median: float | None
    blurred_share: float | None
    ink_share: float | None
    flagged_nuclei_share: float | None
    hematoxylin_od: float | None
    eosin_od: float | None

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, rounded to 4 decimals."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: round(v, 4) if isinstance(v, float) else v for name, v in values.items()}


def slide_quality(cells: pa.Table, in_artefact: NDArray[np.bool_], nuclei_rgb: NDArray[np.float32]) -> SlideQuality:
    """Sum up a slide.

    Args:
        cells: rows of CELL_SCHEMA.
        in_artefact: bool (n,) of the nuclei.
        nuclei_rgb: (n, 3) their mean colours.
    """
    focus = cells["focus"].drop_null().to_numpy()
    ink = cells["ink"].to_numpy()
    stain: tuple[float | None, float | None] = (None, None)
    if len(nuclei_rgb):
        colour = np.rint(np.median(nuclei_rgb, axis=0)).clip(0, 255).astype(np.uint8)
        hematoxylin, eosin, _ = unmix(colour[None], QUPATH_HE)[0]
        stain = float(hematoxylin), float(eosin)
    return SlideQuality(
        cells=cells.num_rows,
        focus_median=float(np.median(focus)) if len(focus) else None,
        blurred_share=float((focus < MIN_FOCUS).mean()) if len(focus) else None,
        ink_share=float((ink > MAX_INK).mean()) if len(ink) else None,
        flagged_nuclei_share=float(in_artefact.mean()) if len(in_artefact) else None,
        hematoxylin_od=stain[0],
        eosin_od=stain[1],
    )


def quality_flags(quality: SlideQuality) -> tuple[str, ...]:
    """Say in plain words what is odd; empty if nothing is."""
    found = []
    if (quality.blurred_share or 0) > MAX_BLURRED:
        found.append(
            f"{quality.blurred_share:.0%} of the tissue is out of focus; scan it again or leave these parts out"
        )
    if (quality.ink_share or 0) > MAX_INKED:
        found.append(f"pen marks cover {quality.ink_share:.0%} of the tissue; nuclei there are marked in_artefact")
    if (quality.flagged_nuclei_share or 0) > MAX_FLAGGED_NUCLEI:
        found.append(f"{quality.flagged_nuclei_share:.0%} of the nuclei lie out of focus or under ink (in_artefact)")
    for name, value, (low, high) in (
        ("hematoxylin", quality.hematoxylin_od, HEMATOXYLIN_RANGE),
        ("eosin", quality.eosin_od, EOSIN_RANGE),
    ):
        if value is not None and not low <= value <= high:
            how = "fainter" if value < low else "stronger"
            found.append(
                f"the {name} of the nuclei is {value:.2f} OD, {how} than in the annotated images that wsipipe was "
                f"tried on ({low:g}-{high:g}); compare a few nuclei by eye"
            )
    return tuple(found)
