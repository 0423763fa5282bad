"""The compiled loop behind `geojson`: arrays of nuclei in, the bytes of their GeoJSON features out."""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Starts = NDArray[np.int64]

COORDINATE_DECIMALS = 2
_FIXED = (
    b',\n{"type":"Feature","id":"',
    b'","geometry":{"type":"Polygon","coordinates":[',
    b']},"properties":{"objectType":"detection","classification":',
    b',"measurements":{',
    b"}}}",
)
_VERTEX_BYTES = 32  # "[-1234567890.12,-1234567890.12]," at most
_VALUE_BYTES = 24  # sign, 19 digits of an int64, point, comma


@dataclass(frozen=True, slots=True)
class Features:
    """Nuclei of one call.

    Attributes:
        coords: int64 (V, 2), x and y in hundredths of a px.
        ring_starts, polygon_starts: as in `nuclei.Outlines`.
        uuids: uint8 (n, 36), ASCII.
        classes: int64 (n,), place in FeatureTexts.classes.
        values: float64 (n, M), one column per measurement; what is not finite is left out.
    """

    coords: NDArray[np.int64]
    ring_starts: Starts
    polygon_starts: Starts
    uuids: Bytes
    classes: NDArray[np.int64]
    values: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FeatureTexts:
    """Texts that are the same for all nuclei: each kind joined, text k is text[starts[k]:starts[k + 1]].

    feature_bytes: the most that one feature can take besides its coordinates.
    """

    fixed: tuple[Bytes, Starts]
    classes: tuple[Bytes, Starts]
    names: tuple[Bytes, Starts]
    decimals: NDArray[np.int64]
    feature_bytes: int


def feature_texts(classes: list[bytes], names: list[bytes], decimals: list[int]) -> FeatureTexts:
    """Prepare the texts of a file.

    Args:
        classes: the JSON of each class's classification.
        names: the JSON string of each measurement's name.
        decimals: digits after the point of each measurement.
    """
    keys = [name + b":" for name in names]
    most = sum(map(len, _FIXED)) + 36 + max(map(len, classes)) + sum(len(key) + _VALUE_BYTES for key in keys)
    places = np.array(decimals, dtype=np.int64)
    return FeatureTexts(_joined(list(_FIXED)), _joined(classes), _joined(keys), places, most)


def _joined(texts: list[bytes]) -> tuple[Bytes, Starts]:
    starts = np.zeros(len(texts) + 1, dtype=np.int64)
    np.cumsum([len(text) for text in texts], out=starts[1:])
    return np.frombuffer(b"".join(texts), dtype=np.uint8).copy(), starts


def assemble(features: Features, texts: FeatureTexts, start: int, stop: int, *, is_first: bool) -> Bytes:
    r"""Return the text of nuclei start..stop, each `,\n{feature}`; is_first drops the comma before the very first."""
    first, last = features.polygon_starts[start], features.polygon_starts[stop]
    vertices = int(features.ring_starts[last] - features.ring_starts[first])
    size = vertices * _VERTEX_BYTES + int(last - first) * 3 + (stop - start) * texts.feature_bytes
    out = np.empty(size, dtype=np.uint8)
    rings = (features.coords, features.ring_starts, features.polygon_starts)
    facts = (features.uuids, features.classes, features.values, texts.decimals)
    end = _assemble(rings, facts, texts.fixed, texts.classes, texts.names, (start, stop), out)
    return out[1:end] if is_first and end else out[:end]


@njit(cache=True, nogil=True)
def _put(out, at, text, start, stop):  # type: ignore[no-untyped-def]
    for k in range(start, stop):
        out[at] = text[k]
        at += 1
    return at


@njit(cache=True, nogil=True)
def _put_number(out, at, scaled, decimals):  # type: ignore[no-untyped-def]
    """Write scaled / 10**decimals without trailing zeros."""
    if scaled < 0:
        out[at] = 45  # -
        at += 1
        scaled = -scaled
    while decimals > 0 and scaled % 10 == 0:
        scaled //= 10
        decimals -= 1
    length = 1
    rest = scaled // 10
    while rest > 0:
        length += 1
        rest //= 10
    length = max(length, decimals + 1)
    end = at + length + (1 if decimals > 0 else 0)
    k = end - 1
    for position in range(length):
        if position == decimals and decimals > 0:
            out[k] = 46  # .
            k -= 1
        out[k] = 48 + scaled % 10
        scaled //= 10
        k -= 1
    return end


@njit(cache=True, nogil=True)
def _put_ring(out, at, coords, start, stop):  # type: ignore[no-untyped-def]
    out[at] = 91  # [
    at += 1
    for vertex in range(start, stop):
        out[at] = 91
        at = _put_number(out, at + 1, coords[vertex, 0], COORDINATE_DECIMALS)
        out[at] = 44  # ,
        at = _put_number(out, at + 1, coords[vertex, 1], COORDINATE_DECIMALS)
        out[at] = 93  # ]
        out[at + 1] = 44
        at += 2
    out[at - 1] = 93  # instead of the last comma
    return at


@njit(cache=True, nogil=True)
def _put_values(out, at, values, decimals, names, starts):  # type: ignore[no-untyped-def]
    begin = at
    for k in range(len(values)):
        if np.isfinite(values[k]):
            if at > begin:
                out[at] = 44
                at += 1
            at = _put(out, at, names, starts[k], starts[k + 1])
            at = _put_number(out, at, np.int64(np.rint(values[k] * 10.0 ** decimals[k])), decimals[k])
    return at


@njit(cache=True, nogil=True)
def _assemble(rings, facts, fixed, classes, names, span, out):  # type: ignore[no-untyped-def]
    coords, ring_starts, polygon_starts = rings
    uuids, class_index, values, decimals = facts
    text, cut = fixed
    at = 0
    for i in range(span[0], span[1]):
        at = _put(out, at, text, cut[0], cut[1])
        at = _put(out, at, uuids[i], 0, 36)
        at = _put(out, at, text, cut[1], cut[2])
        for ring in range(polygon_starts[i], polygon_starts[i + 1]):
            if ring > polygon_starts[i]:
                out[at] = 44
                at += 1
            at = _put_ring(out, at, coords, ring_starts[ring], ring_starts[ring + 1])
        at = _put(out, at, text, cut[2], cut[3])
        at = _put(out, at, classes[0], classes[1][class_index[i]], classes[1][class_index[i] + 1])
        at = _put(out, at, text, cut[3], cut[4])
        at = _put_values(out, at, values[i], decimals, names[0], names[1])
        at = _put(out, at, text, cut[4], cut[5])
    return at
