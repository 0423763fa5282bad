import cv2
import numpy as np
import pytest

from wsipipe.slide import open_slide
from wsipipe.tissue import find_tissue, tissue_mask

pytestmark = pytest.mark.realdata

SETS = ["monuseg_train", "tnbc", "cpm15", "gbm40", "dsb2018_he"]


@pytest.mark.parametrize(
    ("name", "mpp", "low", "high"),
    # looked at: a strip of skin on glass; a section with its rim
    [("cmu-1-small-region.svs", None, 0.42, 0.48), ("tcga-cr-7395-01a-01-ts1.svs", 0.25, 0.66, 0.73)],
)
def test_the_mask_of_a_real_slide_covers_the_tissue_and_little_else(data_root, name, mpp, low, high):
    with open_slide(data_root / "slides" / name, mpp=mpp) as slide:
        tissue = tissue_mask(slide)
        picture, _, _ = slide.thumbnail(8.0)
    assert low < tissue.mask.mean() < high
    stained = picture.min(axis=2) < 200  # strong colour, whatever the method
    assert tissue.mask[stained].mean() > 0.97


@pytest.mark.parametrize("name", SETS)
def test_annotated_nuclei_lie_in_tissue_even_in_crops_without_glass(data_root, name):
    inside = total = 0
    for path in sorted((data_root / "nuclei" / name / "images").glob("*.png"))[::2]:
        image = np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])
        labels = cv2.imread(str(path.parents[1] / "labels" / path.name), cv2.IMREAD_UNCHANGED)
        size = max(1, image.shape[1] // 32), max(1, image.shape[0] // 32)
        mask = find_tissue(cv2.resize(image, size, interpolation=cv2.INTER_AREA), 8.0).astype(np.uint8)
        full = cv2.resize(mask, (image.shape[1], image.shape[0]), interpolation=cv2.INTER_NEAREST)
        area = np.bincount(labels.ravel())[1:]
        seen = np.bincount(labels.ravel(), weights=full.ravel())[1:]
        total += np.count_nonzero(area)
        inside += np.count_nonzero(2 * seen > area)
    assert inside >= 0.985 * total
