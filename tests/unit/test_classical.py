import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from wsipipe.classical import DEFAULT_OD, ENTRY, THRESHOLD, ClassicalParameters, ClassicalSegmenter
from wsipipe.drawnslide import DemoSpec, Painter
from wsipipe.grid import ALL_SIDES, Box
from wsipipe.score import match
from wsipipe.segmenter import Segmenter
from wsipipe.testing import SegmenterContract

PALE, PINK, BLUE = (243, 242, 244), (225, 150, 180), (90, 70, 140)


class TestClassicalSegmenter(SegmenterContract):
    def make(self) -> Segmenter:
        return ClassicalSegmenter(tile=384, halo=64)


def painted(side=768, mpp=0.25, **options):
    """Drawn tissue as (1, 3, S, S), and its true labels."""
    window = Painter(DemoSpec(side, side, mpp=mpp, tissue=1, **options)).paint(Box(0, 0, side, side))
    return np.ascontiguousarray(window.rgb.transpose(2, 0, 1)[None]), window.labels


def disks(centres, radius, side=256):
    """Blue disks on pink tissue, as (1, 3, S, S)."""
    image = np.full((side, side, 3), PINK, np.uint8)
    for centre in centres:
        cv2.circle(image, centre, radius, BLUE, -1)
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None])


def labels_of(segmenter, images):
    return segmenter.instances(segmenter.maps(images)[0], mpp=segmenter.mpp, sides=ALL_SIDES).labels


def test_each_disk_is_one_nucleus_of_its_size():
    labels = labels_of(ClassicalSegmenter(), disks([(60, 60), (190, 70), (120, 190)], 16))
    areas = np.bincount(labels.ravel())[1:]
    assert len(areas) == 3
    assert areas == pytest.approx(np.pi * 16.5**2, rel=0.12)


def test_two_touching_disks_are_split_and_an_oval_is_not():
    assert labels_of(ClassicalSegmenter(), disks([(110, 128), (140, 128)], 16)).max() == 2
    oval = np.full((256, 256, 3), PINK, np.uint8)
    cv2.ellipse(oval, (128, 128), (26, 14), 30, 0, 360, BLUE, -1)
    assert labels_of(ClassicalSegmenter(), oval.transpose(2, 0, 1)[None]).max() == 1


@pytest.mark.parametrize("colour", [PALE, (255, 255, 255), (0, 0, 0), PINK])
def test_an_image_of_one_colour_holds_no_nucleus_edge_and_breaks_nothing(colour):
    image = np.ascontiguousarray(np.broadcast_to(np.array(colour, np.uint8)[:, None, None], (1, 3, 128, 128)))
    segmenter = ClassicalSegmenter().fitted(image)
    maps = segmenter.maps(image)
    assert (maps == maps[:, :, :1, :1]).all() or colour == (0, 0, 0)
    if colour == PALE:
        assert labels_of(segmenter, image).max() == 0


def test_fitting_to_no_tissue_changes_nothing():
    segmenter = ClassicalSegmenter()
    assert segmenter.fitted(np.zeros((0, 3, 64, 64), np.uint8)) is segmenter
    assert segmenter.fitted(np.full((4, 3, 64, 64), 244, np.uint8)) is segmenter


def test_fitting_records_the_threshold_between_the_two_stains():
    sample = disks([(60, 60), (190, 70), (120, 190)], 30)
    fitted = ClassicalSegmenter().fitted(sample)
    threshold = fitted.parameters["threshold_od"]
    assert 0.1 < threshold < 0.4
    assert ClassicalSegmenter().parameters["threshold_od"] is None
    assert fitted.sha256 == ClassicalSegmenter().sha256
    assert json.loads(json.dumps(dict(fitted.parameters)))["blur_um"] == ClassicalParameters().blur_um


def test_an_unfitted_segmenter_takes_each_images_own_threshold_and_a_default_for_glass():
    images, _ = painted(256)
    fitted = ClassicalSegmenter().fitted(images)
    assert (ClassicalSegmenter().maps(images) == fitted.maps(images)).all()
    glass = np.full((1, 3, 256, 256), 244, np.uint8)
    assert (ClassicalSegmenter().maps(glass) == replace(fitted, threshold_od=DEFAULT_OD).maps(glass)).all()


def test_a_tiles_core_is_that_of_the_whole_image_once_fitted():
    images, _ = painted(896)
    segmenter = ClassicalSegmenter().fitted(images)
    whole, halo = segmenter.maps(images)[0], segmenter.halo
    tile = segmenter.maps(np.ascontiguousarray(images[:, :, 128:640, 256:768]))[0]
    core = np.s_[:, halo:-halo, halo:-halo]
    difference = np.abs(tile[core].astype(int) - whole[:, 128:640, 256:768][core])
    # float sums of the local mean may round differently; a hole that crosses the halo may be filled in one only
    assert (difference > 1).mean() < 1e-3


def test_holes_are_foreground_and_have_a_distance():
    image = disks([(128, 128)], 20)
    image[:, :, 126:131, 126:131] = np.array(PINK)[:, None, None]
    foreground, distance = ClassicalSegmenter().maps(image)[0]
    assert foreground[128, 128] >= THRESHOLD
    assert distance[128, 128] == distance.max()


@pytest.mark.parametrize("mpp", [0.18, 0.5])
def test_its_rules_mean_the_same_at_another_mpp(mpp):
    fine, coarse = painted(640, 0.25), painted(round(160 / mpp), mpp)
    results = [
        match(truth, labels_of(ClassicalSegmenter(mpp=m), images))
        for m, (images, truth) in ((0.25, fine), (mpp, coarse))
    ]
    assert results[0].f1 == pytest.approx(results[1].f1, abs=0.1)
    assert results[0].n_found == pytest.approx(results[1].n_found, rel=0.15)


def test_it_finds_most_nuclei_of_a_drawn_slide():
    images, truth = painted()
    result = match(truth, labels_of(ClassicalSegmenter(), images))
    assert result.f1 > 0.7
    assert abs(result.count_error) < 0.25


def test_the_entry_point_loads_it_for_any_device():
    assert ENTRY.load("cuda:1", None) == ENTRY.load("cpu", None) == ClassicalSegmenter()
    assert "none" in ENTRY.weights()
