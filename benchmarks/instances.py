"""Maps to instances: ours against the same steps with plain scikit-image, on one tile, in one process.

    python benchmarks/instances.py [--nuclei 500] [--repeat 15]

Prints CPU-ms of both (median, interleaved), their ratio, and the share of pixels with the same label up to renumbering.
"""

import argparse
import statistics
import time

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label
from skimage.morphology import h_maxima, remove_small_holes, remove_small_objects
from skimage.segmentation import watershed

from wsipipe.grid import ALL_SIDES
from wsipipe.instances import SplitRules, split_instances
from wsipipe.relief import binomial_weights

SIDE = 1024
RULES = SplitRules(threshold=128, h=10, smooth_px=2, min_area_px=30, fill_holes_px=30)


def draw_maps(n: int, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw n elliptic nuclei, many of them touching: foreground and height, uint8 (SIDE, SIDE), with some noise."""
    rng = np.random.default_rng(seed)
    height = np.zeros((SIDE, SIDE), np.float32)
    for x, y in rng.random((n, 2)) * SIDE:
        a, b = rng.uniform(7, 14, 2)
        angle = rng.random() * np.pi
        x0, y0 = max(0, int(x) - 20), max(0, int(y) - 20)
        part = height[y0 : int(y) + 20, x0 : int(x) + 20]
        yy, xx = np.mgrid[y0 : y0 + part.shape[0], x0 : x0 + part.shape[1]]
        along = (xx - x) * np.cos(angle) + (yy - y) * np.sin(angle)
        across = (yy - y) * np.cos(angle) - (xx - x) * np.sin(angle)
        np.maximum(part, 1 - 0.7 * np.hypot(along / a, across / b), out=part)
    height += rng.normal(0, 0.01, height.shape).astype(np.float32)
    foreground = np.clip((height - 0.3) * 5 + 0.5, 0, 1)
    return (255 * foreground).astype(np.uint8), (255 * np.clip(height, 0, 1)).astype(np.uint8)


def plain(foreground: NDArray[np.uint8], height: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Same steps, library calls."""
    mask = remove_small_holes(foreground >= RULES.threshold, max_size=RULES.fill_holes_px)
    weights = binomial_weights(RULES.smooth_px) / 4.0**RULES.smooth_px
    smooth = height.astype(np.float32)
    for axis in (0, 1):
        smooth = ndimage.convolve1d(smooth, weights, axis=axis, mode="nearest")
    smooth = np.where(mask, smooth, 0)
    markers = label(h_maxima(smooth, RULES.h), connectivity=1)
    labels = watershed(-smooth, markers, mask=mask)
    return np.asarray(remove_small_objects(labels, max_size=RULES.min_area_px - 1), np.int32)


def agreement(a: NDArray[np.int32], b: NDArray[np.int32]) -> float:
    """Share of pixels whose labels are each other's best match."""
    pairs, counts = np.unique(np.stack([a.ravel(), b.ravel()]), axis=1, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    used_a, used_b, same = set(), set(), 0
    for k in order:
        p, q = int(pairs[0, k]), int(pairs[1, k])
        if (p == 0) == (q == 0) and p not in used_a and q not in used_b:
            used_a.add(p)
            used_b.add(q)
            same += int(counts[k])
    return same / a.size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nuclei", type=int, default=560, help="drawn; some hide others")
    parser.add_argument("--repeat", type=int, default=15)
    args = parser.parse_args()
    foreground, height = draw_maps(args.nuclei)
    ours = split_instances(foreground, height, RULES, ALL_SIDES).labels
    theirs = plain(foreground, height)
    seconds: dict[str, list[float]] = {"ours": [], "plain": []}
    for _ in range(args.repeat):
        start = time.thread_time()
        split_instances(foreground, height, RULES, ALL_SIDES)
        middle = time.thread_time()
        plain(foreground, height)
        seconds["ours"].append(middle - start)
        seconds["plain"].append(time.thread_time() - middle)
    mine, their = (1000 * statistics.median(seconds[name]) for name in ("ours", "plain"))
    print(f"instances in a {SIDE} px tile: ours {ours.max()}, plain scikit-image {theirs.max()}")
    print(f"CPU-ms per tile: ours {mine:.1f}, plain scikit-image {their:.1f}, ratio 1/{their / mine:.1f} (goal 1/8)")
    print(f"pixels with the same label: {100 * agreement(ours, theirs):.3f} % (goal >= 99.5 %)")


if __name__ == "__main__":
    main()
