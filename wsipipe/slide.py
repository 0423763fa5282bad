"""An open slide: what it says about itself, and RGB px of any rectangle at any scale."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np
import openslide
from numpy.typing import NDArray

from wsipipe.errors import SlideOpenError, SlideReadError
from wsipipe.frames import WorkFrame
from wsipipe.grid import Box
from wsipipe.jpegtiff import TiffTiles, find_levels, prove_identical
from wsipipe.levels import LevelSource, OpenSlideLevels, level_size_in, true_downsample
from wsipipe.resample import Axis, axis_taps, resample
from wsipipe.scale import Mpp, check_scale, objective_power, slide_mpp

__all__ = ["Mpp", "Slide", "check_scale", "open_slide"]

_WHITE = 255
_WINDOW_PX = 4096 * 4096  # level px held at once; larger reads are put together from parts
_PLAIN_TIFF = ("aperio", "generic-tiff")  # vendors whose levels are single pages of whole tiles
_HASHED_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Slide:
    """A slide, open until `close`. Safe to use from several threads.

    Attributes:
        path: the file.
        vendor: OpenSlide's name of the format.
        width, height: level-0 px of the bounds rectangle (the whole of level 0 if the slide has none): the l0 frame.
        mpp: micrometres per level-0 px.
        objective_power: magnification as the slide tells it.
        quickhash: OpenSlide's quickhash-1, or a hash of the file's size, head and tail where it gives none.
        identity: hash of quickhash and size; part of the run key.
        bounds_origin: (x, y) of the l0 frame's origin in OpenSlide's level 0.
        downsamples: level-0 px per px of each level.
        reader: who decodes the px; both return the same.
        size_bytes: of the file.
    """

    path: Path
    vendor: str
    width: int
    height: int
    mpp: Mpp
    objective_power: float | None
    quickhash: str
    identity: str
    bounds_origin: tuple[int, int]
    downsamples: tuple[float, ...]
    reader: Literal["openslide", "jpegtiff"]
    size_bytes: int
    _level_sizes: tuple[tuple[int, int], ...]
    _source: LevelSource
    _openslide: OpenSlideLevels

    def read(self, box: Box, frame: WorkFrame) -> NDArray[np.uint8]:
        """Read RGB px of the work grid.

        A px's value depends on the slide and the frame alone, never on the box: an exact copy where the work grid is
        a level's grid, else the area average of the nearest finer level, or bilinear where level 0 is coarser. At
        the slide's edge only px of the slide are averaged.

        Args:
            box: work px; may reach beyond the slide.
            frame: a work grid of this slide.

        Returns:
            uint8 (box.height, box.width, 3), white beyond the slide and where it is transparent.

        Raises:
            SlideReadError: the file is damaged there.
        """
        if (frame.l0_width, frame.l0_height) != (self.width, self.height):
            raise ValueError(
                f"frame must be of this slide ({self.width} x {self.height} px), "
                f"got one of {frame.l0_width} x {frame.l0_height} px: {self.path}"
            )
        out = np.full((box.height, box.width, 3), _WHITE, np.uint8)
        inside = box.intersect(Box(0, 0, frame.width, frame.height))
        if not inside.is_empty:
            level = self._nearest_finer(frame)
            width, height = self._level_sizes[level]
            x = Axis(frame.scale_x / self.downsamples[level], width)
            y = Axis(frame.scale_y / self.downsamples[level], height)
            for part in _parts(inside, x.step * y.step):
                out[part.slices(box)] = self._read_part(level, part, x, y)
        return out

    def thumbnail(self, mpp: float) -> tuple[NDArray[np.uint8], float, float]:
        """Read the whole slide at about mpp micrometres per px, in flat memory.

        Returns:
            uint8 (h, w, 3) RGB, and the exact level-0 px per px along x and y: the picture ends where the slide ends.
        """
        sizes = [max(1, round(n * m / mpp)) for n, m in ((self.width, self.mpp.x), (self.height, self.mpp.y))]
        scale_x, scale_y = self.width / sizes[0], self.height / sizes[1]
        frame = WorkFrame(self.width, self.height, self.mpp.x, self.mpp.y, scale_x, scale_y)
        return self.read(Box(0, 0, *sizes), frame), scale_x, scale_y

    def close(self) -> None:
        """Release the file; later reads fail."""
        self._source.close()
        self._openslide.close()

    def __enter__(self) -> "Slide":
        """Return the slide itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the slide."""
        self.close()

    def _nearest_finer(self, frame: WorkFrame) -> int:
        limit = min(frame.scale_x, frame.scale_y) * (1 + 1e-9)
        finer = [level for level, downsample in enumerate(self.downsamples) if downsample <= limit]
        return max(finer, key=lambda level: self.downsamples[level], default=0)

    def _read_part(self, level: int, part: Box, x: Axis, y: Axis) -> NDArray[np.uint8]:
        cols, rows = axis_taps(x, part.x0, part.x1), axis_taps(y, part.y0, part.y1)
        (left, right), (top, bottom) = cols.span, rows.span
        window = self._source.read_level(level, Box(left, top, right, bottom))
        if x.is_copy and y.is_copy and window.shape[:2] == (part.height, part.width):
            return window
        return resample(window, rows, cols)


def open_slide(path: Path, *, mpp: float | None = None) -> Slide:
    """Open a slide and read a few px of it, so that a slide that opens can also be read.

    Args:
        path: a file of any format that OpenSlide reads.
        mpp: micrometres per level-0 px; wins over what the slide says.

    Raises:
        SlideOpenError: not a slide, or damaged.
        SlideReadError: opens, but its px cannot be read.
        ScaleError: its mpp is missing, implausible or contradictory, and none was passed.
        UsageError: mpp is not a positive number.
    """
    handle = _open_handle(path)
    try:
        return _describe(path, handle, slide_mpp(dict(handle.properties), mpp, path))
    except BaseException as error:
        handle.close()
        if not isinstance(error, openslide.OpenSlideError):
            raise
        raise SlideReadError(f"slide opens but cannot be read ({error}); copy or export it again: {path}") from error


def _open_handle(path: Path) -> openslide.OpenSlide:
    if not path.exists():
        raise SlideOpenError(f"slide does not exist; check the path: {path}")
    if path.is_dir():
        raise SlideOpenError(f"slide must be a file, this is a folder; name the files in it: {path}")
    try:
        return openslide.OpenSlide(path)
    except (openslide.OpenSlideError, OSError) as error:
        raise SlideOpenError(
            f"file is not a slide that OpenSlide can open, or it is damaged ({error}); "
            f"check that it was copied completely and that its format is one of openslide.org/formats: {path}"
        ) from error


def _describe(path: Path, handle: openslide.OpenSlide, mpp: Mpp) -> Slide:
    properties = dict(handle.properties)
    sizes = handle.level_dimensions
    bounds = _bounds(properties, sizes[0])
    reported = handle.level_downsamples
    downsamples = tuple(true_downsample(sizes[0], size, d) for size, d in zip(sizes, reported, strict=True))
    cut_sizes = tuple(level_size_in(bounds, sizes[0], s, d) for s, d in zip(sizes, downsamples, strict=True))
    vendor = properties.get("openslide.vendor", "unknown")
    size_bytes = path.stat().st_size
    quickhash = properties.get("openslide.quickhash-1") or _own_hash(path, size_bytes)
    levels = OpenSlideLevels(path, handle, (bounds.x0, bounds.y0))
    fast = _fast_source(path, vendor, sizes, reported, levels)
    return Slide(
        path=path,
        vendor=vendor,
        width=bounds.width,
        height=bounds.height,
        mpp=mpp,
        objective_power=objective_power(properties),
        quickhash=quickhash,
        identity=hashlib.sha256(f"{quickhash} {size_bytes}".encode()).hexdigest(),
        bounds_origin=(bounds.x0, bounds.y0),
        downsamples=downsamples,
        reader="jpegtiff" if fast else "openslide",
        size_bytes=size_bytes,
        _level_sizes=cut_sizes,
        _source=fast or levels,
        _openslide=levels,
    )


def _bounds(properties: dict[str, str], size: tuple[int, int]) -> Box:
    """Return the rectangle that QuPath shows: the slide's bounds if it has all four, else all of level 0."""
    names = ("x", "y", "width", "height")
    try:
        x, y, width, height = (int(properties[f"openslide.bounds-{name}"]) for name in names)
    except (KeyError, ValueError):
        return Box(0, 0, *size)
    cut = Box(x, y, x + width, y + height).intersect(Box(0, 0, *size))
    return Box(0, 0, *size) if cut.is_empty else cut


def _fast_source(
    path: Path,
    vendor: str,
    sizes: tuple[tuple[int, int], ...],
    reported: tuple[float, ...],
    levels: OpenSlideLevels,
) -> TiffTiles | None:
    """Return the fast reader if it proves identical; one px is read in any case, so that damage shows early."""
    levels.read_level(len(sizes) - 1, Box(0, 0, 1, 1))
    found = find_levels(path, sizes) if vendor in _PLAIN_TIFF else None
    if found is None:
        return None
    tiles = TiffTiles(path, found, levels.read_level)
    if prove_identical(tiles, levels.read_level, [d.is_integer() for d in reported]):
        return tiles
    tiles.close()
    return None


def _own_hash(path: Path, size_bytes: int) -> str:
    digest = hashlib.sha256(str(size_bytes).encode())
    with path.open("rb") as file:
        digest.update(file.read(_HASHED_BYTES))
        file.seek(max(0, size_bytes - _HASHED_BYTES))
        digest.update(file.read(_HASHED_BYTES))
    return digest.hexdigest()


def _parts(box: Box, level_px_per_px: float) -> list[Box]:
    """Cut a box in halves until the level px under each part fit into memory."""
    if box.width * box.height * level_px_per_px <= _WINDOW_PX or box.width * box.height == 1:
        return [box]
    if box.height >= box.width:
        middle = (box.y0 + box.y1) // 2
        halves = Box(box.x0, box.y0, box.x1, middle), Box(box.x0, middle, box.x1, box.y1)
    else:
        middle = (box.x0 + box.x1) // 2
        halves = Box(box.x0, box.y0, middle, box.y1), Box(middle, box.y0, box.x1, box.y1)
    return [part for half in halves for part in _parts(half, level_px_per_px)]
