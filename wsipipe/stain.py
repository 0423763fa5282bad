"""Optical density and colour deconvolution of H&E.

od = max(0, -log10(max(I, 1) / I0)) per channel, as QuPath computes it. A pixel's od is taken as a mix of unit vectors,
one per stain (Ruifrok & Johnston 2001); the amounts are found with the inverse of their matrix and may be negative.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

WHITE = 255.0  # I0, the intensity of unstained glass
MACENKO_MIN_OD = 0.15  # pixels with a fainter channel are not stained (Macenko et al. 2009, beta)
MACENKO_PERCENTILE = 1.0  # robust extremes of the angle (Macenko et al. 2009, alpha)
MIN_STAINED_PX = 2000  # fewer stained pixels than this say nothing about a slide
MIN_ANGLE_RAD = np.deg2rad(10)  # vectors closer than this are one stain; QuPath's defaults are 33 degrees apart
_MAX_SAMPLE = 1_000_000

Vector = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class StainVectors:
    """Stain vectors of a slide: unit vectors of optical density in (red, green, blue).

    Attributes:
        hematoxylin, eosin: the stains.
        residual: perpendicular to both.
        i0: intensity that counts as od 0.
        source: where the vectors come from, for the run's record.
    """

    hematoxylin: Vector
    eosin: Vector
    residual: Vector
    i0: float
    source: str


def stain_vectors(hematoxylin: Vector, eosin: Vector, *, i0: float = WHITE, source: str) -> StainVectors:
    """Normalise two stain vectors and add their residual, the normalised cross product."""
    h, e = np.asarray(hematoxylin, np.float64), np.asarray(eosin, np.float64)
    residual = np.cross(h, e)
    if not np.linalg.norm(residual) > 0:
        raise ValueError(f"stain vectors must point in two directions, got {hematoxylin} and {eosin}")
    return StainVectors(_unit(h), _unit(e), _unit(residual), i0, source)


def _unit(vector: NDArray[np.float64]) -> Vector:
    x, y, z = (float(v) for v in vector / np.linalg.norm(vector))
    return x, y, z


QUPATH_HE = stain_vectors((0.651, 0.701, 0.290), (0.216, 0.801, 0.558), source="QuPath's defaults for H&E")


def od_table(i0: float = WHITE) -> NDArray[np.float32]:
    """Return the optical density of the intensities 0..255, float32 (256,)."""
    return np.maximum(0, -np.log10(np.maximum(np.arange(256), 1) / i0)).astype(np.float32)


def od(rgb: NDArray[np.uint8], i0: float = WHITE) -> NDArray[np.float32]:
    """Return the optical density of each channel; uint8 of any shape -> float32 of the same."""
    return od_table(i0)[rgb]


def unmix_tables(stain: StainVectors) -> NDArray[np.float32]:
    """Return what each intensity of each channel adds to each stain.

    Returns:
        float32 (3, 256, 3): channel, intensity, stain (hematoxylin, eosin, residual). The amounts of a pixel are the
        sum of its three entries.
    """
    inverse = np.linalg.inv(np.array([stain.hematoxylin, stain.eosin, stain.residual]))  # (channel, stain)
    table = od_table(stain.i0).astype(np.float64)[None, :, None] * inverse[:, None, :]
    return np.ascontiguousarray(table, dtype=np.float32)


def unmix(rgb: NDArray[np.uint8], stain: StainVectors) -> NDArray[np.float32]:
    """Split colours into stains.

    Args:
        rgb: (..., 3) uint8.
        stain: stain vectors.

    Returns:
        (..., 3) float32: optical density of hematoxylin, eosin and residual.
    """
    flat = np.ascontiguousarray(rgb).reshape(-1, 3)
    return np.asarray(_unmix(flat, unmix_tables(stain)).reshape(rgb.shape))


@njit(cache=True, nogil=True)
def _unmix(rgb: NDArray[np.uint8], tables: NDArray[np.float32]) -> NDArray[np.float32]:
    out = np.empty((len(rgb), 3), np.float32)
    for p in range(len(rgb)):
        red, green, blue = tables[0, rgb[p, 0]], tables[1, rgb[p, 1]], tables[2, rgb[p, 2]]
        for s in range(3):
            out[p, s] = red[s] + green[s] + blue[s]
    return out


def estimate_macenko(sample: NDArray[np.uint8]) -> StainVectors:
    """Estimate the stain vectors of a slide from some of its tissue.

    Macenko et al., "A method for normalizing histology slides for quantitative analysis", ISBI 2009: project the od of
    stained pixels on the plane of their two largest principal directions and take the extreme angles, less 1 % at each
    end, as the stains. The one with the larger share of red od is hematoxylin (it is blue, eosin is pink).

    Args:
        sample: uint8 (N, 3) or (H, W, 3) RGB; of more than a million pixels every k-th is used.

    Returns:
        The estimate, or QuPath's defaults where too little stained tissue, or only one stain, is found; `source` tells.
    """
    pixels = sample.reshape(-1, 3)
    density = od(pixels[:: max(1, len(pixels) // _MAX_SAMPLE)]).astype(np.float64)
    density = density[(density >= MACENKO_MIN_OD).all(axis=1)]
    if len(density) < MIN_STAINED_PX:
        return _defaults(f"only {len(density)} stained pixels in the sample")
    _, axes = np.linalg.eigh(np.cov(density.T))  # ascending eigenvalues, axes in columns
    plane = axes[:, :0:-1] * np.where(axes[:, :0:-1].sum(axis=0) < 0, -1, 1)  # (3, 2), largest first
    projected = density @ plane
    angles = np.percentile(np.arctan2(projected[:, 1], projected[:, 0]), [MACENKO_PERCENTILE, 100 - MACENKO_PERCENTILE])
    if np.ptp(angles) < MIN_ANGLE_RAD:
        return _defaults(f"colours spread over {np.rad2deg(np.ptp(angles)):.0f} degrees only")
    first, second = (np.maximum(plane @ (np.cos(angle), np.sin(angle)), 0) for angle in angles)
    first, second = _unit(first), _unit(second)
    if first[0] < second[0]:
        first, second = second, first
    return stain_vectors(first, second, source=f"Macenko et al. 2009, from {len(density)} stained pixels")


def _defaults(reason: str) -> StainVectors:
    return StainVectors(
        QUPATH_HE.hematoxylin, QUPATH_HE.eosin, QUPATH_HE.residual, QUPATH_HE.i0, f"{QUPATH_HE.source}: {reason}"
    )
