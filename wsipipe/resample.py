"""Resampling on an absolute grid: the value of a px never depends on which box was asked for.

Along each axis every output px is a weighted sum of a few source px (its taps). Taps are computed from the px's
absolute index, and sums are integers, so the result is the same bytes for any box and on any machine.
"""

import math
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

WEIGHT_BITS = 14  # the taps of one px sum to exactly 1 << WEIGHT_BITS
_CARRY_BITS = 8  # dropped between the two passes: 14 + 8 bits of value fit 32-bit sums


@dataclass(frozen=True, slots=True)
class Axis:
    """How one axis of the work grid lies on one level of the slide; both begin at the same point.

    Attributes:
        step: level px per work px.
        size: level px that exist; work px beyond them repeat the last one.
    """

    step: float
    size: int

    @property
    def is_copy(self) -> bool:
        """Whether work px and level px are the same squares."""
        return abs(self.step - 1) < 1e-9


@dataclass(frozen=True, slots=True)
class Taps:
    """Weights of n output px: px i is the sum over k of weight[i, k] * source[start[i] + k], >> WEIGHT_BITS.

    Attributes:
        start: int64 (n,), source px; start[i] + k may pass the last px only where weight[i, k] is 0.
        weight: int32 (n, k) >= 0, every row sums to 1 << WEIGHT_BITS.
    """

    start: NDArray[np.int64]
    weight: NDArray[np.int32]

    @property
    def span(self) -> tuple[int, int]:
        """Half-open range of source px that carry weight."""
        used = self.start[:, None] + np.arange(self.weight.shape[1])
        return int(self.start.min()), int(used[self.weight > 0].max()) + 1


def axis_taps(axis: Axis, begin: int, end: int) -> Taps:
    """Return the taps of work px begin..end: bilinear where px get smaller, else the exact area average."""
    index = np.arange(begin, end, dtype=np.float64)
    return _bilinear_taps(axis, index) if axis.step < 1 - 1e-9 else _area_taps(axis, index)


def _area_taps(axis: Axis, index: NDArray[np.float64]) -> Taps:
    low = np.minimum(index * axis.step, axis.size)
    high = np.minimum((index + 1) * axis.step, axis.size)
    start = np.minimum(np.floor(low).astype(np.int64), axis.size - 1)
    px = start[:, None] + np.arange(math.ceil(axis.step) + 1)
    cover = np.minimum(high[:, None], px + 1) - np.maximum(low[:, None], px)
    return Taps(start, _whole_weights(np.maximum(cover, 0)))


def _bilinear_taps(axis: Axis, index: NDArray[np.float64]) -> Taps:
    centre = np.clip((index + 0.5) * axis.step - 0.5, 0, axis.size - 1)
    start = np.floor(centre)
    part = centre - start
    return Taps(start.astype(np.int64), _whole_weights(np.stack([1 - part, part], axis=1)))


def _whole_weights(cover: NDArray[np.float64]) -> NDArray[np.int32]:
    """Round rows of weights to integers of the promised sum; the heaviest tap takes what rounding left."""
    cover[cover.sum(axis=1) <= 0, 0] = 1  # a px wholly past the last source px repeats it
    share = cover / cover.sum(axis=1, keepdims=True)
    whole: NDArray[np.int32] = np.rint(share * (1 << WEIGHT_BITS)).astype(np.int32)
    rows = np.arange(len(whole))
    whole[rows, whole.argmax(axis=1)] += (1 << WEIGHT_BITS) - whole.sum(axis=1, dtype=np.int32)
    return whole


def resample(source: NDArray[np.uint8], rows: Taps, cols: Taps) -> NDArray[np.uint8]:
    """Resample an RGB window.

    Args:
        source: uint8 (h, w, 3), source px rows.span x cols.span.
        rows: taps of the output rows.
        cols: taps of the output columns.

    Returns:
        uint8 (len(rows.start), len(cols.start), 3).
    """
    (top, bottom), (left, right) = rows.span, cols.span
    if source.shape != (bottom - top, right - left, 3):
        raise ValueError(f"source must be {(bottom - top, right - left, 3)}, got {source.shape}")
    out = np.empty((len(rows.start), len(cols.start), 3), np.uint8)
    flat = np.ascontiguousarray(source).reshape(bottom - top, -1)
    _resample(flat, rows.start - top, rows.weight, cols.start - left, cols.weight, out)
    return out


@numba.njit(cache=True, nogil=True)
def _resample(
    source: NDArray[np.uint8],
    row_start: NDArray[np.int64],
    row_weight: NDArray[np.int32],
    col_start: NDArray[np.int64],
    col_weight: NDArray[np.int32],
    out: NDArray[np.uint8],
) -> None:
    width = source.shape[1]
    total = np.empty(width, np.int32)
    carry_half = np.int32(1 << (_CARRY_BITS - 1))
    shift = 2 * WEIGHT_BITS - _CARRY_BITS
    half = np.int32(1 << (shift - 1))
    for r in range(out.shape[0]):
        total[:] = carry_half
        for k in range(row_weight.shape[1]):
            weight = row_weight[r, k]
            if weight:
                line = source[row_start[r] + k]
                for i in range(width):
                    total[i] += weight * np.int32(line[i])
        for i in range(width):
            total[i] >>= _CARRY_BITS
        for c in range(out.shape[1]):
            red = green = blue = half
            first = 3 * col_start[c]
            for k in range(col_weight.shape[1]):
                weight = col_weight[c, k]
                if weight:
                    at = first + 3 * k
                    red += weight * total[at]
                    green += weight * total[at + 1]
                    blue += weight * total[at + 2]
            out[r, c, 0] = red >> shift
            out[r, c, 1] = green >> shift
            out[r, c, 2] = blue >> shift
