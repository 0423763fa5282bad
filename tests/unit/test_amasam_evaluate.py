"""Evaluation: perfect and empty models, groups, tables, comparisons, tuning."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support_amasam import write_project

from amasam.data.samples import Sample
from amasam.evalreport import as_markdown, best_median_worst, write_report
from amasam.evalrun import EvaluationRequest, TuningRequest, run_tuning, short_name
from amasam.evaluate import Evaluation, coarsen, compare, evaluate_model, load_part, summarise_group
from amasam.postprocess import PostConfig
from amasam.tune import tune_postprocess
from amasam.validate import spread_choice, validate
from wsipipe.errors import UsageError
from wsipipe.testing import ToySegmenter


def sample(organ: str = "", seed: int = 0, size: int = 64) -> Sample:
    """Squares on white that the toy segmenter finds exactly at its mpp."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((size, size), np.int32)
    for label, (y, x) in enumerate(((5, 5), (5, 30), (35, 12), (38, 40)), start=1):
        side = int(rng.integers(10, 16))
        labels[y : y + side, x : x + side] = label
    image = np.where(labels[..., None] > 0, 60, 240).astype(np.uint8).repeat(3, axis=2)
    return Sample(image, labels, f"image{seed}", "monuseg_drawn", f"p{seed}", 0.5, organ)


TOY = ToySegmenter(tile=64, halo=8, threshold=110)
BLIND = ToySegmenter(tile=64, halo=8, threshold=255, name="blind")
NOTHING = lambda sample: None  # noqa: E731


def both(samples: list[Sample]) -> list[Evaluation]:
    return [evaluate_model(model, samples, name=model.name, on_image=NOTHING) for model in (TOY, BLIND)]


def test_a_perfect_model_scores_one_and_a_blind_one_nothing() -> None:
    perfect, blind = (summarise_group(e.images) for e in both([sample(), sample(seed=1)]))
    for name in ("dsc", "miou", "f1", "aji", "aji_plus", "pq", "aji_cc"):
        assert perfect[name].mean == 1
        assert blind[name].mean == 0
    assert perfect["hd"].mean == 0
    assert blind["hd"].n == 0
    assert blind["hd"].excluded == 2


def test_sets_of_several_organs_are_also_reported_by_organ() -> None:
    samples = [sample("liver"), sample("colon", 1), sample("liver", 2)]
    groups = both(samples)[0].groups()
    assert {name: len(images) for name, images in groups.items()} == {
        "monuseg_drawn": 3,
        "monuseg_drawn: colon": 1,
        "monuseg_drawn: liver": 2,
    }


def test_the_report_holds_every_image_and_the_papers_numbers(tmp_path: Path) -> None:
    evaluations = both([sample(seed=k) for k in range(4)])
    write_report(tmp_path, evaluations, {"part": "validation"})
    rows = list(csv.DictReader((tmp_path / "images.csv").open()))
    assert [(row["model"], row["image"]) for row in rows][::4] == [("toy", "image0"), ("blind", "image0")]
    assert float(rows[0]["aji"]) == 1
    found = json.loads((tmp_path / "evaluation.json").read_text())
    assert found["scores"]["toy"]["monuseg_drawn"]["pq"]["mean"] == 1
    assert found["scores"]["blind"]["monuseg_drawn"]["hd"]["mean"] is None
    assert found["comparisons"][0]["metrics"]["aji"]["difference"] == 1
    text = (tmp_path / "evaluation.md").read_text()
    assert "| toy | 100.00 [100.0, 100.0] |" in text
    assert "| paper: AMA-SAM + | 85.12 | 74.24 | 85.21 | 16.13 | 52.24 |" in text
    assert "does not state its split" in text
    assert len(list(tmp_path.glob("model0-*.png"))) == 3


def test_sets_that_the_paper_does_not_know_have_no_paper_rows() -> None:
    only = sample()
    other = Sample(only.image, only.labels, "x", "gbm40", "p", 0.5)
    assert "paper" not in as_markdown(both([other]), {}).split("Means over")[1].split("\n", 2)[2]


def test_best_median_and_worst_are_ranked_by_aji() -> None:
    images = both([sample()])[0].images + both([sample(seed=1)])[1].images
    assert [(place, image.metrics.aji) for place, image in best_median_worst(images)] == [("best", 1), ("median", 0)]
    assert best_median_worst([]) == []


def test_models_are_compared_image_by_image() -> None:
    perfect, blind = both([sample(seed=k) for k in range(6)])
    difference, p = compare(perfect, blind, ["aji"])["aji"]
    assert difference == 1
    assert p == pytest.approx(2 / 2**6)  # all six signs alike
    assert compare(perfect, perfect, ["aji"])["aji"] == (0, 1)


def test_a_coarser_sample_keeps_its_nuclei() -> None:
    fine = sample(size=128)
    coarse = coarsen(fine, 2)
    assert coarse.image.shape == (64, 64, 3)
    assert coarse.mpp == 1.0
    assert coarse.n_nuclei == fine.n_nuclei
    assert coarsen(fine, 1) is fine


def test_parts_follow_the_description(tmp_path: Path) -> None:
    write_project(tmp_path)
    names = {
        part: [s.name for s in load_part(["drawn"], part, tmp_path / "data", tmp_path)]
        for part in ("validation", "train", "all")
    }
    assert names == {
        "validation": ["drawn_00"],
        "train": ["drawn_01", "drawn_02"],
        "all": ["drawn_00", "drawn_01", "drawn_02"],
    }
    with pytest.raises(UsageError, match="no images in their part 'test'"):
        load_part(["drawn"], "test", tmp_path / "data", tmp_path)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"part": "dev"}, "--part"), ({"mpp_scale": 0.0}, "--mpp-scale"), ({"ablations": ("x",)}, "--ablate")],
)
def test_impossible_requests_are_refused(wrong: dict[str, object], message: str, tmp_path: Path) -> None:
    given = {"models": ("m",), "sets": ("s",), "part": "all", "descriptions": tmp_path, "data_root": tmp_path}
    with pytest.raises(UsageError, match=message):
        EvaluationRequest(**{**given, **wrong})


def test_models_are_named_by_folder_and_file() -> None:
    assert short_name("runs/a/best.safetensors") == "a/best.safetensors"
    assert short_name("classical") == "classical"


# Validation and tuning


def test_validation_counts_the_first_domain_and_reports_all() -> None:
    only = sample()
    other = Sample(only.image, only.labels, "x", "other", "p", 0.5)
    result = validate(TOY, [only, other])
    assert result.means == {"dsc": 1, "aji": 1, "pq": 1}
    assert {"aji_monuseg_drawn", "aji_other"} <= set(result.by_domain)
    assert result.score("aji+pq") == 1


def test_a_choice_of_images_is_spread_over_the_list() -> None:
    samples = [sample(seed=k) for k in range(6)]
    assert [s.name for s in spread_choice(samples, 3)] == ["image0", "image2", "image4"]
    assert len(spread_choice(samples, 0)) == len(spread_choice(samples, 9)) == 6


class Drawn:
    """A model whose maps are right and whose foreground is 20 % too sure of itself beyond the nuclei."""

    tile, halo, sides, mpp, name, sha256 = 64, 8, (64,), 0.5, "drawn", "0" * 64
    map_names = ("foreground", "distance")
    post = PostConfig(min_area_um2=8.0)

    def fitted(self, sample: np.ndarray) -> "Drawn":
        return self

    def maps(self, images: np.ndarray) -> torch.Tensor:
        inside = images[:, :1] < 100
        foreground = np.where(inside, 230, 130).astype(np.uint8)
        return torch.from_numpy(np.concatenate([foreground, foreground], axis=1))


def test_tuning_finds_the_threshold_that_tells_nuclei_from_ground() -> None:
    tried = tune_postprocess(Drawn(), [sample(), sample(seed=1)])
    best = max(tried, key=lambda t: t.score)
    assert best.post.threshold > 130 / 255
    assert best.aji == best.pq == 1
    assert tried[0].aji < 0.7


def test_tuning_writes_what_it_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_project(tmp_path)
    monkeypatch.setattr("amasam.evalrun.load_model", lambda *args, **options: Drawn())
    monkeypatch.setattr("amasam.tune.HEIGHTS", ("distance",))
    monkeypatch.setattr("amasam.tune.DEPTHS", (0.1,))
    request = TuningRequest(model=Path("m"), sets=("drawn",), descriptions=tmp_path / "data", data_root=tmp_path)
    best = run_tuning(request, tmp_path / "post.json")
    record = json.loads((tmp_path / "post.json").read_text())
    assert PostConfig(**record["best"]) == best.post
    assert record["images"] == ["drawn/drawn_00"]
    assert len(record["tried"]) == 5 + 4 + 6 + 2
