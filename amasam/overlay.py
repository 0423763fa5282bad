"""Pictures for people: outlines of truth and result over an image, maps beside it."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

TRUTH_RGB, FOUND_RGB = (255, 221, 0), (0, 229, 255)
_GAP = 4  # px between panels


def outline_mask(labels: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Mark the px of instances that touch another label or background by a side: bool (H, W)."""
    edge = np.zeros(labels.shape, np.bool_)
    down, right = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    return edge & (labels > 0)


def draw_outlines(
    image: NDArray[np.uint8], labels: NDArray[np.int32], colour: tuple[int, int, int]
) -> NDArray[np.uint8]:
    """Return a copy of an RGB image with the outlines of instances drawn on it."""
    drawn = image.copy()
    drawn[outline_mask(labels)] = colour
    return drawn


def side_by_side(panels: Sequence[NDArray[np.uint8]], *, height: int = 0) -> NDArray[np.uint8]:
    """Join RGB or grey panels of one height in a row, scaled to `height` px unless 0."""
    row: list[NDArray[np.uint8]] = []
    for panel in panels:
        rgb = np.repeat(panel[..., None], 3, axis=2) if panel.ndim == 2 else panel
        if height and rgb.shape[0] != height:
            width = max(1, round(rgb.shape[1] * height / rgb.shape[0]))
            rgb = np.asarray(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        row += [rgb, np.full((rgb.shape[0], _GAP, 3), 255, np.uint8)]
    return np.concatenate(row[:-1], axis=1)


def stack_rows(rows: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Put RGB rows of different widths below each other on white."""
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, _GAP), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    return np.concatenate(padded, axis=0)


def draw_comparison(
    image: NDArray[np.uint8], truth: NDArray[np.int32], found: NDArray[np.int32], *, height: int = 0
) -> NDArray[np.uint8]:
    """Return image, truth (yellow) and result (cyan) side by side."""
    panels = [image, draw_outlines(image, truth, TRUTH_RGB), draw_outlines(image, found, FOUND_RGB)]
    return side_by_side(panels, height=height)


def write_rgb(path: Path, image: NDArray[np.uint8]) -> None:
    """Write an RGB picture as PNG, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))[1].tobytes())
    partial.replace(path)
