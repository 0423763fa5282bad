"""Scores and cost of the classical segmenter on MoNuSeg's training images, beside a plain scikit-image recipe.

    python benchmarks/classical.py [--data DIR] [--plain]

Each image is its own slide: the segmenter is fitted to it. The six validation images had no part in the tuning.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from wsipipe.classical import ClassicalSegmenter
from wsipipe.grid import ALL_SIDES
from wsipipe.score import Scores, match

VALIDATION = ("E2-A14V", "B0-5698", "50-5931", "CH-5767", "DK-A2I6", "KB-A93J")  # patients
COLUMNS = ("aji", "pq", "dq", "sq", "f1", "dsc", "count_error")

Labels = NDArray[np.int32]


def classical(rgb: NDArray[np.uint8]) -> Labels:
    images = np.ascontiguousarray(rgb.transpose(2, 0, 1)[None])
    segmenter = ClassicalSegmenter().fitted(images)
    return segmenter.instances(segmenter.maps(images)[0], mpp=0.25, sides=ALL_SIDES).labels


def plain(rgb: NDArray[np.uint8]) -> Labels:
    """Otsu on scikit-image's hematoxylin, distance, peaks, watershed: what one writes first."""
    from scipy.ndimage import distance_transform_edt
    from skimage import color, feature, filters, measure, morphology, segmentation

    hematoxylin = filters.gaussian(color.rgb2hed(rgb)[..., 0], 2)
    mask = morphology.remove_small_objects(hematoxylin > filters.threshold_otsu(hematoxylin), max_size=80)
    distance = filters.gaussian(distance_transform_edt(mask), 1.5)
    peaks = feature.peak_local_max(distance, min_distance=8, labels=measure.label(mask))
    markers = np.zeros(mask.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return np.asarray(segmentation.watershed(-distance, markers, mask=mask), np.int32)


def read(folder: Path) -> dict[str, tuple[NDArray[np.uint8], Labels]]:
    """RGB and true labels by patient, in order of the file names."""
    found = {}
    for path in sorted((folder / "images").glob("*.png")):
        labels = cv2.imread(str(folder / "labels" / path.name), cv2.IMREAD_UNCHANGED)
        found[path.name[5:12]] = (cv2.imread(str(path))[..., ::-1].copy(), labels.astype(np.int32))
    return found


def summary(results: list[Scores]) -> str:
    return "  ".join(f"{name} {np.nanmean([getattr(r, name) for r in results]):.3f}" for name in COLUMNS)


def evaluate(name: str, segment: Callable[[NDArray[np.uint8]], Labels], images: dict) -> None:
    start = time.process_time()
    results = {patient: match(truth, segment(rgb)) for patient, (rgb, truth) in images.items()}
    seconds = time.process_time() - start
    for patient, result in results.items():
        held_out = "held out" if patient in VALIDATION else ""
        print(f"{name:9s} {patient}  {summary([result])}  {held_out}")
    tuned = [r for patient, r in results.items() if patient not in VALIDATION]
    print(f"{name:9s} 24 tuning      {summary(tuned)}")
    print(f"{name:9s} 6 validation   {summary([results[patient] for patient in VALIDATION])}")
    print(f"{name:9s} all 30         {summary(list(results.values()))}")
    print(f"{name:9s} CPU-ms per Mpx {1e3 * seconds / len(images):.0f}, fitting and scoring included")


def cost(rgb: NDArray[np.uint8]) -> None:
    """Median CPU time of one 1024 px tile of tissue, fitted beforehand."""
    tile = np.ascontiguousarray(np.pad(rgb, ((0, 24), (0, 24), (0, 0)), mode="reflect").transpose(2, 0, 1)[None])
    segmenter = ClassicalSegmenter().fitted(tile)
    spent: dict[str, list[float]] = {"maps": [], "instances": []}
    for _ in range(9):
        start = time.process_time()
        maps = segmenter.maps(tile)[0]
        middle = time.process_time()
        segmenter.instances(maps, mpp=0.25, sides=ALL_SIDES)
        spent["maps"].append(middle - start)
        spent["instances"].append(time.process_time() - middle)
    print("classical CPU-ms per 1024 px tile: " + ", ".join(f"{k} {1e3 * np.median(v):.0f}" for k, v in spent.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = os.environ.get("WSIPIPE_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--plain", action="store_true", help="also the scikit-image recipe (half a minute)")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    images = read(options.data / "nuclei" / "monuseg_train")
    evaluate("classical", classical, images)
    if options.plain:
        evaluate("plain", plain, images)
    cost(images["18-5592"][0])


if __name__ == "__main__":
    main()
