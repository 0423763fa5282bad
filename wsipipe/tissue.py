"""Which part of a slide is tissue, from a small picture of it.

H&E dyes absorb green more than they absorb red or blue, glass and shadows absorb all three alike, and inks absorb in
other proportions. So the measure is colour, in optical density, against the glass of this very slide; brightness
alone would take dirt, edges of cover slips and vignetting for tissue and lose pale stroma.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from wsipipe.frames import WorkFrame
from wsipipe.grid import TileGrid
from wsipipe.roi import is_geojson, read_mask_image, read_regions
from wsipipe.slide import Slide

log = logging.getLogger(__name__)

MASK_MPP = 8.0  # um per mask px
# Colour (largest minus smallest OD of the three channels, against glass) that divides tissue from glass. Otsu chooses
# within these bounds: real glass stayed below 0.005 at MASK_MPP, so a blank slide stays blank; a slide that is all
# tissue is not halved. 99.1 to 100 % of the nuclei annotated in the five sets lie inside, each image taken alone.
COLOUR_OD_RANGE = (0.020, 0.030)
CLOSE_UM = 40.0  # gaps that are bridged
MARGIN_UM = 16.0  # added around tissue: nuclei at its rim are seen
HOLE_MM2 = 0.05  # smaller holes are filled
DUST_MM2 = 0.004  # smaller pieces are dropped: about 70 x 60 um
_DUST_SHARE = 0.02  # but never a piece larger than this share of the slide

_GLASS_DEFAULT = 245.0  # grey value where a slide shows no glass
_GLASS_MIN = 170  # darker px are not glass
_GLASS_SPREAD = 14  # glass is grey: its channels differ by no more
_GLASS_HUE = (6, 8)  # red above green, or blue above it with red, by more than this is dye: glass had up to 5 and 6
_GLASS_SHARE = 0.005  # of the slide's px must be glass before it is believed
_NO_GLASS_OD = 0.03  # where no glass is seen, px darker than this are tissue whatever their colour
_BLANK = 254  # px this white in all channels are padding, written by the scanner's software


@dataclass(frozen=True, slots=True)
class TissueMask:
    """Where tissue is.

    Attributes:
        mask: bool (H, W) over the whole slide, True = tissue.
        l0_per_px_x, l0_per_px_y: level-0 px per mask px.
        source: "auto", "none" or the path of the file that it came from.
    """

    mask: NDArray[np.bool_]
    l0_per_px_x: float
    l0_per_px_y: float
    source: str

    def area_mm2(self, l0_mpp: tuple[float, float]) -> float:
        """Return the tissue's area, given (x, y) micrometres per level-0 px."""
        px_um2 = self.l0_per_px_x * l0_mpp[0] * self.l0_per_px_y * l0_mpp[1]
        return float(np.count_nonzero(self.mask)) * px_um2 / 1e6


def load_tissue(option: str, slide: Slide) -> TissueMask:
    """Return the tissue mask that the user asked for.

    Args:
        option: "auto" (find it), "none" (the whole slide), or the path of a mask image (nonzero = tissue, covering the
            whole slide at any scale) or of a GeoJSON file with areas in level-0 px, as QuPath exports annotations.
        slide: the slide.

    Raises:
        UsageError: the file is missing, broken, or does not fit the slide.
        SlideReadError: the slide's overview cannot be read.
    """
    if option == "auto":
        return tissue_mask(slide)
    if option == "none":
        height, width = _mask_shape(slide)
        return _over(slide, np.ones((height, width), np.bool_), "none")
    path = Path(option)
    if is_geojson(path):
        return _over(slide, read_regions(path, (slide.width, slide.height), _mask_shape(slide)), option)
    return _over(slide, read_mask_image(path, (slide.width, slide.height)), option)


def tissue_mask(slide: Slide) -> TissueMask:
    """Find the tissue of a slide at about MASK_MPP; an empty mask where there is none."""
    rgb, scale_x, scale_y = slide.thumbnail(max(MASK_MPP, slide.mpp.mean))
    px_um = float(np.sqrt(scale_x * slide.mpp.x * scale_y * slide.mpp.y))
    mask = find_tissue(rgb, px_um)
    log.debug("tissue on %.1f %% of %s", 100 * mask.mean(), slide.path)
    return TissueMask(mask, scale_x, scale_y, "auto")


def tissue_tiles(tissue: TissueMask, grid: TileGrid, frame: WorkFrame) -> NDArray[np.bool_]:
    """Tell which tiles of a grid hold tissue in their core.

    Returns:
        bool (grid.rows, grid.cols).
    """
    height, width = tissue.mask.shape
    rows = _px_ranges(grid.rows, grid.core * frame.scale_y / tissue.l0_per_px_y, height)
    cols = _px_ranges(grid.cols, grid.core * frame.scale_x / tissue.l0_per_px_x, width)
    total = np.zeros((height + 1, width + 1), np.int64)
    total[1:, 1:] = tissue.mask.cumsum(axis=0, dtype=np.int64).cumsum(axis=1)
    (y0, y1), (x0, x1) = rows, cols
    count = total[y1][:, x1] - total[y0][:, x1] - total[y1][:, x0] + total[y0][:, x0]
    return np.asarray(count > 0)


def find_tissue(rgb: NDArray[np.uint8], px_um: float) -> NDArray[np.bool_]:
    """Find tissue in an overview.

    Args:
        rgb: uint8 (H, W, 3).
        px_um: side of its px in micrometres.

    Returns:
        bool (H, W).
    """
    glass = _glass(rgb)
    od = _optical_density(rgb, np.full(3, _GLASS_DEFAULT, np.float32) if glass is None else glass)
    colour = od.max(axis=2) - od.min(axis=2)
    tissue = colour > _threshold(colour)
    if glass is None:
        tissue |= od.mean(axis=2) > _NO_GLASS_OD
    return _tidy(tissue & ~_is_ink(od), px_um)


def find_ink(rgb: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Find pen marks in a picture at about MASK_MPP with glass of common brightness, uint8 (H, W, 3) -> bool (H, W)."""
    return _is_ink(_optical_density(rgb, np.full(3, _GLASS_DEFAULT, np.float32)))


def _glass(rgb: NDArray[np.uint8]) -> NDArray[np.float32] | None:
    """Estimate the colour of bare glass: the most frequent bright grey, float32 (3,), or None where there is none."""
    px = rgb.reshape(-1, 3).astype(np.int16)
    red, green, blue = px.T
    is_dye = (red - green > _GLASS_HUE[0]) | ((blue - green > _GLASS_HUE[1]) & (red >= green))
    is_grey = (np.ptp(px, axis=1) <= _GLASS_SPREAD) & ~is_dye
    darkest = px.min(axis=1)
    grey = px[is_grey & (darkest >= _GLASS_MIN) & (darkest < _BLANK)]
    if len(grey) < max(1, _GLASS_SHARE * len(px)):
        return np.full(3, _BLANK, np.float32) if (darkest >= _BLANK).any() else None
    counts = np.bincount(grey[:, 1], minlength=256)
    mode = int(np.convolve(counts, np.ones(5, np.int64), "same").argmax())
    near = grey[np.abs(grey[:, 1] - mode) <= 2]
    return np.asarray(np.median(near, axis=0), np.float32)


def _optical_density(rgb: NDArray[np.uint8], glass: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return float32 (H, W, 3) OD >= 0 against the glass."""
    levels = np.arange(1, 257, dtype=np.float32)
    levels[1:] = levels[:-1]  # a look-up table of 256 entries, 0 counted as 1
    table = np.maximum(np.log10(glass[:, None] / levels), 0).astype(np.float32)
    return np.stack([table[channel][rgb[..., channel]] for channel in range(3)], axis=2)


def _threshold(colour: NDArray[np.float32]) -> float:
    """Return Otsu's threshold of the colour, kept within COLOUR_OD_RANGE."""
    step = 0.002
    scaled = np.minimum(colour / step, 255).astype(np.uint8)
    otsu, _ = cv2.threshold(scaled, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return float(np.clip(otsu * step, *COLOUR_OD_RANGE))


def _is_ink(od: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Tell pen marks from dyes, bool (H, W).

    Hematoxylin's OD is about (0.65, 0.70, 0.29) and eosin's (0.22, 0.80, 0.56) in R, G, B (QuPath's vectors); over 229
    annotated H&E images, averaged to MASK_MPP, red / green stayed below 1.0 in 99.9 % of the px. Blue and green ink
    absorb red more than green; black ink all three alike; red ink, always strong, absorbs blue nearly as much as green
    and red hardly at all. Purple ink cannot be told from hematoxylin.
    """
    red, green, blue = od[..., 0], od[..., 1], od[..., 2]
    mean = od.mean(axis=2)
    blue_green = (red > 0.12) & (red > 1.15 * green)
    black = (mean > 0.12) & (od.max(axis=2) - od.min(axis=2) < 0.25 * mean)
    red_ink = (green > 0.45) & (blue > 0.82 * green) & (red < 0.2 * green)
    return np.asarray(blue_green | black | red_ink)


def _tidy(tissue: NDArray[np.bool_], px_um: float) -> NDArray[np.bool_]:
    """Bridge gaps, drop dust, fill small holes, add the margin."""
    px_mm2 = (px_um / 1000) ** 2
    closed = cv2.morphologyEx(_framed(tissue), cv2.MORPH_CLOSE, _disk(CLOSE_UM / px_um / 2))[_INNER, _INNER]
    dust_px = min(DUST_MM2 / px_mm2, _DUST_SHARE * tissue.size)
    kept = _without_small(np.asarray(closed, np.uint8), dust_px)
    filled = _without_holes(kept, HOLE_MM2 / px_mm2)
    return np.asarray(cv2.dilate(filled.astype(np.uint8), _disk(MARGIN_UM / px_um)) > 0)


_FRAME_PX = 16
_INNER = slice(_FRAME_PX, -_FRAME_PX)


def _framed(tissue: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Repeat the rim outwards, so that closing treats tissue at the edge as tissue that goes on."""
    framed = cv2.copyMakeBorder(
        tissue.astype(np.uint8), _FRAME_PX, _FRAME_PX, _FRAME_PX, _FRAME_PX, cv2.BORDER_REPLICATE
    )
    return np.asarray(framed)


def _disk(radius_px: float) -> NDArray[np.uint8]:
    radius = min(round(radius_px), _FRAME_PX // 2)
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)))


def _without_small(mask: NDArray[np.uint8], min_px: float) -> NDArray[np.bool_]:
    """Drop 8-connected pieces of fewer than min_px px."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    keep = stats[:, cv2.CC_STAT_AREA] >= min_px
    keep[0] = False
    return np.asarray(keep[labels])


def _without_holes(mask: NDArray[np.bool_], max_px: float) -> NDArray[np.bool_]:
    """Fill background pieces of fewer than max_px px that tissue encloses on all sides."""
    ring = cv2.copyMakeBorder((~mask).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(ring, connectivity=8)
    fill = stats[:, cv2.CC_STAT_AREA] < max_px
    fill[labels[0, 0]] = False  # the ring joins all that reaches the slide's edge
    fill[0] = True
    return np.asarray(fill[labels[1:-1, 1:-1]])


def _px_ranges(count: int, px_per_tile: float, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the half-open ranges of mask px that the tiles of one axis touch."""
    edges = np.arange(count + 1) * px_per_tile
    begin = np.floor(edges[:-1] + 1e-6).astype(np.int64).clip(0, size - 1)
    end = np.ceil(edges[1:] - 1e-6).astype(np.int64).clip(1, size)
    return begin, np.maximum(end, begin + 1)


def _mask_shape(slide: Slide) -> tuple[int, int]:
    """Return (H, W) of a mask at MASK_MPP."""
    return (
        max(1, round(slide.height * slide.mpp.y / MASK_MPP)),
        max(1, round(slide.width * slide.mpp.x / MASK_MPP)),
    )


def _over(slide: Slide, mask: NDArray[np.bool_], source: str) -> TissueMask:
    return TissueMask(mask, slide.width / mask.shape[1], slide.height / mask.shape[0], source)
