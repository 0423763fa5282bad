"""Outlines of annotated nuclei: all thinned, valid, close, of the same area."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import shapely

from wsipipe.instances import split_parts
from wsipipe.outlines import simplify, to_shapely, trace


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["monuseg_train", "tnbc", "cpm15"])
def test_annotated_nuclei_are_thinned_without_loss(data_root: Path, name: str):
    for path in sorted((data_root / "nuclei" / name / "labels").glob("*.png"))[:3]:
        labels, _ = split_parts(cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.int32))
        count = np.bincount(labels.ravel())[1:]
        traced = trace(labels, len(count), origin=(0, 0))
        exact, thin = to_shapely(traced), to_shapely(simplify(traced))
        assert shapely.is_valid(thin).all()
        assert (np.abs(shapely.area(thin) - count) <= 0.02 * count + 2).all()
        assert (shapely.hausdorff_distance(exact, thin, densify=0.2) <= 0.75).all()
        assert shapely.area(thin).sum() == pytest.approx(count.sum(), rel=0.002)
        assert shapely.length(thin[count > 20]).sum() < 0.9 * shapely.length(exact[count > 20]).sum()
