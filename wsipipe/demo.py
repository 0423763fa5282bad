"""Draw H&E-like slides whose every nucleus is known, and score a run's labels against them.

A slide is drawn and written strip by strip and the truth chunk by chunk, so memory does not grow with its height, and
by about 1 KB per px of its width; reduced levels wait in temporary files beside the slide.
"""

import shutil
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray

from wsipipe.atomic import replacing
from wsipipe.drawnslide import DemoSpec, Painter
from wsipipe.errors import OutputError
from wsipipe.grid import Box
from wsipipe.score import Overlap, Scores, combine, overlap, scores

APERIO_TILE, GENERIC_TILE = 240, 256
APERIO_FACTOR, GENERIC_FACTOR = 4, 2  # between levels
APERIO_LEVELS = 3
SMALLEST_LEVEL = 256  # a generic pyramid ends when its longer side is not above this, px
THUMBNAIL = 1024  # longest side of the Aperio thumbnail, px
PIECE_TILES = 8  # tiles painted at once; also the width of a truth chunk in tiles
WINDOW = 2048  # side of the windows that are scored, label px
MAX_CLASSIC_PX = 1 << 30  # slides above this get a BigTIFF: 3 bytes per px could pass 4 GB

_JPEG: dict[str, Any] = {"photometric": "rgb", "compression": "jpeg", "metadata": None, "maxworkers": 1}
_Strip = NDArray[np.uint8]  # (rows, width, 3) RGB


@dataclass(frozen=True, slots=True)
class DrawnSlide:
    """A slide that was drawn.

    Attributes:
        path: the slide file.
        truth_path: zarr array, uint32 (height, width) at level-0 px, 0 = background, an id is one nucleus (ids have
            gaps); its attributes hold mpp_x, mpp_y, n_nuclei and the spec.
        spec: what was asked for.
        n_nuclei: how many were drawn.
    """

    path: Path
    truth_path: Path
    spec: DemoSpec
    n_nuclei: int


def draw_slide(path: Path, truth_path: Path, spec: DemoSpec) -> DrawnSlide:
    """Draw a slide and its truth; both appear whole or not at all.

    Args:
        path: the slide file to write (.svs for the Aperio flavour, .tiff for the generic one).
        truth_path: the zarr folder to write.
        spec: what to draw.

    Raises:
        OutputError: one of them exists already, or the folder cannot be written.
    """
    for target in (path, truth_path):
        if target.exists():
            raise OutputError(f"will not overwrite what is there; remove it or name another path: {target}")
    tile = APERIO_TILE if spec.flavour == "aperio" else GENERIC_TILE
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".drawing-") as folder:
        partial_truth = Path(folder, "truth.zarr")
        truth = zarr.create_array(
            store=partial_truth, shape=(spec.height, spec.width), chunks=(tile, tile * PIECE_TILES), dtype="uint32"
        )
        with replacing(path) as partial:
            n_nuclei = _write_pyramid(partial, Path(folder), spec, truth)
        truth.attrs.update({"mpp_x": spec.mpp, "mpp_y": spec.mpp, "n_nuclei": n_nuclei, "spec": asdict(spec)})
        shutil.move(partial_truth, truth_path)
    return DrawnSlide(path, truth_path, spec, n_nuclei)


def open_truth(truth_path: Path) -> tuple[DemoSpec, int]:
    """Return what a truth folder was drawn from, and its number of nuclei."""
    attributes: Any = zarr.open_array(truth_path, mode="r").attrs
    return DemoSpec(**attributes["spec"]), int(attributes["n_nuclei"])


class _Strips:
    """The strips of level 0, one tile high, drawn as they are asked for; labels go to truth, nuclei are counted."""

    def __init__(self, spec: DemoSpec, tile: int, truth: Any) -> None:
        self._painter, self._tile, self._truth = Painter(spec), tile, truth
        self.n_nuclei = 0

    def __iter__(self) -> Iterator[_Strip]:
        spec, tile = self._painter.spec, self._tile
        for y in range(0, spec.height, tile):
            strip = np.empty((min(tile, spec.height - y), spec.width, 3), np.uint8)
            for x in range(0, spec.width, tile * PIECE_TILES):
                box = Box(x, y, min(x + tile * PIECE_TILES, spec.width), y + len(strip))
                painted = self._painter.paint(box)
                strip[:, box.x0 : box.x1] = painted.rgb
                self.n_nuclei += painted.n_nuclei
                if painted.labels.any():
                    self._truth[box.y0 : box.y1, box.x0 : box.x1] = painted.labels
            yield strip


@dataclass(frozen=True, slots=True)
class _Spool:
    """RGB rows of a reduced level in a temporary file."""

    path: Path
    width: int
    height: int

    def strips(self, rows: int) -> Iterator[_Strip]:
        """Yield (rows, width, 3) from top to bottom; the last strip may be lower."""
        with self.path.open("rb") as handle:
            for row in range(0, self.height, rows):
                n = min(rows, self.height - row)
                yield np.fromfile(handle, np.uint8, n * self.width * 3).reshape(n, self.width, 3)

    def fill(self, strips: Iterable[_Strip], factor: int) -> Iterator[_Strip]:
        """Pass the strips of the finer level on, and keep their means over factor x factor px."""
        with self.path.open("wb") as handle:
            for strip in strips:
                rows = len(strip) // factor
                if rows:
                    whole = strip[: rows * factor, : self.width * factor]
                    means = cv2.resize(whole, (self.width, rows), interpolation=cv2.INTER_AREA)
                    handle.write(np.asarray(means).tobytes())
                yield strip


def _plan_levels(spec: DemoSpec, folder: Path) -> list[_Spool]:
    """Lay out the reduced levels."""
    factor = APERIO_FACTOR if spec.flavour == "aperio" else GENERIC_FACTOR
    spools: list[_Spool] = []
    width, height = spec.width // factor, spec.height // factor
    while min(width, height) >= SMALLEST_LEVEL // 16 and (spec.flavour == "generic" or len(spools) < APERIO_LEVELS - 1):
        spools.append(_Spool(folder / f"level{len(spools) + 1}", width, height))
        if spec.flavour == "generic" and max(width, height) <= SMALLEST_LEVEL:
            break
        width, height = width // factor, height // factor
    return spools


def _write_pyramid(path: Path, folder: Path, spec: DemoSpec, truth: Any) -> int:
    """Write all levels of a slide to path and its labels to truth; return the number of nuclei."""
    tile, factor = (APERIO_TILE, APERIO_FACTOR) if spec.flavour == "aperio" else (GENERIC_TILE, GENERIC_FACTOR)
    spools = _plan_levels(spec, folder)
    drawn = _Strips(spec, tile, truth)
    with tifffile.TiffWriter(path, bigtiff=spec.width * spec.height > MAX_CLASSIC_PX) as tiff:
        strips = spools[0].fill(drawn, factor) if spools else iter(drawn)
        _write_level(tiff, strips, spec, (spec.width, spec.height))
        for finer, coarser in pairwise(spools):
            deque(coarser.fill(finer.strips(tile), factor), maxlen=0)
        if spec.flavour == "aperio" and spools:
            _write_thumbnail(tiff, spools[-1], spec)
        for spool in spools:
            _write_level(tiff, spool.strips(tile), spec, (spool.width, spool.height))
    return drawn.n_nuclei


def _write_level(tiff: tifffile.TiffWriter, strips: Iterator[_Strip], spec: DemoSpec, size: tuple[int, int]) -> None:
    """Write one tiled page of size (width, height), with the tags that its flavour's readers look for."""
    aperio = spec.flavour == "aperio"
    tile = APERIO_TILE if aperio else GENERIC_TILE
    tags: dict[str, Any] = {"description": _aperio_description(spec, size)} if aperio else {}
    if not aperio and spec.has_mpp:
        per_cm = 1e4 / (spec.mpp * spec.width / size[0])
        tags = {"resolution": (per_cm, per_cm), "resolutionunit": "CENTIMETER"}
    tiff.write(
        _tiles(strips, tile),
        shape=(size[1], size[0], 3),
        dtype="uint8",
        tile=(tile, tile),
        subfiletype=int(not aperio and size[0] < spec.width),
        **_JPEG,
        compressionargs={"level": spec.quality},
        **tags,
    )


def _tiles(strips: Iterable[_Strip], tile: int) -> Iterator[_Strip]:
    """Cut strips into tile x tile px; what lies beyond the image repeats its last row or column."""
    for strip in strips:
        for x in range(0, strip.shape[1], tile):
            part = strip[:, x : x + tile]
            height, width = part.shape[:2]
            yield np.pad(part, ((0, tile - height), (0, tile - width), (0, 0)), mode="edge")


def _write_thumbnail(tiff: tifffile.TiffWriter, spool: _Spool, spec: DemoSpec) -> None:
    step = -(-max(spool.width, spool.height) // THUMBNAIL)
    rows = [strip[:, ::step] for strip in spool.strips(step)]
    image = np.concatenate([row[:1] for row in rows])
    size = (image.shape[1], image.shape[0])
    description = _aperio_description(spec, size).replace(f" ({APERIO_TILE}x{APERIO_TILE})", "")
    tiff.write(image, rowsperstrip=16, description=description, **_JPEG, compressionargs={"level": spec.quality})


def _aperio_description(spec: DemoSpec, size: tuple[int, int]) -> str:
    """Return the text by which Aperio files tell what they are; reduced pages say what they were reduced to."""
    text = f"Aperio Image Library v12.0.15\r\n{spec.width}x{spec.height} [0,0 {spec.width}x{spec.height}]"
    text += f" ({APERIO_TILE}x{APERIO_TILE})"
    if size != (spec.width, spec.height):
        text += f" -> {size[0]}x{size[1]}"
    text += f" JPEG/RGB Q={spec.quality}"
    return text + (f"|AppMag = {10 / spec.mpp:g}|MPP = {spec.mpp:g}" if spec.has_mpp else "")


def score_demo(truth_path: Path, labels_path: Path) -> Scores:
    """Score a run's labels against the truth of a drawn slide, window by window.

    Where the run worked at another mpp, the truth is taken at the centre of each of the run's px.

    Args:
        truth_path: what `draw_slide` wrote.
        labels_path: a `labels.ome.zarr` of that slide.
    """
    truth = zarr.open_array(truth_path, mode="r")
    level, labels_um = _finest_level(labels_path)
    labels = zarr.open_array(level, mode="r")
    truth_um = (_number(truth.attrs["mpp_y"]), _number(truth.attrs["mpp_x"]))
    scale = (labels_um[0] / truth_um[0], labels_um[1] / truth_um[1])
    parts: list[Overlap] = []
    for y in range(0, labels.shape[0], WINDOW):
        for x in range(0, labels.shape[1], WINDOW):
            found = np.asarray(labels[y : y + WINDOW, x : x + WINDOW])
            parts.append(overlap(_truth_window(truth, (y, x), found.shape, scale), found))
        parts = [combine(parts)]
    return scores(combine(parts))


def _finest_level(labels_path: Path) -> tuple[Path, tuple[float, float]]:
    """Return level 0 of an OME-Zarr 0.5 label image and its um per px (y, x)."""
    ome: Any = zarr.open_group(labels_path, mode="r").attrs["ome"]
    dataset = ome["multiscales"][0]["datasets"][0]
    scale = next(step["scale"] for step in dataset["coordinateTransformations"] if step["type"] == "scale")
    return labels_path / dataset["path"], (float(scale[-2]), float(scale[-1]))


def _truth_window(
    truth: Any, start: tuple[int, int], shape: tuple[int, ...], scale: tuple[float, float]
) -> NDArray[np.uint32]:
    """Take the truth at the centres of the label px start..start + shape (row, column)."""
    at = [
        np.minimum(np.floor((first + np.arange(n) + 0.5) * s).astype(np.int64), size - 1)
        for first, n, s, size in zip(start, shape, scale, truth.shape, strict=True)
    ]
    rows, cols = at
    window = np.asarray(truth[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1])
    return window[np.ix_(rows - rows[0], cols - cols[0])]


def _number(value: Any) -> float:
    return float(value)
