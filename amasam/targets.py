"""What the network shall paint: foreground, and per-instance maps that tell touching nuclei apart [X].

Distance + boundary are the default. A study on these data (docs/amasam.md) found markers from a normalised distance map
ahead of horizontal/vertical offsets, boundary alone and connected components. A distance is also a *local* height: the
peak that splits two nuclei is found within one nucleus diameter, while offsets need gradients that ring around every
gap, and it is one map to store instead of two. Horizontal/vertical offsets stay available by name.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

BOUNDARY_PX = 1.5  # inner rim: pixels within this distance (px, between pixel centres) of another label

FloatMap = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Targets:
    """Truth of one patch.

    Attributes:
        foreground: uint8 (H, W), 1 inside any nucleus.
        maps: float16 (K, H, W), one per requested map.
    """

    foreground: NDArray[np.uint8]
    maps: NDArray[np.float16]


def make_targets(labels: NDArray[np.int32], map_names: Sequence[str], *, margin: int = 0) -> Targets:
    """Paint the targets of a label window and cut its margin off.

    Instances cut by the window are measured as far as they are seen: the window's edge is no boundary, so give a margin
    of a nucleus radius (32 px at 0.25 um/px) and a nucleus cut by the patch itself keeps its true distances.

    Args:
        labels: int32 (H + 2 margin, W + 2 margin), 0 = background.
        map_names: of MAP_NAMES, in the order of the maps wanted.
        margin: px cut off on every side.

    Returns:
        Targets of the (H, W) middle.
    """
    core = (slice(margin, labels.shape[0] - margin), slice(margin, labels.shape[1] - margin))
    squared = squared_distance(labels) if {"distance", "boundary"} & set(map_names) else None
    painted = [_PAINTERS[name](labels, squared)[core] for name in map_names]
    foreground = (labels[core] > 0).astype(np.uint8)
    maps = np.stack(painted).astype(np.float16) if painted else np.zeros((0, *foreground.shape), np.float16)
    return Targets(foreground, maps)


def squared_distance(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Exact squared Euclidean distance of every nucleus pixel to the nearest pixel of another label.

    Args:
        labels: int32 (H, W), 0 = background.

    Returns:
        int32 (H, W) in px^2, 0 on background, >= 1 inside; pixels outside the window count as of the same label.
    """
    return np.asarray(_squared_distance(np.ascontiguousarray(labels, np.int32)))


def distance_map(labels: NDArray[np.int32], squared: NDArray[np.int32]) -> FloatMap:
    """Distance divided by its instance's maximum: float32 (H, W) in 0..1, 1 at each instance's middle."""
    distance = np.sqrt(squared, dtype=np.float32)
    return np.asarray(_divide_by_peak(np.ascontiguousarray(labels, np.int32), distance))


def boundary_map(squared: NDArray[np.int32]) -> FloatMap:
    """1 on the inner rim of every instance, towards background and towards touching instances alike."""
    return ((squared > 0) & (squared <= BOUNDARY_PX**2)).astype(np.float32)


def offset_maps(labels: NDArray[np.int32]) -> FloatMap:
    """HoVer-Net's maps: float32 (2, H, W), x and y offset from the instance's centroid, each side scaled to reach 1."""
    return np.asarray(_offsets(np.ascontiguousarray(labels, np.int32)))


def _given(squared: NDArray[np.int32] | None) -> NDArray[np.int32]:
    assert squared is not None, "make_targets measures distances whenever a map needs them"
    return squared


_PAINTERS: dict[str, Callable[[NDArray[np.int32], NDArray[np.int32] | None], FloatMap]] = {
    "distance": lambda labels, squared: distance_map(labels, _given(squared)),
    "boundary": lambda _, squared: boundary_map(_given(squared)),
    "horizontal": lambda labels, _: offset_maps(labels)[0],
    "vertical": lambda labels, _: offset_maps(labels)[1],
}
MAP_NAMES = tuple(_PAINTERS)


@njit(cache=True, nogil=True)
def _row_distance(labels: NDArray[np.int32]) -> NDArray[np.int32]:  # pragma: no cover
    """Px to the nearest pixel of another label in the same row; height + width where the row has none."""
    height, width = labels.shape
    far = height + width
    out = np.empty((height, width), np.int32)
    for y in range(height):
        run = far
        for x in range(width):
            if x > 0 and labels[y, x] != labels[y, x - 1]:
                run = 0
            run = min(run + 1, far)
            out[y, x] = run
        run = far
        for x in range(width - 1, -1, -1):
            if x < width - 1 and labels[y, x] != labels[y, x + 1]:
                run = 0
            run = min(run + 1, far)
            out[y, x] = min(out[y, x], run)
    return out


@njit(cache=True, nogil=True)
def _squared_distance(labels: NDArray[np.int32]) -> NDArray[np.int32]:  # pragma: no cover
    """Row pass, then column pass that stops at the first other label: nothing behind it can be nearer."""
    height, width = labels.shape
    in_row = _row_distance(labels)
    out = np.zeros((height, width), np.int32)
    for y in range(height):
        for x in range(width):
            if labels[y, x] == 0:
                continue
            best = in_row[y, x] * in_row[y, x]
            for step in (-1, 1):
                row = y + step
                while 0 <= row < height and (row - y) * (row - y) < best:
                    across = in_row[row, x] if labels[row, x] == labels[y, x] else 0
                    best = min(best, (row - y) * (row - y) + across * across)
                    row += step
            out[y, x] = best
    return out


@njit(cache=True, nogil=True)
def _divide_by_peak(labels: NDArray[np.int32], values: FloatMap) -> FloatMap:  # pragma: no cover
    """Scale every instance to a maximum of 1."""
    peak = np.zeros(labels.max() + 1, np.float32)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            peak[labels[y, x]] = max(peak[labels[y, x]], values[y, x])
    out = np.zeros(labels.shape, np.float32)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            if labels[y, x] > 0:
                out[y, x] = values[y, x] / peak[labels[y, x]]
    return out


@njit(cache=True, nogil=True)
def _offsets(labels: NDArray[np.int32]) -> FloatMap:  # pragma: no cover
    """Offsets from the centroid; the negative and the positive side are scaled apart, as HoVer-Net's targets are."""
    count = labels.max() + 1
    sums = np.zeros((3, count), np.float64)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            sums[0, labels[y, x]] += x
            sums[1, labels[y, x]] += y
            sums[2, labels[y, x]] += 1
    reach = np.zeros((2, 2, count), np.float64)
    out = np.zeros((2, labels.shape[0], labels.shape[1]), np.float32)
    for scaling in (False, True):
        for y in range(labels.shape[0]):
            for x in range(labels.shape[1]):
                label = labels[y, x]
                if label == 0:
                    continue
                for axis in range(2):
                    offset = (x if axis == 0 else y) - sums[axis, label] / sums[2, label]
                    side = 1 if offset > 0 else 0
                    if scaling:
                        out[axis, y, x] = offset / max(reach[axis, side, label], 1e-6)
                    else:
                        reach[axis, side, label] = max(reach[axis, side, label], abs(offset))
    return out
