import pytest
import torch

from amasam.build import build_model, config_from_table, file_sha256, load_base, preset
from amasam.model.stages import is_adaptation
from wsipipe.errors import CheckpointError, UsageError

VIT = {"encoder": "vit", "early_skip": False, "input_size": 64}


def base_file(path, seed=0, **changes):
    """A file such as SAM's: the frozen tensors of a small model, and nothing of AMA-SAM's own."""
    torch.manual_seed(seed)
    state = build_model(preset("test", **{**VIT, **changes})).state_dict()
    torch.save({name: tensor for name, tensor in state.items() if not is_adaptation(name)}, path)
    return path


def test_a_table_names_a_preset_and_changes_fields():
    config = config_from_table({"preset": "tiny", "instance_maps": ["distance"], "mlp_hidden": 128})
    assert config.encoder == "hybrid"
    assert config.instance_maps == ("distance",)
    assert config.mlp_hidden == 128


def test_the_paper_preset_has_no_extension():
    config = preset("paper")
    assert config.encoder == "vit_b"
    assert (config.instance_maps, config.early_skip, config.g_refine, config.aux_head) == ((), False, False, False)
    assert (config.prompt_value, config.prompt_threshold, config.align) == ("binary", 0.95, "cgrl")


def test_unknown_options_and_presets_are_named():
    with pytest.raises(UsageError, match="unknown model option 'widht'"):
        config_from_table({"widht": 3})
    with pytest.raises(UsageError, match="preset must be one of paper, tiny, tiny_vit, test, got 'huge'"):
        preset("huge")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": "vit"}, "no stride-4 stage"),
        ({"tap": "global_blocks"}, "tap must be one of neck, last_block for hybrid"),
        ({"decoder": "sam"}, "no slice tokens"),
    ],
)
def test_options_that_cannot_work_together_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        build_model(preset("test", **changes))


def test_the_base_fills_frozen_parts_and_starts_the_decoder(tmp_path):
    path = base_file(tmp_path / "sam.pth")
    torch.manual_seed(1)
    model = build_model(preset("test", **VIT, hr_init="sam"))
    load_base(model, path)
    state = torch.load(path, weights_only=True)
    own = model.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in state.items())
    assert model.base_sha256 == file_sha256(path)
    near = own["hr_decoder.slice_tokens.weight"] - state["mask_decoder.mask_tokens.weight"][0]
    assert near.std() < 0.03


def test_a_base_of_another_model_or_no_state_dict_is_refused_in_one_line(tmp_path):
    model = build_model(preset("test", **VIT))
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "text.pth").write_text("no weights")
    files = {
        base_file(tmp_path / "other.pth", vit_width=32): "not a checkpoint for encoder vit",
        tmp_path / "list.pth": "plain state dict",
        tmp_path / "text.pth": "cannot read weights",
        tmp_path / "absent.pth": "cannot read weights",
    }
    for path, message in files.items():
        with pytest.raises(CheckpointError, match=message) as caught:
            load_base(model, path)
        assert "\n" not in str(caught.value)
        assert path.name in str(caught.value)


def test_building_from_a_seed_is_reproducible():
    states = []
    for _ in range(2):
        torch.manual_seed(5)
        states.append(build_model(preset("test")).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
