"""Checks of labels.ome.zarr: metadata, pyramid, and the pixels of each label."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zarr
from numba import njit
from numpy.typing import NDArray
from ome_zarr_models.v05.image_label import ImageLabel

from wsipipe.findings import Findings
from wsipipe.labels import (
    FORMAT_VERSION,
    Shard,
    level_sizes,
    level_transform,
    list_shards,
    read_labels,
    reduced_shard,
    shard_path,
)
from wsipipe.provenance import Provenance

NAME = "labels.ome.zarr"
# what zarr, its codecs and pydantic raise for files that are missing, damaged or of another kind
UNREADABLE = (OSError, ValueError, RuntimeError, KeyError, TypeError)


@dataclass(frozen=True, slots=True)
class LabelPixels:
    """Pixels of labels 1..n, work px; index 0 is unused.

    Attributes:
        count: int64 (n + 1,).
        centre: float64 (n + 1, 2), x, y of the centroid, edges of pixels at whole numbers; NaN without pixels.
    """

    count: NDArray[np.int64]
    centre: NDArray[np.float64]


def check_labels(folder: Path, provenance: Provenance, n: int, findings: Findings) -> LabelPixels | None:
    """Check the label image.

    Args:
        folder: the slide folder.
        provenance: what the label image must say of itself.
        n: labels must be 1..n.
        findings: gets the problems.

    Returns:
        The pixels of each label; None if the image cannot be read.
    """
    path = folder / NAME
    try:
        _check_metadata(path, provenance, findings)
        pixels = _count_pixels(path, provenance, n, findings)
        _check_pyramid(path, provenance, findings)
    except UNREADABLE as error:
        findings.add(f"{NAME}: cannot be read ({_short(error)})")
        return None
    return pixels


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:200]


def _check_metadata(path: Path, provenance: Provenance, findings: Findings) -> None:
    group = zarr.open_group(store=str(path), mode="r")
    try:
        multiscale = ImageLabel.from_zarr(group).ome_attributes.multiscales[0]
    except UNREADABLE as error:
        findings.add(f"{NAME}: metadata is not OME-Zarr 0.5 ({_short(error)})")
        return
    frame = provenance.frame
    if group.attrs.asdict().get("wsipipe") != provenance.to_json(FORMAT_VERSION):
        findings.add(f"{NAME}: was written for another slide, model or frame than run.json tells")
    if len(multiscale.datasets) != len(level_sizes(frame)):
        findings.add(f"{NAME}: must have {len(level_sizes(frame))} levels, has {len(multiscale.datasets)}")
        return
    for level, (width, height) in enumerate(level_sizes(frame)):
        dataset, array = multiscale.datasets[level], zarr.open_array(store=str(path / str(level)), mode="r")
        if array.shape != (height, width) or array.dtype != np.uint32:
            findings.add(f"{NAME}: level {level} must be uint32 {(height, width)}, is {array.dtype} {array.shape}")
        stated = [transform.model_dump() for transform in dataset.coordinateTransformations]
        if not _same_transform(stated, level_transform(frame, level)):
            findings.add(f"{NAME}: scale or translation of level {level} is not that of the work grid")


def _same_transform(stated: list[dict[str, object]], expected: list[dict[str, object]]) -> bool:
    if [item["type"] for item in stated] != [item["type"] for item in expected]:
        return False
    return all(
        np.allclose(np.asarray(a[str(a["type"])], dtype=float), np.asarray(b[str(b["type"])], dtype=float), atol=1e-9)
        for a, b in zip(stated, expected, strict=True)
    )


def _count_pixels(path: Path, provenance: Provenance, n: int, findings: Findings) -> LabelPixels:
    sums = np.zeros((n + 1, 3), dtype=np.int64)
    for shard in list_shards(provenance.frame, 0):
        if shard_path(path, 0, shard.row, shard.col).exists():
            labels = read_labels(path, shard.box)
            findings.add_if(f"{NAME}: labels beyond {n}, the number of nuclei", np.unique(labels[labels > n]).tolist())
            _add_pixels(labels, shard.box.x0, shard.box.y0, sums)
    findings.add_if(f"{NAME}: labels without a pixel", (np.flatnonzero(sums[1:, 0] == 0) + 1).tolist())
    count = sums[:, 0]
    centre = np.full((n + 1, 2), np.nan)
    there = count > 0
    centre[there] = sums[there, 1:] / count[there, None] + 0.5
    return LabelPixels(count, centre)


def _check_pyramid(path: Path, provenance: Provenance, findings: Findings) -> None:
    for level in range(1, len(level_sizes(provenance.frame))):
        for shard in list_shards(provenance.frame, level):
            if _is_stored(path, shard) and not np.array_equal(
                read_labels(path, shard.box, level), reduced_shard(path, shard)
            ):
                where = f"shard {shard.row}/{shard.col}"
                findings.add(f"{NAME}: level {level} is not the halved level {level - 1}", [where])


def _is_stored(path: Path, shard: Shard) -> bool:
    """Whether a shard or any of those below it exists."""
    cells = [(2 * shard.row + dy, 2 * shard.col + dx) for dy in (0, 1) for dx in (0, 1)]
    below = (shard_path(path, shard.level - 1, row, col) for row, col in cells)
    return shard_path(path, shard.level, shard.row, shard.col).exists() or any(file.exists() for file in below)


@njit(cache=True, nogil=True)
def _add_pixels(labels, x_origin, y_origin, sums):  # type: ignore[no-untyped-def]
    """Add count, x and y of each pixel to its label's row of sums; labels beyond it are left out."""
    for row in range(labels.shape[0]):
        for col in range(labels.shape[1]):
            label = labels[row, col]
            if 0 < label < len(sums):
                sums[label, 0] += 1
                sums[label, 1] += col + x_origin
                sums[label, 2] += row + y_origin
