"""Regions that the user drew: a mask image, or areas in a GeoJSON file."""

import gzip
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import orjson
from numpy.typing import NDArray

from wsipipe.errors import UsageError

MAX_ASPECT_ERROR = 0.02  # a mask image may be this much wider or narrower than the slide
_SUBPIXEL_BITS = 8  # cv2 draws in 1 / 256 px
_CV2_LIMIT = 1 << 21  # px; farther points would overflow cv2's fixed-point numbers


def read_mask_image(path: Path, l0_size: tuple[int, int]) -> NDArray[np.bool_]:
    """Read a tissue mask that covers the whole slide.

    Args:
        path: an image file; px with any colour but black are tissue, transparency is ignored.
        l0_size: the slide's (width, height).

    Returns:
        bool (H, W) at the image's own size.

    Raises:
        UsageError: not an image, or not of the slide's proportions.
    """
    image = _decode(path)
    mask: NDArray[np.bool_] = (image if image.ndim == 2 else image[..., :3].max(axis=2)) > 0
    height, width = mask.shape
    # both sides of a small mask are rounded to whole px, which may alter its proportions by more than the limit
    allowed = MAX_ASPECT_ERROR + 0.5 / width + 0.5 / height
    if abs(math.log(width / height * l0_size[1] / l0_size[0])) > allowed:
        raise UsageError(
            f"tissue mask must cover the whole slide ({l0_size[0]} x {l0_size[1]} px) in its proportions, "
            f"got {width} x {height} px: {path}"
        )
    return mask


def _decode(path: Path) -> NDArray[np.uint8]:
    data = np.frombuffer(_bytes(path), np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    if image is None:
        raise UsageError(f"tissue mask must be an image (PNG, TIFF) or a .geojson file: {path}")
    return np.asarray(image)


def is_geojson(path: Path) -> bool:
    """Whether a file's name says that it holds areas, not an image."""
    return path.name.lower().endswith((".geojson", ".json", ".geojson.gz", ".json.gz"))


def check_file(path: Path) -> None:
    """Refuse a file that is of use for no slide.

    Raises:
        UsageError: not an image, or not GeoJSON with at least one area.
    """
    if not is_geojson(path):
        _decode(path)
    elif next(_polygons(_parse(path), path), None) is None:
        raise UsageError(f"GeoJSON must hold at least one Polygon or MultiPolygon, got none: {path}")


def read_regions(path: Path, l0_size: tuple[int, int], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Draw the areas of a GeoJSON file as a mask.

    Args:
        path: a FeatureCollection, a Feature, a geometry, or a list of them; .gz is unpacked. Polygons and
            MultiPolygons with holes, in level-0 px as QuPath exports annotations; lines and points have no area and
            are passed over.
        l0_size: the slide's (width, height).
        shape: (H, W) of the mask that covers the slide.

    Returns:
        bool (H, W), True for every px that an area touches.

    Raises:
        UsageError: not GeoJSON, no area in it, or none on the slide.
    """
    mask = np.zeros(shape, np.uint8)
    px_per_l0 = np.array([shape[1] / l0_size[0], shape[0] / l0_size[1]])
    found = False
    for polygon in _polygons(_parse(path), path):
        found = True
        mask |= _draw([_ring(ring, path) for ring in polygon], px_per_l0, shape)
    if not found:
        raise UsageError(f"GeoJSON must hold at least one Polygon or MultiPolygon, got none: {path}")
    if not mask.any():
        raise UsageError(
            f"no area lies on the slide ({l0_size[0]} x {l0_size[1]} px); coordinates must be level-0 px: {path}"
        )
    return mask > 0


def _draw(
    rings: list[NDArray[np.float64]], px_per_l0: NDArray[np.float64], shape: tuple[int, int]
) -> NDArray[np.uint8]:
    """Fill one polygon; cv2 counts from px centres, its holes are the rings inside (even-odd)."""
    drawn = np.zeros(shape, np.uint8)
    centred = [np.clip(ring * px_per_l0 - 0.5, -_CV2_LIMIT, _CV2_LIMIT) for ring in rings]
    fixed = [np.rint(ring * (1 << _SUBPIXEL_BITS)).astype(np.int32) for ring in centred]
    cv2.fillPoly(drawn, fixed, 1, shift=_SUBPIXEL_BITS)
    return drawn


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"tissue file cannot be read ({error.strerror}); pass auto, none or a file: {path}") from error


def _parse(path: Path) -> Any:
    data = _bytes(path)
    try:
        return orjson.loads(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
    except (orjson.JSONDecodeError, OSError, EOFError) as error:
        raise UsageError(f"tissue regions must be GeoJSON ({error}): {path}") from error


def _polygons(value: Any, path: Path) -> Iterator[list[Any]]:
    """Yield the rings of every polygon, however it is wrapped."""
    if isinstance(value, list):
        for item in value:
            yield from _polygons(item, path)
        return
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        raise UsageError(f"tissue regions must be GeoJSON objects, got {str(value)[:40]!r}: {path}")
    for key in ("features", "geometry", "geometries"):
        if value.get(key) is not None:
            yield from _polygons(value[key], path)
    coordinates = value.get("coordinates")
    if value["type"] == "Polygon":
        yield _list(coordinates, path)
    elif value["type"] == "MultiPolygon":
        yield from (_list(polygon, path) for polygon in _list(coordinates, path))


def _list(value: Any, path: Path) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise UsageError(f"polygon coordinates must be lists of rings, got {str(value)[:40]!r}: {path}")
    return value


def _ring(ring: Any, path: Path) -> NDArray[np.float64]:
    try:
        points = np.array([point[:2] for point in _list(ring, path)], np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"ring must be a list of [x, y] points, got {str(ring)[:40]!r}: {path}") from error
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3 or not np.isfinite(points).all():
        raise UsageError(f"ring must have at least 3 finite [x, y] points, got {str(ring)[:40]!r}: {path}")
    return points
