"""Work-grid rectangles: each pixel has one owning tile, each tile sees a halo of context.

Everything here is integer work px (the slide resampled to the model's mpp); `frames` converts to level-0 px.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Box:
    """Half-open rectangle: columns x0..x1, rows y0..y1. May reach beyond the slide; may be empty."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def width(self) -> int:
        """Columns, >= 0."""
        return max(0, self.x1 - self.x0)

    @property
    def height(self) -> int:
        """Rows, >= 0."""
        return max(0, self.y1 - self.y0)

    @property
    def is_empty(self) -> bool:
        """Whether no pixel lies inside."""
        return self.x1 <= self.x0 or self.y1 <= self.y0

    def intersect(self, other: "Box") -> "Box":
        """Return the common part; empty (is_empty) when there is none."""
        return Box(max(self.x0, other.x0), max(self.y0, other.y0), min(self.x1, other.x1), min(self.y1, other.y1))

    def contains(self, other: "Box") -> bool:
        """Whether every pixel of other lies inside."""
        return self.x0 <= other.x0 and self.y0 <= other.y0 and other.x1 <= self.x1 and other.y1 <= self.y1

    def slices(self, origin: "Box") -> tuple[slice, slice]:
        """Index an (H, W) array that covers origin with the part covered by self: (rows, columns)."""
        return (
            slice(self.y0 - origin.y0, self.y1 - origin.y0),
            slice(self.x0 - origin.x0, self.x1 - origin.x0),
        )


@dataclass(frozen=True, slots=True)
class Sides:
    """For each side of a window, whether it lies on the edge of the map, so that nothing exists beyond it."""

    left: bool
    top: bool
    right: bool
    bottom: bool


ALL_SIDES = Sides(left=True, top=True, right=True, bottom=True)


def sides_of(window: Box, *, width: int, height: int) -> Sides:
    """Tell which sides of a window lie on the edge of a width x height map."""
    return Sides(window.x0 <= 0, window.y0 <= 0, window.x1 >= width, window.y1 >= height)


def grow(core: Box, halo: int, *, width: int, height: int) -> Box:
    """Add halo px on every side, cut at the edge of a width x height grid."""
    if halo < 0:
        raise ValueError(f"halo must be >= 0 px, got {halo}")
    x0, y0 = max(0, core.x0 - halo), max(0, core.y0 - halo)
    return Box(x0, y0, min(width, core.x1 + halo), min(height, core.y1 + halo))


@dataclass(frozen=True, slots=True)
class Tile:
    """One model input. core: owned px, cut at the slide's edge; read: side x side px around it, may reach outside."""

    row: int
    col: int
    core: Box
    read: Box


@dataclass(frozen=True, slots=True)
class Block:
    """Tiles that one task infers and extracts. core: the owned px of all its grid cells, tissue or not."""

    index: int
    core: Box
    tiles: tuple[Tile, ...]


@dataclass(frozen=True, slots=True)
class TileGrid:
    """Tiles and blocks over a width x height work grid.

    side: model input side; halo: context on each side of a core; block_tiles: tiles along one side of a block.
    """

    width: int
    height: int
    side: int = 1024
    halo: int = 64
    block_tiles: int = 4

    def __post_init__(self) -> None:
        """Refuse sizes that leave a tile without a core."""
        if min(self.width, self.height) < 1:
            raise ValueError(f"grid must be at least 1 x 1 px, got {self.width} x {self.height}")
        if self.halo < 0 or self.side <= 2 * self.halo:
            raise ValueError(f"halo must be >= 0 and < side / 2, got halo {self.halo}, side {self.side}")
        if self.block_tiles < 1:
            raise ValueError(f"block_tiles must be >= 1, got {self.block_tiles}")

    @property
    def core(self) -> int:
        """Side of a tile's core in px, also the stride between tiles."""
        return self.side - 2 * self.halo

    @property
    def rows(self) -> int:
        """Number of tile rows."""
        return -(-self.height // self.core)

    @property
    def cols(self) -> int:
        """Number of tile columns."""
        return -(-self.width // self.core)

    @property
    def whole(self) -> Box:
        """The full grid as a box."""
        return Box(0, 0, self.width, self.height)

    def block_indices(self, window: Box) -> Iterator[int]:
        """Return the indices of the blocks whose core meets a window, tissue or not, in raster order."""
        size = self.block_tiles * self.core
        inside = window.intersect(self.whole)
        if inside.is_empty:
            return
        per_row = -(-self.cols // self.block_tiles)
        for row in range(inside.y0 // size, -(-inside.y1 // size)):
            for col in range(inside.x0 // size, -(-inside.x1 // size)):
                yield row * per_row + col

    def tile(self, row: int, col: int) -> Tile:
        """Return the tile at grid position (row, col)."""
        x, y = col * self.core, row * self.core
        core = Box(x, y, x + self.core, y + self.core).intersect(self.whole)
        read = Box(x - self.halo, y - self.halo, x - self.halo + self.side, y - self.halo + self.side)
        return Tile(row, col, core, read)


def plan_blocks(grid: TileGrid, has_tissue: NDArray[np.bool_]) -> list[Block]:
    """List the blocks that hold tissue, in raster order.

    Args:
        grid: the tile grid.
        has_tissue: bool (grid.rows, grid.cols), True for tiles to infer.

    Returns:
        Blocks with at least one tile; index counts all blocks of the grid in raster order, empty ones included,
        so that it does not depend on the mask.
    """
    if has_tissue.shape != (grid.rows, grid.cols):
        raise ValueError(f"has_tissue must be {(grid.rows, grid.cols)}, got {has_tissue.shape}")
    return [block for block in _all_blocks(grid, has_tissue) if block.tiles]


def _all_blocks(grid: TileGrid, has_tissue: NDArray[np.bool_]) -> Iterator[Block]:
    step = grid.block_tiles
    index = 0
    for row in range(0, grid.rows, step):
        for col in range(0, grid.cols, step):
            x, y, size = col * grid.core, row * grid.core, step * grid.core
            core = Box(x, y, x + size, y + size).intersect(grid.whole)
            cells = np.argwhere(has_tissue[row : row + step, col : col + step])
            yield Block(index, core, tuple(grid.tile(row + int(r), col + int(c)) for r, c in cells))
            index += 1
