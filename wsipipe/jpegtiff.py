"""Fast reader for tiled JPEG and JPEG 2000 TIFF and SVS files: tile bytes by pread, decoded straight to RGB.

Only the slides that `prove_identical` vouches for are read this way; the slide itself is the judge.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from wsipipe.errors import SlideReadError
from wsipipe.grid import Box

CACHE_BYTES = 64 << 20  # decoded tiles kept: the ones that neighbouring reads share
PROBES = 4  # tiles per level that must equal OpenSlide's px

_JPEG, _JPEG2000_RGB = 7, 33005
_RGB, _YCBCR = 2, 6

ReadLevel = Callable[[int, Box], NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class TileLevel:
    """Where the tiles of one level are in the file.

    Attributes:
        width, height: level px.
        tile_width, tile_height: px of every tile, those on the right and bottom edge included.
        offsets, sizes: byte range of each tile in raster order; size 0 = the tile is missing.
        codec: TIFF compression tag.
        colorspace: of the stored JPEG, as imagecodecs names it.
        tables: JPEG tables shared by the level's tiles, or None.
    """

    width: int
    height: int
    tile_width: int
    tile_height: int
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    codec: int
    colorspace: str
    tables: bytes | None

    @property
    def cols(self) -> int:
        """Tiles side by side."""
        return -(-self.width // self.tile_width)

    @property
    def rows(self) -> int:
        """Tiles above each other."""
        return -(-self.height // self.tile_height)

    def tile_box(self, index: int) -> Box:
        """Return the level px of a tile, cut at the level's edge."""
        row, col = divmod(index, self.cols)
        x, y = col * self.tile_width, row * self.tile_height
        return Box(x, y, min(x + self.tile_width, self.width), min(y + self.tile_height, self.height))

    def tiles_in(self, box: Box) -> list[int]:
        """List the tiles that a non-empty box inside the level touches, in raster order."""
        cols = range(box.x0 // self.tile_width, (box.x1 - 1) // self.tile_width + 1)
        rows = range(box.y0 // self.tile_height, (box.y1 - 1) // self.tile_height + 1)
        return [row * self.cols + col for row in rows for col in cols]


def find_levels(path: Path, level_sizes: Sequence[tuple[int, int]]) -> list[TileLevel] | None:
    """Find the tiles of every pyramid level in a TIFF.

    Args:
        path: the file.
        level_sizes: (width, height) of each level as OpenSlide reports them.

    Returns:
        One TileLevel per size, or None when some level is not a tiled RGB JPEG or JPEG 2000 page of that size.
    """
    try:
        with tifffile.TiffFile(path) as tiff:
            pages = [page for page in tiff.pages if isinstance(page, tifffile.TiffPage)]
            found = [next((level for p in pages if (level := _tile_level(p, size))), None) for size in level_sizes]
    except (tifffile.TiffFileError, ValueError, KeyError, IndexError, OSError):
        return None  # OpenSlide reads layouts that tifffile does not; they are simply not ours
    return [level for level in found if level] if all(found) else None


def _tile_level(page: tifffile.TiffPage, size: tuple[int, int]) -> TileLevel | None:
    fits = page.is_tiled and (page.imagewidth, page.imagelength) == size and page.imagedepth == 1
    if not fits or page.samplesperpixel != 3 or page.bitspersample != 8 or page.planarconfig != 1:
        return None
    if page.compression not in (_JPEG, _JPEG2000_RGB) or page.photometric not in (_RGB, _YCBCR):
        return None
    if page.compression == _JPEG2000_RGB and page.photometric != _RGB:
        return None
    return TileLevel(
        *size,
        page.tilewidth,
        page.tilelength,
        tuple(page.dataoffsets),
        tuple(page.databytecounts),
        int(page.compression),
        "RGB" if page.photometric == _RGB else "YCBCR",
        page.jpegtables,
    )


class TiffTiles:
    """Level px of a tiled TIFF. Safe to use from several threads; decoding runs without the interpreter's lock."""

    def __init__(self, path: Path, levels: Sequence[TileLevel], fill: ReadLevel) -> None:
        """Open the file.

        Args:
            path: the file.
            levels: from `find_levels`.
            fill: reads px of missing tiles; each format has its own rule for them.
        """
        self.levels = tuple(levels)
        self._path = path
        self._fill = fill
        self._file = os.open(path, os.O_RDONLY)
        self._cache: OrderedDict[tuple[int, int], NDArray[np.uint8]] = OrderedDict()
        self._cached_bytes = 0
        self._lock = threading.Lock()

    def read_level(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Return uint8 (box.height, box.width, 3); box must lie inside the level.

        Raises:
            SlideReadError: a tile is cut off or damaged, or the file cannot be read any more.
        """
        layout = self.levels[level]
        out = np.empty((box.height, box.width, 3), np.uint8)
        if box.is_empty:
            return out
        for index in layout.tiles_in(box):
            place = layout.tile_box(index)
            part = place.intersect(box)
            out[part.slices(box)] = self._tile(level, index)[part.slices(place)]
        return out

    def close(self) -> None:
        """Close the file and drop the decoded tiles."""
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
            self._file = -1
            self._cache.clear()
            self._cached_bytes = 0

    def _tile(self, level: int, index: int) -> NDArray[np.uint8]:
        with self._lock:
            tile = self._cache.get((level, index))
            if tile is not None:
                self._cache.move_to_end((level, index))
                return tile
        tile = self._decode(level, index)
        with self._lock:
            if (level, index) not in self._cache:
                self._cache[level, index] = tile
                self._cached_bytes += tile.nbytes
            while self._cached_bytes > CACHE_BYTES:
                self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return tile

    def _decode(self, level: int, index: int) -> NDArray[np.uint8]:
        layout = self.levels[level]
        if layout.sizes[index] == 0:
            return self._fill(level, layout.tile_box(index))
        try:
            data = os.pread(self._file, layout.sizes[index], layout.offsets[index])
        except OSError as error:  # the disk or the network fails, or the slide was closed
            raise SlideReadError(
                f"slide cannot be read now ({error.strerror}); mend that and run again: {self._path}"
            ) from error
        if len(data) < layout.sizes[index]:
            raise self._damaged(level, index, "the file ends before it")
        try:
            tile = decode_tile(layout, data)
        except (imagecodecs.Jpeg8Error, imagecodecs.Jpeg2kError, ValueError) as error:
            raise self._damaged(level, index, str(error)) from error
        if tile.shape != (layout.tile_height, layout.tile_width, 3):
            raise self._damaged(level, index, f"it decodes to {tile.shape}")
        return tile

    def _damaged(self, level: int, index: int, why: str) -> SlideReadError:
        box = self.levels[level].tile_box(index)
        return SlideReadError(
            f"slide cannot be read at px ({box.x0}, {box.y0}) of level {level}, tile {index} ({why}); "
            f"the file is damaged there, copy or export it again: {self._path}"
        )


def decode_tile(layout: TileLevel, data: bytes) -> NDArray[np.uint8]:
    """Decode the bytes of one tile to uint8 (tile_height, tile_width, 3) RGB."""
    if layout.codec == _JPEG2000_RGB:
        return np.asarray(imagecodecs.jpeg2k_decode(data))
    tile = imagecodecs.jpeg8_decode(data, tables=layout.tables, colorspace=layout.colorspace, outcolorspace="RGB")
    return np.asarray(tile)


def prove_identical(tiles: TiffTiles, reference: ReadLevel, is_exact: Sequence[bool]) -> bool:
    """Compare some tiles with OpenSlide's px.

    Args:
        tiles: the fast reader.
        reference: OpenSlide's px.
        is_exact: for each level, whether OpenSlide addresses it in whole px. Where it does not, it interpolates away
            from the corner, so there only the level's first px are compared.

    Returns:
        Whether every px that was compared is equal, PROBES spread tiles (corners included) per level.
    """
    for level, layout in enumerate(tiles.levels):
        for index in _probe_tiles(layout) if is_exact[level] else [0]:
            box = layout.tile_box(index)
            try:
                mine = tiles.read_level(level, box)
            except SlideReadError:
                return False
            if not np.array_equal(mine, reference(level, box)):
                return False
    return True


def _probe_tiles(layout: TileLevel) -> list[int]:
    """Choose PROBES tiles: both ends, the fullest (JPEG spends its bytes where there is tissue) and the middle one."""
    count = layout.rows * layout.cols
    fullest = max(range(count), key=lambda i: layout.sizes[i])
    middle = (layout.rows // 2) * layout.cols + layout.cols // 2
    return sorted({0, count - 1, fullest, middle})[:PROBES]
