"""AMA-SAM behind wsipipe's Segmenter: the contract, precision, tile sizes, ways to find a model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support_amasam import changed, run_recipe, write_project

from amasam import entries
from amasam.checkpoint import load_checkpoint, read_info, save_checkpoint
from amasam.loading import describe_checkpoint, export_checkpoint, load_model
from amasam.postprocess import PostConfig
from amasam.predict import predict_maps
from amasam.recipe import load_recipe
from amasam.segmenter import AmaSamSegmenter, ModelFacts
from wsipipe.errors import CheckpointError, ModelError, UsageError
from wsipipe.segmenter import Segmenter
from wsipipe.testing import SegmenterContract


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the test size after 30 steps on drawn nuclei: it finds something."""
    folder = tmp_path_factory.mktemp("weights")
    config = load_recipe(write_project(folder))
    table = {
        "optim": {"steps": 30, "batch": 4},
        "prompt": {"truth": 0, "subset": 0, "none": 0},
        "watch": {"log_every": 10, "validate_every": 0, "save_every": 0, "gradients_every": 0},
        "post": {"threshold": 0.4, "h": 0.02},
    }
    run_recipe(changed(config, table), folder, folder / "run")
    return folder / "run" / "last.safetensors"


class TestContract(SegmenterContract):
    weights: Path

    @pytest.fixture(autouse=True)
    def _give_weights(self, weights: Path) -> None:
        self.weights = weights

    def make(self) -> Segmenter:
        segmenter = load_model(self.weights, name="test", device="cpu", precision="fp32")
        segmenter.tile, segmenter.halo = 256, 32  # any multiple of 16 works; this is quick
        return segmenter


def noise(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (count, 3, side, side), dtype=np.uint8)


def test_folded_batch_norm_changes_maps_by_a_step_at_most(weights: Path) -> None:
    model, _ = load_checkpoint(weights)
    loaded = load_model(weights, name="test", device="cpu", precision="fp32")
    facts = ModelFacts(name="plain", mpp=0.25, sha256="", licence="", post=loaded.post)
    plain = AmaSamSegmenter(model, facts, device="cpu", precision="fp32")
    images = noise(2, 64)
    difference = plain.maps(images).int() - loaded.maps(images).int()
    assert difference.abs().max() <= 1


def test_bf16_stays_close_to_fp32(weights: Path) -> None:
    images = noise(2, 64)
    one, other = (load_model(weights, name="t", device="cpu", precision=p).maps(images) for p in ("fp32", "bf16"))
    difference = (one.int() - other.int()).abs().float()
    assert difference.mean() < 3
    assert other.dtype == torch.uint8


def test_small_images_take_small_tiles(weights: Path) -> None:
    segmenter = load_model(weights, name="test", device="cpu", precision="fp32")
    sides: list[int] = []
    original = segmenter.maps
    segmenter.maps = lambda images: sides.append(images.shape[-1]) or original(images)
    for size, side in ((100, 256), (256, 256), (300, 512)):
        maps = predict_maps(segmenter, np.zeros((size, 90, 3), np.uint8))
        assert maps.shape == (3, size, 90)
        assert sides.pop() == side


def test_an_ablation_shares_the_weights_and_changes_the_maps(weights: Path) -> None:
    segmenter = load_model(weights, name="test", device="cpu", precision="fp32")
    images = noise(1, 64)
    whole = segmenter.maps(images)
    for part in ("zero_prompt", "zero_f_mask", "freeze_tokens"):
        changed_maps = segmenter.with_ablation(part)
        assert changed_maps.name == f"test ({part})"
        assert not torch.equal(changed_maps.maps(images), whole)
    assert torch.equal(segmenter.maps(images), whole)


def test_everything_that_changes_the_result_is_a_parameter(weights: Path) -> None:
    segmenter = load_model(weights, name="test", device="cpu", precision="bf16")
    assert segmenter.parameters["precision"] == "bf16"
    assert segmenter.parameters["h"] == 0.02
    assert segmenter.parameters["device"] == "cpu"


# Finding models


def test_a_model_is_found_by_path(weights: Path) -> None:
    found = entries.find_segmenter(str(weights), device="cpu", precision="fp32")
    assert found.name == "last"
    assert entries.opens(weights)


def test_other_files_are_not_opened(tmp_path: Path) -> None:
    for content in (b"", b"\x08\0\0\0\0\0\0\0", b"\x02\0\0\0\0\0\0\0[]", b"\xff" * 100):
        (tmp_path / "x.safetensors").write_bytes(content)
        assert not entries.opens(tmp_path / "x.safetensors")
    assert not entries.opens(tmp_path / "none")


def test_missing_weights_are_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "TINY_WEIGHTS", tmp_path / "amasam-tiny.safetensors")
    with pytest.raises(CheckpointError, match="not in this installation"):
        entries.TINY.load("cpu", None)
    assert "missing" in entries.TINY.weights()
    with pytest.raises(ModelError, match="no trained weights are shipped"):
        entries.VIT_B.load("cpu", None)
    assert "SAM's part" in entries.VIT_B.weights()
    with pytest.raises(UsageError, match="no such weights file"):
        entries.find_segmenter(str(tmp_path / "none.safetensors"), device="cpu")


def test_the_shipped_entry_takes_a_file_of_the_user(weights: Path) -> None:
    assert entries.TINY.load("cpu", weights).sha256 == load_model(weights, name="", device="cpu").sha256


# Shipping


def test_an_exported_model_is_small_and_finds_the_same(weights: Path, tmp_path: Path) -> None:
    target = tmp_path / "ship" / "model.safetensors"
    sha256 = export_checkpoint(weights, target, None)
    assert target.stat().st_size < 0.6 * weights.stat().st_size
    shipped = load_model(target, name="shipped", device="cpu", precision="fp32")
    assert shipped.sha256 == sha256
    images = noise(1, 64)
    difference = (
        shipped.maps(images).int() - load_model(weights, name="t", device="cpu", precision="fp32").maps(images).int()
    )
    assert difference.abs().max() <= 2


def test_an_exported_model_does_not_tell_where_its_start_lay(weights: Path, tmp_path: Path) -> None:
    model, info = load_checkpoint(weights)
    recipe = {**info.facts.training["recipe"], "init": "/home/somebody/runs/stage-1/best.safetensors"}
    save_checkpoint(
        tmp_path / "a.safetensors", model, replace(info.facts, training={**info.facts.training, "recipe": recipe})
    )
    export_checkpoint(tmp_path / "a.safetensors", tmp_path / "b.safetensors", None)
    assert read_info(tmp_path / "b.safetensors").facts.training["recipe"] == {
        **recipe,
        "init": "stage-1/best.safetensors",
    }
    assert b"somebody" not in (tmp_path / "b.safetensors").read_bytes()


def test_a_tuned_post_processing_belongs_to_its_weights(weights: Path, tmp_path: Path) -> None:
    tuned = tmp_path / "post.json"
    tuned.write_text('{"best": {"h": 0.33}, "sha256": "other"}')
    with pytest.raises(UsageError, match="was tuned for the weights"):
        export_checkpoint(weights, tmp_path / "model.safetensors", tuned)
    own = load_model(weights, name="t", device="cpu").sha256
    tuned.write_text(f'{{"best": {{"h": 0.33}}, "sha256": "{own}"}}')
    export_checkpoint(weights, tmp_path / "model.safetensors", tuned)
    assert load_model(tmp_path / "model.safetensors", name="t", device="cpu").post.h == 0.33


def test_a_checkpoint_tells_what_it_holds(weights: Path) -> None:
    text = describe_checkpoint(weights, as_json=False)
    assert "foreground, distance, boundary" in text
    assert "drawn (2 images); other (3 images)" in text
    assert '"recipe_key"' in describe_checkpoint(weights, as_json=True)


def test_maps_that_are_not_numbers_are_refused(weights: Path) -> None:
    model, _ = load_checkpoint(weights)
    with torch.no_grad():
        next(model.hr_decoder.parameters()).fill_(torch.nan)
    facts = ModelFacts(name="broken", mpp=0.25, sha256="0" * 64, licence="none", post=PostConfig())
    segmenter = AmaSamSegmenter(model.eval(), facts, device="cpu", precision="fp32")
    with pytest.raises(ModelError, match="broken hold NaN"):
        segmenter.maps(noise(1, 256))
