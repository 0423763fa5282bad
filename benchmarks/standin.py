"""A stand-in for a model on a device, and slides for it: dense tissue of which every tile holds about 500 nuclei.

Tissue and maps repeat every tile core, so that a slide of any size is written in seconds and no nucleus is cut at a
seam, while every stage does its full work on every tile.
"""

import functools
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from wsipipe.grid import Sides
from wsipipe.instances import SplitRules, split_instances
from wsipipe.segmenter import InstanceWindow

SIDE, HALO = 1024, 64
CORE = SIDE - 2 * HALO
PER_ROW = 20  # nuclei along a side of a core: 400 in 896 x 896 px, about 520 in a tile of 1024 x 1024 px
TIFF_TILE = 224  # a quarter of a core: 16 different tiles make a level
MPP = 0.25


@functools.cache
def pattern() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return mask (CORE, CORE), 255 = nucleus, and RGB (CORE, CORE, 3); both fit to themselves on every side."""
    rng = np.random.default_rng(0)
    mask = np.zeros((3 * CORE, 3 * CORE), np.uint8)
    step = CORE / PER_ROW
    for row in range(PER_ROW):
        for col in range(PER_ROW):
            x, y = ((np.array([col, row]) + 0.5) * step + rng.uniform(-6, 6, 2)).round().astype(int)
            axes = tuple(int(v) for v in rng.integers(9, 17, 2))
            angle = float(rng.uniform(0, 180))
            for dx in (0, CORE, 2 * CORE):
                for dy in (0, CORE, 2 * CORE):
                    cv2.ellipse(mask, (x + dx, y + dy), axes, angle, 0, 360, 255, -1)
    mask = mask[CORE : 2 * CORE, CORE : 2 * CORE]
    tissue = np.where(mask[..., None] > 0, (95, 60, 140), (228, 180, 208)).astype(np.int16)
    rgb = np.clip(tissue + rng.normal(0, 9, tissue.shape), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(mask), cv2.blur(rgb, (2, 2), borderType=cv2.BORDER_REFLECT)


@functools.cache
def tile_maps() -> NDArray[np.uint8]:
    """Return the maps of every tile: uint8 (2, SIDE, SIDE), foreground and height."""
    mask = np.tile(pattern()[0], (3, 3))
    foreground = cv2.GaussianBlur(mask, (0, 0), 1.5)
    height = np.clip(cv2.distanceTransform((mask > 0).astype(np.uint8), cv2.DIST_L2, 5) * 16, 0, 255).astype(np.uint8)
    start = CORE - HALO
    return np.stack([m[start : start + SIDE, start : start + SIDE] for m in (foreground, height)])


@dataclass
class StandIn:
    """A model of a fixed cost.

    Attributes:
        sleep_s: per tile; the device works, the host does not.
        batches: per call of `maps`, its batch size.
    """

    sleep_s: float = 0.0
    name: str = "stand-in"
    mpp: float = MPP
    tile: int = SIDE
    halo: int = HALO
    map_names: tuple[str, ...] = ("foreground", "height")
    class_names: tuple[str, ...] = ("Nucleus",)
    sha256: str = "0" * 64
    licence: str = "none"

    @property
    def parameters(self) -> Mapping[str, Any]:
        return {}

    def fitted(self, sample: NDArray[np.uint8]) -> "StandIn":
        return self

    def maps(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self.sleep_s:
            time.sleep(self.sleep_s * len(images))
        return np.broadcast_to(tile_maps(), (len(images), *tile_maps().shape))

    def instances(self, maps: NDArray[np.uint8], *, mpp: float, sides: Sides) -> InstanceWindow:
        return split_instances(maps[0], maps[1], SplitRules(128, 24, 1, 100, 100), sides)


def write_slide(path: Path, tiles: int) -> Path:
    """Write an Aperio slide of tiles x tiles cores, three levels."""
    side = tiles * CORE
    head = f"Aperio Image Library v12.0.15\r\n{side}x{side} [0,0 {side}x{side}] ({TIFF_TILE}x{TIFF_TILE})"
    level = pattern()[1]
    with tifffile.TiffWriter(path, bigtiff=tiles > 24) as tiff:
        for factor in (1, 4, 16):
            period = level if factor == 1 else cv2.resize(level, None, fx=1 / factor, fy=1 / factor)
            size = side // factor
            tiff.write(
                _encoded(period, size),
                shape=(size, size, 3),
                dtype="uint8",
                photometric="rgb",
                compression="jpeg",
                tile=(TIFF_TILE, TIFF_TILE),
                description=f"{head} JPEG/RGB Q=70|AppMag = 40|MPP = {MPP}",
                metadata=None,
            )
    return path


def _encoded(period: NDArray[np.uint8], size: int) -> Iterator[bytes]:
    """Yield the JPEG tiles of a level in raster order, each different one encoded once."""
    repeats = max(1, TIFF_TILE // len(period))
    period = np.tile(period, (repeats, repeats, 1))
    per_period = len(period) // TIFF_TILE
    tiles = {
        (row, col): imagecodecs.jpeg8_encode(
            np.ascontiguousarray(
                period[row * TIFF_TILE : (row + 1) * TIFF_TILE, col * TIFF_TILE : (col + 1) * TIFF_TILE]
            ),
            level=70,
            colorspace="RGB",
            outcolorspace="RGB",
        )
        for row in range(per_period)
        for col in range(per_period)
    }
    count = -(-size // TIFF_TILE)
    for row in range(count):
        for col in range(count):
            yield tiles[row % per_period, col % per_period]
