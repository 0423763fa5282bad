"""Polygons and measurements of a label tile: ours against scikit-image's regionprops_table and find_contours.

    python benchmarks/outlines.py [--nuclei 500] [--repeat 9]

Prints CPU-ms and microseconds per nucleus of both (median, interleaved in one process) and their ratio, then nuclei per
CPU-second of tracing alone, with thinning, and of the measurements, and the vertices before and after.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
from instances import RULES, SIDE, draw_maps
from numpy.typing import NDArray
from skimage.color import rgb2hed
from skimage.measure import find_contours, regionprops, regionprops_table

from wsipipe.frames import WorkFrame
from wsipipe.grid import ALL_SIDES
from wsipipe.instances import split_instances
from wsipipe.measure import measure, unclassified
from wsipipe.outlines import simplify, trace
from wsipipe.stain import QUPATH_HE

FRAME = WorkFrame(SIDE, SIDE, 0.25, 0.25, 1.0, 1.0)
PROPERTIES = (
    "area",
    "centroid",
    "perimeter",
    "equivalent_diameter_area",
    "axis_major_length",
    "axis_minor_length",
    "eccentricity",
    "orientation",
    "solidity",
    "feret_diameter_max",
    "intensity_mean",
    "intensity_std",
    "intensity_min",
    "intensity_max",
)


def ours(labels: NDArray[np.int32], rgb: NDArray[np.uint8], n: int) -> None:
    outlines = simplify(trace(labels, n, origin=(0, 0)))
    measure(labels, rgb, outlines, unclassified(n), frame=FRAME, stain=QUPATH_HE, origin=(0, 0))


def plain(labels: NDArray[np.int32], rgb: NDArray[np.uint8]) -> None:
    hematoxylin = rgb2hed(rgb)[..., 0]
    regionprops_table(labels, np.dstack([rgb, hematoxylin]), properties=PROPERTIES)
    for region in regionprops(labels):
        find_contours(np.pad(region.image, 1).astype(np.float32), 0.5)


def seconds(function: Callable[[], None], repeat: int) -> float:
    times = []
    for _ in range(repeat):
        start = time.thread_time()
        function()
        times.append(time.thread_time() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nuclei", type=int, default=560, help="drawn; some hide others")
    parser.add_argument("--repeat", type=int, default=9)
    args = parser.parse_args()
    labels = split_instances(*draw_maps(args.nuclei), RULES, ALL_SIDES).labels
    n = int(labels.max())
    rgb = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    ours(labels, rgb, n)
    mine, theirs = [], []
    for _ in range(args.repeat):
        mine.append(seconds(lambda: ours(labels, rgb, n), 5))
        theirs.append(seconds(lambda: plain(labels, rgb), 1))
    fast, slow = statistics.median(mine), statistics.median(theirs)
    print(f"{n} nuclei in a {SIDE} px tile; polygons and all measurements")
    print(f"ours         {1e3 * fast:8.1f} CPU-ms, {1e6 * fast / n:7.1f} us per nucleus")
    print(f"scikit-image {1e3 * slow:8.1f} CPU-ms, {1e6 * slow / n:7.1f} us each; ratio {slow / fast:.0f} (goal 30)")
    traced = trace(labels, n, origin=(0, 0))
    thinned = simplify(traced)
    steps: dict[str, Callable[[], object]] = {
        "trace": lambda: trace(labels, n, origin=(0, 0)),
        "trace and thin": lambda: simplify(trace(labels, n, origin=(0, 0))),
        "measure": lambda: measure(labels, rgb, thinned, unclassified(n), frame=FRAME, stain=QUPATH_HE, origin=(0, 0)),
    }
    for name, step in steps.items():
        print(f"{name:14} {n / seconds(step, 5 * args.repeat):10,.0f} nuclei per CPU-s")
    print(f"vertices per nucleus: traced {len(traced.coords) / n:.1f}, thinned {len(thinned.coords) / n:.1f}")


if __name__ == "__main__":
    main()
