"""Small fields of a slide at full resolution with the outlines that were found: typical, densest, most suspicious."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from wsipipe.drawing import Colour, draw_outlines
from wsipipe.frames import WorkFrame
from wsipipe.grid import Box
from wsipipe.nuclei import Outlines
from wsipipe.slide import Slide

FIELD_UM = 112.0  # side of a field
PER_KIND = 3
KINDS = ("typical", "densest", "most suspicious")
MIN_NUCLEI = 5  # of a typical field
REACH_UM = 15.0  # nuclei whose centroid is this far outside a field may still show in it
RAGGED_SOLIDITY = 0.8  # below, an outline is hardly that of a nucleus
COLUMNS = (
    "centroid_x_l0",
    "centroid_y_l0",
    "area_um2",
    "hematoxylin_od_mean",
    "is_outlier",
    "in_artefact",
    "solidity",
)
PLAIN: Colour = (255, 220, 0)
OUTLIER: Colour = (255, 70, 0)
ARTEFACT: Colour = (0, 225, 255)


@dataclass(frozen=True, slots=True)
class Field:
    """A field to show.

    Attributes:
        kind: one of KINDS.
        x_um, y_um: top left corner.
        nuclei: whose centroid lies inside.
        doubtful: of them, outliers, in artefacts, or of a solidity below RAGGED_SOLIDITY.
    """

    kind: str
    x_um: float
    y_um: float
    nuclei: int
    doubtful: int


def choose_fields(nuclei: pa.Table, frame: WorkFrame) -> list[Field]:
    """Choose fields on a lattice, no field twice; the same nuclei give the same fields.

    Args:
        nuclei: COLUMNS of nuclei.parquet.
        frame: the work grid on the slide.

    Returns:
        At most PER_KIND of each kind, in the order of KINDS. Typical fields are those whose number of nuclei, mean area
        and mean hematoxylin come closest to the medians over all fields with nuclei.
    """
    x, y = (nuclei[name].to_numpy() for name in COLUMNS[:2])
    per_row = max(1, math.ceil(frame.l0_width * frame.l0_mpp_x / FIELD_UM))
    cell = (y * frame.l0_mpp_y // FIELD_UM).astype(np.int64) * per_row + (x * frame.l0_mpp_x // FIELD_UM).astype(int)
    places, member = np.unique(cell, return_inverse=True)
    count = np.bincount(member, minlength=len(places))
    is_odd = nuclei["is_outlier"].to_numpy() | nuclei["in_artefact"].to_numpy()
    is_odd |= nuclei["solidity"].to_numpy() < RAGGED_SOLIDITY
    doubtful = np.bincount(member, is_odd, minlength=len(places)).astype(np.int64)
    means = [np.bincount(member, nuclei[name].to_numpy(), minlength=len(places)) / count for name in COLUMNS[2:4]]
    order: dict[str, list[int]] = {
        "most suspicious": [i for i in np.lexsort((places, -count, -doubtful)).tolist() if doubtful[i]],
        "densest": np.lexsort((places, -count)).tolist(),
        "typical": [
            i for i in np.lexsort((places, _oddity([np.log(count), *means]))).tolist() if count[i] >= MIN_NUCLEI
        ],
    }
    taken: dict[int, str] = {}
    for _ in range(PER_KIND):  # in turns, so that a small slide shows something of each kind
        for kind, ranked in order.items():
            taken |= dict.fromkeys([i for i in ranked if i not in taken][:1], kind)
    return [
        Field(kind, places[i] % per_row * FIELD_UM, places[i] // per_row * FIELD_UM, int(count[i]), int(doubtful[i]))
        for kind in KINDS
        for i in taken
        if taken[i] == kind
    ]


def _oddity(features: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return how far each field is from the median field, in median absolute deviations, summed over features."""
    total = np.zeros(len(features[0]))
    for values in features:
        away = np.abs(values - np.median(values)) if len(values) else values
        scale = float(np.median(away)) if len(values) else 0.0
        total += away / scale if scale > 0 else away
    return total


def draw_field(
    field: Field, slide: Slide, frame: WorkFrame, nuclei: pa.Table, file: pq.ParquetFile
) -> NDArray[np.uint8]:
    """Draw a field with its outlines.

    Args:
        field: what to show.
        slide: to read its pixels.
        frame: the work grid on the slide.
        nuclei: COLUMNS of all rows of file.
        file: nuclei.parquet.

    Returns:
        uint8 (H, W, 3) RGB at the work grid's resolution.
    """
    x, y = field.x_um / frame.mpp_x, field.y_um / frame.mpp_y
    box = Box(round(x), round(y), round(x + FIELD_UM / frame.mpp_x), round(y + FIELD_UM / frame.mpp_y))
    image = slide.read(box, frame)
    rows = _rows_near(field, nuclei, frame)
    polygons = shapely.from_wkb(_geometry(file, rows))
    odd, poor = (nuclei[name].take(pa.array(rows)).to_numpy() for name in ("is_outlier", "in_artefact"))
    for chosen, colour in ((~odd & ~poor, PLAIN), (poor & ~odd, ARTEFACT), (odd, OUTLIER)):
        outlines = to_outlines(polygons[chosen], (frame.scale_x, frame.scale_y))
        image = draw_outlines(image, outlines, colour, origin=(box.x0, box.y0))
    return image


def _rows_near(field: Field, nuclei: pa.Table, frame: WorkFrame) -> NDArray[np.int64]:
    x = nuclei["centroid_x_l0"].to_numpy() * frame.l0_mpp_x - field.x_um
    y = nuclei["centroid_y_l0"].to_numpy() * frame.l0_mpp_y - field.y_um
    low, high = -REACH_UM, FIELD_UM + REACH_UM
    return np.flatnonzero((x > low) & (x < high) & (y > low) & (y < high))


def _geometry(file: pq.ParquetFile, rows: NDArray[np.int64]) -> NDArray[np.object_]:
    """Return the WKB of ascending row numbers; only their row groups are read."""
    found: list[bytes] = []
    start = 0
    for group in range(file.num_row_groups):
        stop = start + file.metadata.row_group(group).num_rows
        inside = rows[(rows >= start) & (rows < stop)] - start
        if len(inside):
            found += file.read_row_group(group, columns=["geometry"])["geometry"].take(pa.array(inside)).to_pylist()
        start = stop
    return np.array(found, dtype=object)


def to_outlines(polygons: NDArray[np.object_], scale: tuple[float, float]) -> Outlines:
    """Return shapely polygons as outlines, their coordinates divided by scale (x, y)."""
    if not len(polygons):
        return Outlines(np.zeros((0, 2)), np.zeros(1, np.int64), np.zeros(1, np.int64))
    _, coords, (ring_starts, polygon_starts) = shapely.to_ragged_array(polygons)
    return Outlines(coords / np.array(scale), ring_starts.astype(np.int64), polygon_starts.astype(np.int64))


def to_jpeg(image: NDArray[np.uint8], quality: int = 82) -> bytes:
    """Encode RGB pixels for a page."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError(f"image of shape {image.shape} cannot be encoded as JPEG")
    return bytes(data.tobytes())
