"""`--stain-norm` against TIAToolbox's own normalisers. Needs TIAToolbox: scripts/test-tiatoolbox."""

import json

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import support_runs

pytest.importorskip("tiatoolbox", reason="needs TIAToolbox: scripts/test-tiatoolbox")

from wsipipe.drawnslide import DemoSpec, Painter
from wsipipe.errors import SlideError, UsageError
from wsipipe.grid import Box
from wsipipe.integrations.tiatoolboximport import import_from_tiatoolbox
from wsipipe.integrations.tiatoolboxstain import GLASS, fit_colours
from wsipipe.stainnorm import METHODS, ColourTransform, StainNorm
from wsipipe.testing import ToySegmenter


def tissue(seed: int = 0, side: int = 240) -> np.ndarray:
    """Drawn tissue without glass, so that TIAToolbox and we look at the same px."""
    rgb = Painter(DemoSpec(side, side, mpp=0.25, tissue=1, seed=seed)).paint(Box(0, 0, side, side)).rgb
    return np.minimum(rgb, GLASS).astype(np.uint8)


def as_sample(rgb: np.ndarray) -> np.ndarray:
    return rgb.transpose(2, 0, 1)[None]


@pytest.fixture
def target(tmp_path):
    """A target image with other colours, as a file."""
    path = tmp_path / "target.png"
    other = 255 * (tissue(1) / 255.0) ** np.array([0.8, 1.1, 1.3])
    cv2.imwrite(str(path), other.astype(np.uint8)[..., ::-1])
    return path


def their_transform(method: str, target_rgb: np.ndarray, rgb: np.ndarray) -> np.ndarray:
    normaliser = import_from_tiatoolbox("tiatoolbox.tools.stainnorm", what="test").get_normalizer(method)
    np.random.seed(0)  # noqa: NPY002 - the global numbers are what Vahadane's method takes
    normaliser.fit(target_rgb.copy())
    np.random.seed(0)  # noqa: NPY002
    return normaliser.transform(rgb.copy())


@pytest.mark.parametrize("method", METHODS)
def test_an_image_fitted_alone_comes_out_as_tiatoolbox_turns_it(method, target):
    rgb = tissue()
    target_rgb = cv2.imread(str(target), cv2.IMREAD_COLOR_RGB)
    ours = fit_colours(StainNorm(method, target), as_sample(rgb)).apply(rgb)
    theirs = their_transform(method, target_rgb, rgb)
    assert np.abs(ours.astype(int) - theirs).max() <= 1
    assert np.abs(ours.astype(int) - rgb).mean() > 3, "the colours should change at all"


def test_without_a_target_the_image_that_tiatoolbox_ships_is_the_target():
    rgb = tissue()
    shipped = import_from_tiatoolbox("tiatoolbox.data", what="test").stain_norm_target()
    ours = fit_colours(StainNorm("macenko", None), as_sample(rgb)).apply(rgb)
    assert np.abs(ours.astype(int) - their_transform("macenko", shipped, rgb)).max() <= 1


@pytest.mark.parametrize("method", METHODS)
def test_fitting_twice_gives_the_same_transform_and_leaves_random_numbers_alone(method, target):
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    one, other = (fit_colours(StainNorm(method, target), as_sample(tissue())) for _ in range(2))
    assert one == other
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002


def test_glass_does_not_change_the_transform(target):
    rgb = tissue()
    framed = np.full((300, 300, 3), 245, np.uint8)
    framed[30:270, 30:270] = rgb
    norm = StainNorm("reinhard", target)
    assert fit_colours(norm, as_sample(framed)) == fit_colours(norm, as_sample(rgb))


def test_a_slide_without_tissue_is_left_as_it_is(target):
    norm = StainNorm("macenko", target)
    assert fit_colours(norm, np.zeros((0, 3, 64, 64), np.uint8)) is None
    assert fit_colours(norm, np.full((2, 3, 64, 64), 250, np.uint8)) is None


def test_a_slide_of_one_colour_is_refused(target):
    with pytest.raises(
        SlideError, match="stains of this slide cannot be told apart by macenko; leave --stain-norm out"
    ):
        fit_colours(StainNorm("macenko", target), np.full((1, 3, 100, 100), 120, np.uint8))


def test_a_target_that_is_no_image_is_refused(tmp_path):
    path = tmp_path / "target.png"
    path.write_text("no image")
    with pytest.raises(UsageError, match="target must be an image"):
        fit_colours(StainNorm("macenko", path), as_sample(tissue()))


class Watcher(ToySegmenter):
    """Keeps the tiles that it is shown, and finds the same squares whatever they show."""

    def __init__(self):
        super().__init__(tile=160, halo=16)
        self.seen: list[np.ndarray] = []

    def maps(self, images):
        self.seen += list(images.copy())
        squares = np.zeros((len(images), 2, 160, 160), np.uint8)
        for y in range(20, 140, 20):
            for x in range(20, 140, 20):
                squares[..., y : y + 12, x : x + 12] = 255
        return squares


def test_a_run_shows_the_model_normalised_tiles_and_measures_the_slides_own(tmp_path, target):
    slide = support_runs.draw_discs(tmp_path / "slide.tiff", 300, 260)
    tables, seen = {}, {}
    for name, norm in (("plain", "none"), ("normed", str(target))):
        watcher = Watcher()
        summary, _ = support_runs.run([slide], tmp_path / name, segmenter=watcher, workers=0, stain_norm=norm)
        assert summary.exit_code == 0
        seen[name] = np.stack(watcher.seen)
        tables[name] = pq.read_table(tmp_path / name / "slide" / "nuclei.parquet")
    record = json.loads((tmp_path / "normed" / "slide" / "run.json").read_text())
    assert record["run_key"]["stain_norm"] == StainNorm("macenko", target).identity
    transform = ColourTransform.from_json(record["parameters"]["stain_norm"])
    for before, after in zip(seen["plain"], seen["normed"], strict=True):
        assert (transform.apply(np.ascontiguousarray(before.transpose(1, 2, 0))) == after.transpose(1, 2, 0)).all()
    assert tables["plain"].num_rows > 0
    for column in ("red_mean", "hematoxylin_od_mean"):
        assert tables["plain"][column].to_pylist() == tables["normed"][column].to_pylist()


def test_other_colours_in_the_same_folder_are_refused(tmp_path, target):
    slide = support_runs.draw_discs(tmp_path / "slide.tiff", 300, 260)
    first, _ = support_runs.run([slide], tmp_path / "out", workers=0, stain_norm=str(target))
    again, _ = support_runs.run([slide], tmp_path / "out", workers=0, stain_norm=str(target))
    assert first.exit_code == again.exit_code == 0
    assert again.results[0].skipped
    other, _ = support_runs.run([slide], tmp_path / "out", workers=0)
    assert "--stain-norm" in other.failures[0].reason
