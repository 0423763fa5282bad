"""Drawn H&E-like images with exact labels."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from amasam.data.samples import DataSet, Sample

GROUND = (226, 178, 205)  # RGB of eosin-stained tissue
NUCLEUS = (105, 62, 140)  # RGB of hematoxylin-stained chromatin


def draw_set(
    name: str, *, count: int, size: int = 256, n_nuclei: int = 60, mpp: float = 0.25, seed: int = 0
) -> DataSet:
    """Draw a data set of elliptic nuclei, some touching; every image is a patient of its own.

    Args:
        name: of the domain; domains of other names and seeds differ in tone.
        count: images.
        size: image side, px.
        n_nuclei: drawn per image; later ones may hide earlier ones.
        mpp: micrometres per px; nuclei are 5 to 8 um long.
        seed: the same arguments always give the same set.

    Returns:
        Images uint8 (size, size, 3), labels int32 (size, size).
    """
    rng = np.random.default_rng((seed, *name.encode()))
    tone = rng.uniform(0.85, 1.1, 3)
    samples = [
        _draw_sample(rng, name, f"{name}_{k:02d}", tone, _draw_labels(rng, size, n_nuclei, mpp), mpp)
        for k in range(count)
    ]
    return DataSet(name, tuple(samples), licence="drawn")


def _draw_labels(rng: np.random.Generator, size: int, n_nuclei: int, mpp: float) -> NDArray[np.int32]:
    labels = np.zeros((size, size), np.int32)
    for label in range(1, n_nuclei + 1):
        x, y = rng.uniform(0, size, 2)
        long = rng.uniform(2.5, 4.0) / mpp
        axes = (math.ceil(long), math.ceil(long * rng.uniform(0.6, 1.0)))
        cv2.ellipse(labels, (int(x), int(y)), axes, rng.uniform(0, 180), 0, 360, label, -1)
    return labels


def _draw_sample(
    rng: np.random.Generator, domain: str, stem: str, tone: NDArray[np.float64], labels: NDArray[np.int32], mpp: float
) -> Sample:
    inside = cv2.GaussianBlur((labels > 0).astype(np.float32), (0, 0), 0.8)[..., None]
    texture = cv2.GaussianBlur(rng.normal(0, 25, labels.shape), (0, 0), 1.5)[..., None]
    pixels = (np.array(GROUND) * (1 - inside) + np.array(NUCLEUS) * inside) * tone + texture
    return Sample(np.clip(pixels, 0, 255).astype(np.uint8), labels, stem, domain, stem, mpp)
