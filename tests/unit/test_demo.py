import cv2
import numpy as np
import openslide
import pytest
import zarr

from wsipipe.demo import draw_slide, open_truth, score_demo
from wsipipe.drawnslide import DemoSpec, Painter
from wsipipe.errors import OutputError
from wsipipe.grid import Box
from wsipipe.instances import split_parts

SPEC = DemoSpec(1000, 700, seed=4, tissue=0.8, quality=95)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn slide")
    return draw_slide(folder / "a.svs", folder / "truth.zarr", SPEC)


def truth_of(slide):
    return np.asarray(zarr.open_array(slide.truth_path, mode="r")[:])


def write_labels(path, labels, mpp):
    """The least that `score_demo` reads of an OME-Zarr 0.5 label image."""
    group = zarr.open_group(path, mode="w")
    group.create_array("0", data=labels.astype(np.uint32), chunks=(256, 256))
    scale = {"coordinateTransformations": [{"type": "scale", "scale": [mpp, mpp]}], "path": "0"}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"datasets": [scale]}]}
    return path


def test_openslide_reads_an_aperio_slide_with_mpp_and_power(drawn):
    with openslide.OpenSlide(drawn.path) as slide:
        assert slide.properties["openslide.vendor"] == "aperio"
        assert slide.properties["openslide.mpp-x"] == slide.properties["openslide.mpp-y"] == "0.25"
        assert slide.properties["openslide.objective-power"] == "40"
        assert slide.level_dimensions == ((1000, 700), (250, 175), (62, 43))
        assert "thumbnail" in slide.associated_images


@pytest.mark.parametrize(("has_mpp", "mpp"), [(True, 0.5), (False, None)])
def test_openslide_reads_a_generic_pyramid_with_its_mpp_or_none(tmp_path, has_mpp, mpp):
    slide = draw_slide(
        tmp_path / "b.tiff", tmp_path / "t.zarr", DemoSpec(700, 530, mpp=0.5, flavour="generic", has_mpp=has_mpp)
    )
    with openslide.OpenSlide(slide.path) as handle:
        assert handle.properties["openslide.vendor"] == "generic-tiff"
        assert handle.level_dimensions == ((700, 530), (350, 265), (175, 132))
        read = handle.properties.get("openslide.mpp-x")
        assert (None if read is None else round(float(read), 6)) == mpp


@pytest.mark.parametrize("flavour", ["aperio", "generic"])
def test_the_smallest_slides_can_be_drawn(tmp_path, flavour):
    slide = draw_slide(tmp_path / "s", tmp_path / "t.zarr", DemoSpec(17, 5, flavour=flavour))
    with openslide.OpenSlide(slide.path) as handle:
        assert handle.dimensions == (17, 5)


def test_pixels_of_the_file_are_those_that_were_painted_and_levels_are_means(drawn):
    painted = Painter(SPEC).paint(Box(300, 200, 700, 500)).rgb.astype(int)
    with openslide.OpenSlide(drawn.path) as slide:
        read = np.asarray(slide.read_region((300, 200), 0, (400, 300)))[..., :3].astype(int)
        level = np.asarray(slide.read_region((400, 400), 1, (100, 75)))[..., :3].astype(int)
        fine = np.asarray(slide.read_region((400, 400), 0, (400, 300)))[..., :3]
    assert abs(read - painted).mean() < 3  # JPEG of quality 95
    assert abs(read.mean() - painted.mean()) < 0.5
    assert abs(cv2.resize(fine, (100, 75), interpolation=cv2.INTER_AREA).astype(int) - level).mean() < 5


def test_every_nucleus_is_one_connected_region_and_counted_once(drawn):
    truth = truth_of(drawn)
    ids = np.unique(truth[truth > 0])
    assert len(ids) == drawn.n_nuclei > 200
    assert open_truth(drawn.truth_path) == (SPEC, drawn.n_nuclei)
    assert len(split_parts(truth.astype(np.int32))[1]) == len(ids)


def test_windows_painted_alone_fit_the_slide_exactly(drawn):
    whole, painter = Painter(SPEC).paint(Box(0, 0, SPEC.width, SPEC.height)), Painter(SPEC)
    np.testing.assert_array_equal(whole.labels, truth_of(drawn))
    n_nuclei = 0
    for box in (Box(0, 0, 517, 333), Box(517, 0, 1000, 333), Box(0, 333, 517, 700), Box(517, 333, 1000, 700)):
        part = painter.paint(box)
        rows, cols = box.slices(Box(0, 0, SPEC.width, SPEC.height))
        np.testing.assert_array_equal(part.labels, whole.labels[rows, cols])
        # the blur may sum in another order at a window's edge
        assert abs(part.rgb.astype(int) - whole.rgb[rows, cols]).max() <= 1
        n_nuclei += part.n_nuclei
    assert n_nuclei == whole.n_nuclei


def test_nuclei_are_darker_than_what_surrounds_them_and_many_touch(drawn):
    painted = Painter(SPEC).paint(Box(100, 50, 900, 650))
    red = painted.rgb[..., 0]
    assert red[painted.labels > 0].mean() < red[painted.labels == 0].mean() - 50
    right = (
        (painted.labels[:, 1:] != painted.labels[:, :-1]) & (painted.labels[:, 1:] > 0) & (painted.labels[:, :-1] > 0)
    )
    assert right.sum() > 50


def test_sizes_in_um_do_not_depend_on_mpp():
    fine = Painter(DemoSpec(800, 800, mpp=0.25, tissue=1)).paint(Box(0, 0, 800, 800))
    coarse = Painter(DemoSpec(400, 400, mpp=0.5, tissue=1)).paint(Box(0, 0, 400, 400))
    assert fine.n_nuclei == pytest.approx(coarse.n_nuclei, abs=3)
    shared = np.intersect1d(fine.labels, coarse.labels)
    assert len(shared) > 0.97 * fine.n_nuclei
    assert (fine.labels > 0).mean() == pytest.approx((coarse.labels > 0).mean(), rel=0.02)


@pytest.mark.parametrize(("option", "factor"), [({"density": 0.4}, (0.3, 0.8)), ({"diameter": 1.5}, (0.35, 0.6))])
def test_options_change_the_number_of_nuclei(option, factor):
    box = Box(0, 0, 800, 800)
    base = Painter(DemoSpec(800, 800, tissue=1)).paint(box).n_nuclei
    changed = Painter(DemoSpec(800, 800, tissue=1, **option)).paint(box).n_nuclei
    assert factor[0] * base < changed < factor[1] * base


def test_blank_glass_surrounds_the_tissue_and_fills_a_slide_without_tissue():
    spec = DemoSpec(600, 500, tissue=0.4)
    painted = Painter(spec).paint(Box(0, 0, 600, 500))
    stained = painted.rgb.min(axis=2) < 215
    assert 0.25 < stained.mean() < 0.5
    assert not stained[:30].any()
    empty = Painter(DemoSpec(200, 200, tissue=0)).paint(Box(0, 0, 200, 200))
    assert empty.rgb.min() > 225
    assert empty.n_nuclei == empty.labels.max() == 0


def test_one_seed_is_one_slide_and_another_seed_another(tmp_path):
    spec = DemoSpec(400, 300, seed=1)
    one = draw_slide(tmp_path / "1.svs", tmp_path / "1.zarr", spec)
    same = draw_slide(tmp_path / "2.svs", tmp_path / "2.zarr", spec)
    other = draw_slide(tmp_path / "3.svs", tmp_path / "3.zarr", DemoSpec(400, 300, seed=2))
    assert one.path.read_bytes() == same.path.read_bytes()
    assert (truth_of(one) == truth_of(same)).all()
    assert (truth_of(one) != truth_of(other)).any()


def test_what_is_there_is_not_overwritten_and_a_failure_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "a.svs").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"a\.svs"):
        draw_slide(tmp_path / "a.svs", tmp_path / "t.zarr", SPEC)
    monkeypatch.setattr(Painter, "paint", lambda self, box: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        draw_slide(tmp_path / "b.svs", tmp_path / "t.zarr", SPEC)
    assert [path.name for path in tmp_path.iterdir()] == ["a.svs"]


@pytest.mark.parametrize("bad", [{"width": 0}, {"mpp": 0.0}, {"tissue": 1.5}, {"flavour": "leica"}, {"density": -1.0}])
def test_impossible_slides_are_refused(bad):
    with pytest.raises(ValueError, match="got"):
        DemoSpec(**{"width": 100, "height": 100, **bad})


def test_the_truth_scores_one_against_itself(drawn, tmp_path):
    result = score_demo(drawn.truth_path, write_labels(tmp_path / "labels.ome.zarr", truth_of(drawn), 0.25))
    assert (result.n_truth, result.f1, result.aji, result.count_error) == (drawn.n_nuclei, 1, 1, 0)


def test_labels_at_another_mpp_are_scored_at_their_own_pixels(drawn, tmp_path):
    truth = truth_of(drawn)
    half = truth[1::2, 1::2]  # centres of 2 x 2 px lie on the lower right one's corner
    result = score_demo(drawn.truth_path, write_labels(tmp_path / "labels.ome.zarr", half, 0.5))
    assert (result.f1, result.dsc) == (1, 1)


def test_windows_of_the_score_add_up(drawn, tmp_path, monkeypatch):
    found = np.roll(truth_of(drawn), 3, axis=1)
    labels = write_labels(tmp_path / "labels.ome.zarr", found, 0.25)
    whole = score_demo(drawn.truth_path, labels)
    monkeypatch.setattr("wsipipe.demo.WINDOW", 300)
    assert score_demo(drawn.truth_path, labels) == whole
