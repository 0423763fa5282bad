"""Stitched per-pixel maps of one slide: tile cores go in, windows of any place and size come out."""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from wsipipe.errors import OutputError
from wsipipe.grid import Box, TileGrid


class MapStore:
    """uint8 (C, H, W) maps over the work grid, chunked by tile core, so that two tiles never share a chunk.

    What was never written reads as 0 and takes no space. Safe for threads and processes: a chunk is replaced whole.
    """

    def __init__(self, path: Path, array: "zarr.Array[zarr.core.metadata.ArrayV3Metadata]") -> None:
        """Wrap an open array; use `create` or `open`."""
        self._path = path
        self._array = array

    @classmethod
    def create(cls, path: Path, grid: TileGrid, n_maps: int) -> "MapStore":
        """Make an empty store at path, or open the one that is there if its shape and chunks fit."""
        shape = (n_maps, grid.height, grid.width)
        chunks = (n_maps, min(grid.core, grid.height), min(grid.core, grid.width))
        if path.exists():
            store = cls.open(path)
            if store._array.shape == shape and store._array.chunks == chunks:
                return store
            raise OutputError(
                f"maps must have shape {shape}, got {store._array.shape}; remove it and run again: {path}"
            )
        codec = BloscCodec(cname="lz4", clevel=1, shuffle="noshuffle")
        array = zarr.create_array(
            store=str(path), shape=shape, chunks=chunks, dtype=np.uint8, compressors=codec, fill_value=0
        )
        return cls(path, array)

    @classmethod
    def open(cls, path: Path) -> "MapStore":
        """Open an existing store for reading and writing."""
        array = zarr.open_array(store=str(path), mode="r+")
        return cls(path, array)

    @property
    def n_maps(self) -> int:
        """Number of maps C."""
        return int(self._array.shape[0])

    def write(self, core: Box, maps: NDArray[np.uint8]) -> None:
        """Store the maps of one tile core.

        Args:
            core: a tile's core, work px.
            maps: uint8 (C, core.height, core.width).
        """
        expected = (self.n_maps, core.height, core.width)
        if maps.shape != expected:
            raise ValueError(f"maps of a core must have shape {expected}, got {maps.shape}")
        self._array[:, core.y0 : core.y1, core.x0 : core.x1] = maps

    def flush(self, cores: Iterable[Box]) -> None:
        """Bring the maps of tile cores to the disk itself, so that a power cut cannot take them back."""
        for core in cores:
            name = "/".join(str(at // size) for at, size in zip((0, core.y0, core.x0), self._array.chunks, strict=True))
            path = self._path / "c" / name
            if path.exists():  # a core of zeros has no file
                with path.open("rb") as handle:
                    os.fsync(handle.fileno())

    def read(self, window: Box) -> NDArray[np.uint8]:
        """Return the maps of a window inside the grid, uint8 (C, window.height, window.width)."""
        data = self._array[:, window.y0 : window.y1, window.x0 : window.x1]
        return np.asarray(data, dtype=np.uint8)
