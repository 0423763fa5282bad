"""Pictures for people: the overview of a slide, and outlines over pixels at full resolution."""

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from wsipipe.atomic import replacing
from wsipipe.nuclei import Outlines

Image = NDArray[np.uint8]
Colour = tuple[int, int, int]

TISSUE_COLOUR: Colour = (0, 130, 60)
INK: Colour = (30, 30, 30)
BIN_UM = 100.0  # side of a density bin, but the longer side of a slide has between MIN_BINS and MAX_BINS of them
MIN_BINS, MAX_BINS = 20, 400
LENGTH_STEPS = (1, 2, 5, 10)  # of the scale bar
BAR_STEPS = (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10)  # of the colour bar: a quarter of each is a short number
EMPTY_TOP = 1000.0  # nuclei per mm2 at the top of the colour bar of a slide without nuclei
PANEL_MIN, PANEL_MAX = 480, 1100  # px of a panel's longer side
GAP, BAND, BAR_WIDTH = 24, 56, 150  # px: between panels, title band, column of the colour bar
_SUBPIXEL = 4  # bits that OpenCV takes as a fraction


@dataclass(frozen=True, slots=True)
class Density:
    """Nuclei per mm2 in square bins over a slide, float64 (rows, cols); bins at the edge count only what is inside."""

    per_mm2: NDArray[np.float64]
    bin_um: float


def count_density(
    centroids_l0: NDArray[np.float64], l0_size: tuple[int, int], l0_mpp: tuple[float, float], *, bin_um: float
) -> Density:
    """Count nuclei in square bins.

    Args:
        centroids_l0: (n, 2) x, y, l0 px.
        l0_size: (width, height) of the slide, l0 px.
        l0_mpp: (x, y) micrometres per l0 px.
        bin_um: side of a bin, micrometres.
    """
    width, height = (size * mpp for size, mpp in zip(l0_size, l0_mpp, strict=True))
    x_edges, y_edges = (np.minimum(np.arange(_bins(size, bin_um) + 1) * bin_um, size) for size in (width, height))
    cells = np.floor(centroids_l0 * np.array(l0_mpp) / bin_um).astype(np.int64)
    cols, rows = (np.clip(cells[:, k], 0, len(edges) - 2) for k, edges in enumerate((x_edges, y_edges)))
    counts = np.bincount(rows * (len(x_edges) - 1) + cols, minlength=(len(y_edges) - 1) * (len(x_edges) - 1))
    areas_mm2 = np.outer(np.diff(y_edges), np.diff(x_edges)) / 1e6
    return Density(counts.reshape(areas_mm2.shape) / areas_mm2, bin_um)


def _bins(size_um: float, bin_um: float) -> int:
    return max(1, math.ceil(size_um / bin_um - 1e-9))


def draw_overview(
    path: Path,
    thumbnail: Image,
    *,
    l0_size: tuple[int, int],
    l0_mpp: tuple[float, float],
    tissue: NDArray[np.bool_],
    centroids_l0: NDArray[np.float64],
) -> None:
    """Write overview.png: the slide with its tissue outline and a scale bar, and beside it the density of nuclei.

    Args:
        path: target, a PNG.
        thumbnail: uint8 (h, w, 3) RGB of the whole slide, any size.
        l0_size: (width, height) of the slide, l0 px.
        l0_mpp: (x, y) micrometres per l0 px.
        tissue: bool (H, W) over the whole slide, any size.
        centroids_l0: (n, 2) x, y, l0 px.
    """
    longest_um = max(size * mpp for size, mpp in zip(l0_size, l0_mpp, strict=True))
    bin_um = max(min(BIN_UM, longest_um / MIN_BINS), longest_um / MAX_BINS, BIN_UM / 10)
    density = count_density(centroids_l0, l0_size, l0_mpp, bin_um=bin_um)
    panel = _fit(thumbnail)
    tissue_mm2 = float(tissue.mean()) * math.prod(l0_size) * math.prod(l0_mpp) / 1e6 if tissue.size else 0.0
    left = _tissue_panel(panel, tissue)
    _draw_scale_bar(left, l0_size[0] * l0_mpp[0] / left.shape[1])
    typical = float(np.quantile(density.per_mm2[density.per_mm2 > 0], 0.98)) if len(centroids_l0) else EMPTY_TOP
    top = _ceiling(BAR_STEPS, typical)
    right = _density_panel(panel, density, top, l0_size, l0_mpp)
    titles = (f"Tissue {tissue_mm2:.2f} mm2", f"{len(centroids_l0):,} nuclei; colour: nuclei per mm2")
    image = _compose((left, right), titles, top)
    done, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 6])
    if not done:
        raise ValueError(f"overview of shape {image.shape} cannot be encoded as PNG")
    with replacing(path) as partial:
        partial.write_bytes(data.tobytes())


def _fit(image: Image) -> Image:
    """Resize so that the longer side is between PANEL_MIN and PANEL_MAX px."""
    longest = max(image.shape[:2])
    factor = min(max(longest, PANEL_MIN), PANEL_MAX) / longest
    size = max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor))
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(image, size, interpolation=how), dtype=np.uint8)


def _tissue_panel(panel: Image, tissue: NDArray[np.bool_]) -> Image:
    """Draw the outline of the tissue; what is not tissue turns paler."""
    height, width = panel.shape[:2]
    mask = cv2.resize(tissue.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    out = panel.copy()
    out[mask == 0] = 255 - (255 - out[mask == 0]) // 2
    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(out, contours, -1, TISSUE_COLOUR, 2, cv2.LINE_AA)
    return out


def _density_panel(
    panel: Image, density: Density, top: float, l0_size: tuple[int, int], l0_mpp: tuple[float, float]
) -> Image:
    """Lay the heat map over a grey thumbnail; bins without nuclei stay grey."""
    height, width = panel.shape[:2]
    um_x, um_y = l0_size[0] * l0_mpp[0] / width, l0_size[1] * l0_mpp[1] / height
    rows = np.minimum(((np.arange(height) + 0.5) * um_y / density.bin_um).astype(np.int64), len(density.per_mm2) - 1)
    cols = np.minimum(((np.arange(width) + 0.5) * um_x / density.bin_um).astype(np.int64), density.per_mm2.shape[1] - 1)
    values = density.per_mm2[np.ix_(rows, cols)]  # (bins, bins) -> (height, width)
    heat = _heat(values / top)
    grey = np.repeat(cv2.cvtColor(panel, cv2.COLOR_RGB2GRAY)[:, :, None], 3, axis=2)
    blend = (0.25 * grey + 0.75 * heat).astype(np.uint8)
    return np.where((values > 0)[:, :, None], blend, grey // 2 + 127).astype(np.uint8)


def _heat(share: NDArray[np.float64]) -> Image:
    levels = (np.clip(share, 0, 1) * 255).astype(np.uint8)
    return np.asarray(cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _compose(panels: tuple[Image, Image], titles: tuple[str, str], top: float) -> Image:
    """Set the panels side by side, or one above the other when they are wide, with titles and the colour bar."""
    height, width = panels[0].shape[:2]
    stacked = width > 1.4 * height
    step_x, step_y = (0, height + BAND) if stacked else (max(width, PANEL_MIN) + GAP, 0)
    canvas_width = GAP + step_x + max(width, PANEL_MIN) + BAR_WIDTH
    out = np.full((max(BAND + step_y + height, PANEL_MIN // 2) + GAP, canvas_width, 3), 255, dtype=np.uint8)
    for k, (panel, title) in enumerate(zip(panels, titles, strict=True)):
        x, y = GAP + k * step_x, BAND + k * step_y
        out[y : y + height, x : x + width] = panel
        cv2.rectangle(out, (x - 1, y - 1), (x + width, y + height), (190, 190, 190), 1)
        _write_text(out, title, (x, y - 16), 0.8)
    _draw_colour_bar(out, GAP + step_x + width + 20, BAND + step_y, max(height, PANEL_MIN // 3), top)
    return out


def _draw_colour_bar(out: Image, x: int, y: int, height: int, top: float) -> None:
    height = min(height, out.shape[0] - y - GAP)
    ramp = _heat(np.linspace(1, 0, height)[:, None].repeat(22, axis=1))
    out[y : y + height, x : x + 22] = ramp
    for k in range(5):
        at = y + round((height - 1) * (1 - k / 4))
        cv2.line(out, (x + 22, at), (x + 28, at), INK, 1)
        _write_text(out, f"{top * k / 4:,.0f}{'+' if k == 4 else ''}", (x + 34, at + 6), 0.6)


def _draw_scale_bar(panel: Image, um_per_px: float) -> None:
    """Draw a bar of a round length, about a fifth of the panel, at its lower left."""
    length_um = _ceiling(LENGTH_STEPS, panel.shape[1] * um_per_px / 8)
    length = max(1, round(length_um / um_per_px))
    text = f"{length_um / 1000:g} mm" if length_um >= 1000 else f"{length_um:g} um"
    x, y = 12, panel.shape[0] - 14
    if panel.shape[0] < 60:
        return
    (text_width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.6, 1)
    panel[y - 34 : y + 8, x - 6 : x + max(length, text_width) + 6] = 255
    cv2.line(panel, (x, y), (x + length, y), INK, 4)
    _write_text(panel, text, (x, y - 10), 0.6)


def _ceiling(steps: tuple[float, ...], value: float) -> float:
    """Return the smallest of the steps, times a power of ten, that is at least value; the last step is 10."""
    power = 10.0 ** math.floor(math.log10(value))
    return float(next(step * power for step in steps if step * power >= value * (1 - 1e-9)))


def _write_text(image: Image, text: str, at: tuple[int, int], size: float) -> None:
    cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, INK, 1, cv2.LINE_AA)


def draw_outlines(
    rgb: Image,
    outlines: Outlines,
    colour: Colour = (255, 220, 0),
    *,
    origin: tuple[float, float] = (0, 0),
    zoom: int = 1,
) -> Image:
    """Draw outlines over pixels.

    Args:
        rgb: uint8 (h, w, 3), left as it is.
        outlines: in the frame of rgb's pixels, edges of pixels at whole numbers.
        colour: RGB.
        origin: x, y of rgb's top left corner in that frame.
        zoom: px drawn per px of rgb, so that lines of one px leave the pixels visible.

    Returns:
        uint8 (h * zoom, w * zoom, 3).
    """
    out = np.ascontiguousarray(rgb.repeat(zoom, axis=0).repeat(zoom, axis=1))
    # OpenCV counts from the centre of the first pixel
    points = (outlines.coords - np.asarray(origin, dtype=np.float64)) * zoom - 0.5
    fixed = np.rint(points * (1 << _SUBPIXEL)).astype(np.int32)
    rings = [fixed[a:b] for a, b in zip(outlines.ring_starts[:-1], outlines.ring_starts[1:], strict=True)]
    cv2.polylines(out, rings, True, colour, 1, cv2.LINE_AA, _SUBPIXEL)
    return out
