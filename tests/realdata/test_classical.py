import cv2
import numpy as np
import pytest

from wsipipe.classical import ClassicalSegmenter
from wsipipe.grid import ALL_SIDES
from wsipipe.score import match

pytestmark = pytest.mark.realdata

# one easy, two middling, one hard; from four organs
IMAGES = ("TCGA-A7-A13F-01Z-00-DX1", "TCGA-21-5784-01Z-00-DX1", "TCGA-B0-5698-01Z-00-DX1", "TCGA-E2-A14V-01Z-00-DX1")
FLOOR = {"aji": 0.44, "pq": 0.39, "dsc": 0.71, "f1": 0.57}  # a little below what docs/classical.md lists


def test_scores_on_annotated_nuclei_stay_above_the_floor(data_root):
    folder = data_root / "nuclei" / "monuseg_train"
    results = []
    for name in IMAGES:
        rgb = cv2.imread(str(folder / "images" / f"{name}.png"))[..., ::-1]
        truth = cv2.imread(str(folder / "labels" / f"{name}.png"), cv2.IMREAD_UNCHANGED).astype(np.int32)
        images = np.ascontiguousarray(rgb.transpose(2, 0, 1)[None])
        segmenter = ClassicalSegmenter().fitted(images)
        found = segmenter.instances(segmenter.maps(images)[0], mpp=0.25, sides=ALL_SIDES).labels
        results.append(match(truth, found))
    for score, floor in FLOOR.items():
        assert np.mean([getattr(result, score) for result in results]) > floor, score
