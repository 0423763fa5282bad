"""Exact pixels of a slide's pyramid levels through OpenSlide.

Coordinates are level px of the slide cut to its bounds: px (c, r) of a level of downsample d covers
[c d, c d + d) x [r d, r d + d) of the l0 frame.
"""

import ctypes
import threading
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import openslide
from numpy.typing import NDArray
from openslide import lowlevel

from wsipipe.errors import SlideReadError
from wsipipe.grid import Box

_CALL_SIDE = 4096  # OpenSlide cuts larger requests at rounded level-0 px, which would shift the parts
_TRIES = 3


class LevelSource(Protocol):
    """Reads RGB px of one level; box must lie inside the level."""

    def read_level(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Return uint8 (box.height, box.width, 3)."""
        ...

    def close(self) -> None:
        """Release the file."""
        ...


def true_downsample(l0_size: tuple[int, int], level_size: tuple[int, int], reported: float) -> float:
    """Return the whole number that a level was made with, where its size admits one, else the reported value.

    OpenSlide reports the ratio of sizes, and sizes are rounded: 4443 / 2221 = 2.0005 for a level made by halving.
    Taken literally that is a shift of a whole px at the far end.
    """
    whole = max(1, round(reported))
    fits = all(abs(full / whole - size) < 1 for full, size in zip(l0_size, level_size, strict=True))
    return float(whole) if fits else reported


def level_size_in(
    bounds: Box, l0_size: tuple[int, int], level_size: tuple[int, int], downsample: float
) -> tuple[int, int]:
    """Return (width, height) of a level cut to the slide's bounds: px that lie wholly inside, at least one."""
    if (bounds.width, bounds.height) == l0_size:
        return level_size
    return max(1, int(bounds.width / downsample + 1e-9)), max(1, int(bounds.height / downsample + 1e-9))


class OpenSlideLevels:
    """Level px of an open slide. Safe to use from several threads.

    An OpenSlide handle is dead after its first error, so a failed read gets a fresh handle: one unreadable place does
    not take the rest of the slide away, and a thread is not blamed for another's error.
    """

    def __init__(self, path: Path, handle: openslide.OpenSlide, origin: tuple[int, int]) -> None:
        """Take over an open handle; origin is the l0 frame's (x, y) in OpenSlide's level 0."""
        self._path = path
        self._handle = handle
        self._origin = origin
        self._reported: tuple[float, ...] = handle.level_downsamples
        self._closed = False
        self._lock = threading.Lock()

    def read_level(self, level: int, box: Box) -> NDArray[np.uint8]:
        """Read level px, composited on white.

        Where the level's reported downsample is not a whole number OpenSlide interpolates by less than half a level-0
        px; the pieces are cut on a fixed grid there, so that values do not depend on the box.

        Raises:
            SlideReadError: OpenSlide cannot read there.
        """
        pieces = self._pieces(level, box)
        if pieces == [box]:
            return self._read_piece(level, box)
        out = np.empty((box.height, box.width, 3), np.uint8)
        for piece in pieces:
            part = piece.intersect(box)
            out[part.slices(box)] = self._read_piece(level, piece)[part.slices(piece)]
        return out

    def close(self) -> None:
        """Close the current handle; closing twice is allowed."""
        with self._lock:
            if not self._closed:
                self._handle.close()
            self._closed = True

    def _pieces(self, level: int, box: Box) -> list[Box]:
        if self._reported[level].is_integer():
            xs = [(x, min(x + _CALL_SIDE, box.x1)) for x in range(box.x0, box.x1, _CALL_SIDE)]
            ys = [(y, min(y + _CALL_SIDE, box.y1)) for y in range(box.y0, box.y1, _CALL_SIDE)]
        else:
            xs, ys = (_fixed_cuts(*ends) for ends in ((box.x0, box.x1), (box.y0, box.y1)))
        return [Box(x0, y0, x1, y1) for y0, y1 in ys for x0, x1 in xs]

    def _read_piece(self, level: int, box: Box) -> NDArray[np.uint8]:
        for _ in range(_TRIES):
            handle = self._handle
            try:
                return self._read_once(handle, level, box)
            except openslide.OpenSlideError as error:
                failure = error
                self._replace(handle)
        x, y = self._l0_corner(level, box)
        raise SlideReadError(
            f"slide cannot be read at level-0 px ({x}, {y}), level {level} ({failure}); "
            f"the file is damaged there, copy or export it again: {self._path}"
        )

    def _read_once(self, handle: openslide.OpenSlide, level: int, box: Box) -> NDArray[np.uint8]:
        x, y = self._l0_corner(level, box)
        buffer = np.empty((box.height, box.width, 4), np.uint8)
        pointer = buffer.ctypes.data_as(ctypes.POINTER(ctypes.c_uint32))
        lowlevel._read_region(handle._osr, pointer, x, y, level, box.width, box.height)
        return _on_white(buffer)

    def _l0_corner(self, level: int, box: Box) -> tuple[int, int]:
        """Return the box's corner in OpenSlide's level 0."""
        downsample = self._reported[level]
        return self._origin[0] + round(box.x0 * downsample), self._origin[1] + round(box.y0 * downsample)

    def _replace(self, dead: openslide.OpenSlide) -> None:
        with self._lock:
            if self._handle is dead:
                try:
                    self._handle = openslide.OpenSlide(self._path)
                except (openslide.OpenSlideError, OSError) as error:
                    raise SlideReadError(f"slide can no longer be opened ({error}): {self._path}") from error


def _fixed_cuts(begin: int, end: int, side: int = 1024) -> list[tuple[int, int]]:
    return [(at, at + side) for at in range(begin // side * side, end, side)]


def _on_white(bgra: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Turn OpenSlide's premultiplied px (bytes B, G, R, A on a little-endian machine) into RGB on white."""
    rgb = cv2.cvtColor(bgra, cv2.COLOR_BGRA2RGB)
    alpha = cv2.extractChannel(bgra, 3)
    if cv2.minMaxLoc(alpha)[0] < 255:
        rgb = cv2.add(rgb, cv2.cvtColor(cv2.bitwise_not(alpha), cv2.COLOR_GRAY2RGB))
    return np.asarray(rgb)
