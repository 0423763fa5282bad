"""The values that stand for nuclei between extraction and the writers."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from wsipipe.grid import Box


@dataclass(frozen=True, slots=True)
class Outlines:
    """Polygons as ragged arrays; ring k of all rings is coords[ring_starts[k]:ring_starts[k + 1]].

    Attributes:
        coords: float64 (V, 2), columns x, y, in the frame that the producer states; every ring closed, first == last.
        ring_starts: int64 (R + 1,).
        polygon_starts: int64 (N + 1,): polygon i has rings polygon_starts[i]..polygon_starts[i + 1], the exterior
            first (counter-clockwise as `shapely.LinearRing.is_ccw` says), then its holes (clockwise).
    """

    coords: NDArray[np.float64]
    ring_starts: NDArray[np.int64]
    polygon_starts: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of polygons."""
        return len(self.polygon_starts) - 1


@dataclass(frozen=True, slots=True)
class Runs:
    """Pixels of instances as horizontal runs [x0, x1) of one row, work px; sorted by (label, row, x0)."""

    row: NDArray[np.int32]
    x0: NDArray[np.int32]
    x1: NDArray[np.int32]
    label: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class BlockNuclei:
    """Everything about the n nuclei that one block owns; local labels are 1..n in raster order of their first pixel.

    Attributes:
        window: work px that were looked at.
        runs: their pixels, work px.
        outlines: their polygons, work px.
        table: n rows, the columns of `measure.BLOCK_SCHEMA`, row i = local label i + 1.
    """

    window: Box
    runs: Runs
    outlines: Outlines
    table: pa.Table

    def __len__(self) -> int:
        """Return the number of nuclei."""
        return int(self.table.num_rows)
