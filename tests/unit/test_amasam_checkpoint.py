import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from amasam import download
from amasam.build import build_model, load_base, preset
from amasam.checkpoint import (
    FORMAT,
    Facts,
    load_checkpoint,
    read_info,
    save_checkpoint,
)
from amasam.download import BaseWeights
from amasam.model.stages import is_adaptation
from wsipipe.errors import CheckpointError

VIT = {"encoder": "vit", "early_skip": False, "input_size": 64}
FACTS = Facts(mpp=0.25, data=({"name": "drawn", "images": 3},), training={"steps": 5}, licence="Apache-2.0")


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = build_model(preset("test"))
    model.train()
    with torch.no_grad():
        model(torch.rand(2, 3, 64, 64) * 255)  # statistics other than the start's
    return model.eval()


@pytest.fixture
def based(tmp_path):
    """A model on a base file, its adaptation changed."""
    torch.manual_seed(1)
    model = build_model(preset("test", **VIT))
    frozen = {name: tensor for name, tensor in model.state_dict().items() if not is_adaptation(name)}
    torch.save(frozen, tmp_path / "sam.pth")
    load_base(model, tmp_path / "sam.pth")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if is_adaptation(name):
                parameter.add_(0.01 * torch.randn_like(parameter))
    return model


def maps(model):
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2)) * 255
    with torch.no_grad():
        output = model(image)
    return torch.cat([output.fine, output.maps], dim=1)


def rewrite(path, change):
    """Apply a change to a checkpoint's metadata."""
    with safe_open(path, framework="pt") as opened:
        about = json.loads(opened.metadata()[FORMAT])
    change(about)
    save_file(load_file(path), path, metadata={FORMAT: json.dumps(about)})


def test_a_round_trip_keeps_every_bit_and_every_fact(tmp_path, model):
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, model, FACTS)
    loaded, info = load_checkpoint(path)
    assert torch.equal(maps(loaded), maps(model))
    assert info.facts == FACTS
    assert info.config == model.config
    assert info.map_names == ("foreground", "distance", "boundary")
    assert info.base_sha256 is None
    assert not loaded.training
    assert list(tmp_path.iterdir()) == [path]


def test_saving_twice_writes_the_same_bytes(tmp_path, model):
    for name in ("a", "b"):
        save_checkpoint(tmp_path / name, model, FACTS)
    assert read_info(tmp_path / "a").sha256 == read_info(tmp_path / "b").sha256


def test_half_storage_halves_the_file_and_keeps_vectors_exact(tmp_path, model):
    save_checkpoint(tmp_path / "full", model, FACTS)
    save_checkpoint(tmp_path / "half", model, FACTS, half=True)
    assert (tmp_path / "half").stat().st_size < 0.6 * (tmp_path / "full").stat().st_size
    loaded, _ = load_checkpoint(tmp_path / "half")
    assert all(p.dtype == torch.float32 for p in loaded.parameters())
    name = "image_encoder.downs.0.bn.running_var"
    assert torch.equal(loaded.state_dict()[name], model.state_dict()[name])
    assert (maps(loaded).sigmoid() - maps(model).sigmoid()).abs().max() < 0.01


def test_values_beyond_float16_are_refused(tmp_path, model):
    model.spgen.same_size.weight.data.fill_(1e6)
    with pytest.raises(CheckpointError, match="float16 cannot hold"):
        save_checkpoint(tmp_path / "half", model, FACTS, half=True)


def test_training_parts_can_stay_behind(tmp_path, model):
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, model, FACTS, training_parts=False)
    assert not any(name.startswith(("alignment.", "hr_decoder.aux_head.")) for name in load_file(path))
    loaded, info = load_checkpoint(path)
    assert not info.has_training_parts
    assert torch.equal(maps(loaded), maps(model))


def test_a_model_on_a_base_stores_only_its_adaptation(tmp_path, based):
    path = tmp_path / "ama.safetensors"
    save_checkpoint(path, based, FACTS)
    assert all(is_adaptation(name) for name in load_file(path))
    loaded, info = load_checkpoint(path, base=tmp_path / "sam.pth")
    assert torch.equal(maps(loaded), maps(based))
    assert info.base_sha256 == based.base_sha256 == loaded.base_sha256


def test_the_whole_of_a_model_on_a_base_needs_no_base(tmp_path, based):
    save_checkpoint(tmp_path / "whole", based, FACTS, whole=True)
    loaded, _ = load_checkpoint(tmp_path / "whole")
    assert torch.equal(maps(loaded), maps(based))


def test_a_wrong_or_missing_base_is_refused(tmp_path, based):
    path, other = tmp_path / "ama.safetensors", tmp_path / "other.pth"
    save_checkpoint(path, based, FACTS)
    torch.save({}, other)
    for base, message in ((None, "need the SAM file"), (other, "must have SHA-256"), (tmp_path / "no", "no such base")):
        with pytest.raises(CheckpointError, match=message) as caught:
            load_checkpoint(path, base=base)
        assert "\n" not in str(caught.value)


def test_sams_file_is_found_in_the_cache_or_beside_the_checkpoint(tmp_path, based, monkeypatch):
    path, sam = tmp_path / "ama.safetensors", tmp_path / "sam.pth"
    save_checkpoint(path, based, FACTS)
    monkeypatch.setattr(download, "default_cache", lambda: tmp_path / "cache")
    monkeypatch.setitem(download.BASE_WEIGHTS, "vit", BaseWeights("sam.pth", "https://example.org/sam.pth", "0"))
    assert torch.equal(maps(load_checkpoint(path)[0]), maps(based))
    (tmp_path / "cache").mkdir()
    cached = sam.rename(tmp_path / "cache" / "sam.pth")
    assert torch.equal(maps(load_checkpoint(path)[0]), maps(based))
    cached.unlink()
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    for wanted in ("https://example.org/sam.pth", str(cached), str(sam), "amasam fetch-base vit", "ama.safetensors"):
        assert wanted in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_format_version_is_refused(tmp_path, model):
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, model, FACTS)
    rewrite(path, lambda about: about.update(format_version=99))
    with pytest.raises(CheckpointError, match="format version must be 1, got 99"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda about: about.pop("facts"),
        lambda about: about["config"].update(widht=3),
        lambda about: about["facts"].pop("mpp"),
    ],
)
def test_damaged_metadata_is_refused(tmp_path, model, change):
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, model, FACTS)
    rewrite(path, change)
    with pytest.raises(CheckpointError, match="metadata is damaged"):
        load_checkpoint(path)


def test_weights_that_do_not_fit_their_configuration_are_refused(tmp_path, model):
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, model, FACTS)
    rewrite(path, lambda about: about["config"].update(mlp_hidden=16))
    with pytest.raises(CheckpointError, match="do not fit their own configuration"):
        load_checkpoint(path)


def test_corrupt_foreign_and_missing_files_are_refused_in_one_line(tmp_path, model):
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, model, FACTS)
    (tmp_path / "cut").write_bytes(path.read_bytes()[:-1000])
    (tmp_path / "text").write_text("not weights at all")
    (tmp_path / "empty").touch()
    save_file({"x": torch.zeros(1)}, tmp_path / "foreign")
    for name in ("cut", "text", "empty", "foreign", "absent"):
        with pytest.raises(CheckpointError) as caught:
            load_checkpoint(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert name in str(caught.value)


def test_a_fused_model_cannot_be_saved(tmp_path, model):
    with pytest.raises(ValueError, match="fused"):
        save_checkpoint(tmp_path / "x", model.fuse(), FACTS)
