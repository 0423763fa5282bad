"""Small H&E-like pictures with known nuclei, quick enough to paint in every test."""

import cv2
import numpy as np

STROMA = (232, 178, 208)
NUCLEUS = (96, 62, 142)


def he_picture(width: int, height: int, *, n: int, seed: int = 0, radius: tuple[int, int] = (9, 15)):
    """Paint n dark ellipses on pink ground.

    Returns:
        uint8 (height, width, 3) RGB, and int32 (height, width) labels, 0 = background.
    """
    rng = np.random.default_rng(seed)
    labels = np.zeros((height, width), np.int32)
    for label in range(1, n + 1):
        centre = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        axes = tuple(int(a) for a in rng.integers(*radius, 2))
        spot = np.zeros((height, width), np.uint8)
        cv2.ellipse(spot, centre, axes, float(rng.integers(0, 180)), 0, 360, 1, -1)
        if not (cv2.dilate(spot, np.ones((5, 5), np.uint8)).astype(bool) & (labels > 0)).any():
            labels[spot > 0] = label
    rgb = np.empty((height, width, 3), np.float32)
    rgb[:] = STROMA
    rgb[labels > 0] = NUCLEUS
    rgb = cv2.GaussianBlur(rgb, (0, 0), 1.0) + rng.normal(0, 3, (height, width, 1))
    return rgb.clip(0, 255).astype(np.uint8), labels
