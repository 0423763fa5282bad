"""Tiny slides for tests, written with tifffile as OpenSlide wants them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile


def texture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Return uint8 (height, width, 3) of coloured noise: no two places look alike, so a shift shows."""
    rng = np.random.default_rng(seed)
    return rng.integers(30, 250, (height, width, 3), dtype=np.uint8)


def blocks(width: int, height: int, side: int = 16, seed: int = 0) -> np.ndarray:
    """Return uint8 (height, width, 3) of flat squares: survives JPEG nearly unchanged."""
    small = texture(-(-width // side), -(-height // side), seed)
    return np.ascontiguousarray(small.repeat(side, axis=0).repeat(side, axis=1)[:height, :width])


def halved(image: np.ndarray, factor: int) -> np.ndarray:
    """Reduce by a whole factor: means, the rest at the right and bottom is cut off as scanners do."""
    height, width = image.shape[0] // factor, image.shape[1] // factor
    parts = image[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
    return np.rint(parts.mean(axis=(1, 3))).astype(np.uint8)


def write_slide(
    path: Path,
    image: np.ndarray,
    *,
    mpp: float | None = 0.25,
    factors: Sequence[int] = (1,),
    tile: int = 64,
    compression: str | None = "jpeg",
    unit: str = "CENTIMETER",
) -> Path:
    """Write a generic pyramidal TIFF; with mpp None it carries no resolution."""
    with tifffile.TiffWriter(path) as tiff:
        for factor in factors:
            per_unit = {"CENTIMETER": 1e4, "INCH": 25400.0}[unit]
            scale = {} if mpp is None else {"resolution": (per_unit / (mpp * factor),) * 2, "resolutionunit": unit}
            tiff.write(
                image if factor == 1 else halved(image, factor),
                photometric="rgb",
                compression=compression,
                tile=(tile, tile),
                metadata=None,
                subfiletype=int(factor > 1),
                **scale,
            )
    return path


def write_aperio(
    path: Path,
    image: np.ndarray,
    *,
    mpp: float | str | None = 0.25,
    power: float | None = 40,
    factors: Sequence[int] = (1,),
    tile: int = 240,
    ycbcr: bool = False,
) -> Path:
    """Write an Aperio SVS."""
    height, width = image.shape[:2]
    head = f"Aperio Image Library v12.0.15\r\n{width}x{height} [0,0 {width}x{height}] ({tile}x{tile})"
    tags = ("" if power is None else f"|AppMag = {power}") + ("" if mpp is None else f"|MPP = {mpp}")
    with tifffile.TiffWriter(path) as tiff:
        for factor in factors:
            tiff.write(
                image if factor == 1 else halved(image, factor),
                photometric="ycbcr" if ycbcr else "rgb",
                subsampling=(2, 2) if ycbcr else None,
                compression="jpeg",
                tile=(tile, tile),
                description=f"{head} JPEG/RGB Q=70{tags}",
                metadata=None,
            )
    return path


def write_scn(path: Path, image: np.ndarray, *, at: tuple[int, int], around: tuple[int, int], mpp: float) -> Path:
    """Write a Leica SCN: image lies at (x, y) = at in a level 0 of around = (width, height) px, so it has bounds."""
    height, width = image.shape[:2]
    nm = round(mpp * 1000)
    dims = "".join(
        f'<dimension sizeX="{width // f}" sizeY="{height // f}" r="{i}" ifd="{i}"/>' for i, f in enumerate((1, 4))
    )
    light = "<illuminationSource>brightfield</illuminationSource>"
    xml = (
        '<?xml version="1.0" encoding="utf-8"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'
        f'<collection name="c" uuid="0" sizeX="{around[0] * nm}" sizeY="{around[1] * nm}"><barcode></barcode>'
        '<image name="main" uuid="1"><creationDate>2020-01-01T00:00:00Z</creationDate><device model="x" version="1"/>'
        f'<pixels sizeX="{width}" sizeY="{height}">{dims}</pixels>'
        f'<view sizeX="{width * nm}" sizeY="{height * nm}" offsetX="{at[0] * nm}" offsetY="{at[1] * nm}"/>'
        f"<scanSettings><objectiveSettings><objective>40</objective></objectiveSettings><illuminationSettings>"
        f"<numericalAperture>0.65</numericalAperture>{light}</illuminationSettings></scanSettings></image>"
        "</collection></scn>"
    )
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for factor, text in ((1, xml), (4, None)):
            tiff.write(
                image if factor == 1 else halved(image, factor),
                photometric="rgb",
                compression="jpeg",
                tile=(64, 64),
                description=text,
                metadata=None,
                resolution=(1e4 / (mpp * factor),) * 2,
                resolutionunit="CENTIMETER",
            )
    return path


def lose_tile(path: Path, page: int, index: int) -> None:
    """Make a tile missing: its byte count becomes 0."""
    with tifffile.TiffFile(path, mode="r+") as tiff:
        for name in ("TileByteCounts", "TileOffsets"):
            tag = tiff.pages[page].tags[name]
            values = list(tag.value)
            values[index] = 0
            tag.overwrite(values)


def spoil_tile(path: Path, page: int, index: int, keep: int = 40) -> None:
    """Overwrite the bytes of a tile after its first few."""
    with tifffile.TiffFile(path) as tiff:
        at, size = tiff.pages[page].dataoffsets[index], tiff.pages[page].databytecounts[index]
    with path.open("r+b") as file:
        file.seek(at + keep)
        file.write(b"\xff\xd8\xff\xe0\x00\x00" * ((size - keep) // 6))
