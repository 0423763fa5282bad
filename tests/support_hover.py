"""HoVer-Net's maps of known nuclei: what its network is trained to return."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def hover_targets(labels: NDArray[np.int32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return (H, W) float32 horizontal and vertical distance to each nucleus's centre, -1..1 inside, 0 outside."""
    out = np.zeros((2, *labels.shape), np.float32)
    for label, box in enumerate(ndimage.find_objects(labels), 1):
        if box is None:
            continue
        mask = labels[box] == label
        centre = [int(c + 0.5) for c in ndimage.center_of_mass(mask)]
        for plane, axis in ((0, 1), (1, 0)):
            values = (np.indices(mask.shape)[axis] - centre[axis]).astype(np.float32) * mask
            for sign in (-1, 1):
                part = values * sign > 0
                if part.any():
                    values[part] /= np.abs(values[part]).max()
            out[plane][box][mask] = values[mask]
    return out[0], out[1]


def hover_maps(labels: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Return uint8 (3, H, W): foreground and both distances, as wsipipe stores them."""
    horizontal, vertical = hover_targets(labels)
    planes = [labels > 0, (horizontal + 1) / 2, (vertical + 1) / 2]
    return np.stack([np.rint(np.clip(plane, 0, 1) * 255) for plane in planes]).astype(np.uint8)
