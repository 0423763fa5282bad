import inspect
import math

import pytest
import torch
from torch.nn import functional

from amasam.build import build_model, preset
from amasam.model.amasam import AmaSam, ForwardOptions
from amasam.model.hr_decoder import Ablation
from amasam.model.stages import is_adaptation, trainable_parameters
from amasam.sam import sam_module

VIT = {"encoder": "vit", "early_skip": False, "input_size": 64}


def build(name="test", **changes) -> AmaSam:
    torch.manual_seed(0)
    return build_model(preset(name, **changes))


def photo(batch=1, height=64, width=64):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (batch, 3, height, width), generator=generator, dtype=torch.uint8)


def run(model, *args, **kwargs):
    with torch.no_grad():
        return model(*args, **kwargs)


@pytest.mark.parametrize(
    ("encoder", "frozen", "trainable"),
    [
        ("vit_b", 93_735_472, 6_034_501),
        ("vit_l", 312_342_832, 15_097_669),
        ("vit_h", 641_090_608, 28_749_637),
    ],
)
def test_parameter_counts_are_those_of_the_specification(encoder, frozen, trainable):
    with torch.device("meta"):
        model = build("paper", encoder=encoder)
    trained = sum(p.numel() for p in trainable_parameters(model, "ama"))
    assert (sum(p.numel() for p in model.parameters()) - trained, trained) == (frozen, trainable)


def test_the_default_model_fits_into_20_mb_at_two_bytes_a_parameter():
    assert sum(p.numel() for p in build("tiny").parameters()) <= 9_000_000


@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
def test_maps_have_the_size_of_the_image(size):
    output = run(build(), photo(2, *size), is_primary=torch.tensor([True, False]))
    quarter = (size[0] // 4, size[1] // 4)
    assert output.fine.shape == (2, 1, *size)
    assert output.maps.shape == (2, 2, *size)
    assert output.coarse.shape == (2, 1, *quarter)
    assert output.domain.shape == (2,)
    assert output.tokens.shape == (2, 16, 64)
    assert output.fine.dtype == output.maps.dtype == torch.float32


def test_sides_that_are_no_multiple_of_16_are_refused_with_their_size():
    with pytest.raises(ValueError, match="multiples of 16 px, got 60 x 64"):
        build()(photo(1, 60, 64))


@pytest.mark.parametrize("changes", [{}, VIT, {**VIT, "decoder": "sam", "instance_maps": ()}, {"encoder": "tiny_vit"}])
def test_a_batch_of_two_equals_two_batches_of_one(changes):
    model, images = build(**changes), photo(2)
    both = run(model, images)
    for i in range(2):
        alone = run(model, images[i : i + 1])
        torch.testing.assert_close(alone.fine[0], both.fine[i], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(alone.coarse[0], both.coarse[i], atol=1e-5, rtol=1e-5)


def test_inference_needs_no_domain_and_is_deterministic():
    model, images = build(), photo(2)
    required = [
        name
        for name, parameter in inspect.signature(AmaSam.forward).parameters.items()
        if parameter.default is inspect.Parameter.empty
    ]
    assert required == ["self", "images"]
    one, other = run(model, images), run(model, images)
    assert one.domain is None
    assert torch.equal(one.fine, other.fine)
    assert torch.equal(one.maps, other.maps)


def test_uint8_and_float_images_give_the_same_maps():
    model, images = build(), photo()
    assert torch.equal(run(model, images).fine, run(model, images.float()).fine)


def test_images_are_normalised_as_sam_does():
    images = photo().float()
    mean = torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1)
    std = torch.tensor([58.395, 57.12, 57.375]).view(1, 3, 1, 1)
    torch.testing.assert_close(build()._normalise(images), (images - mean) / std, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("changes", [{}, VIT])
def test_train_and_eval_mode_agree_once_batch_norm_is_frozen(changes):
    model, images = build(**changes), photo(2)
    trainable_parameters(model, "ama")
    in_eval = run(model.eval(), images)
    in_train = run(model.train(), images)
    assert torch.equal(in_eval.fine, in_train.fine)
    assert in_eval.dense is None
    assert in_train.dense.shape == (2, 3, 16, 16)


@pytest.mark.parametrize("changes", [{}, {**VIT, "adapter_placement": "both"}])
def test_only_adaptation_trains_and_frozen_tensors_stay_bit_by_bit(changes):
    model = build(**changes)
    parameters = trainable_parameters(model, "ama")
    named = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert named == {name for name, _ in model.named_parameters() if is_adaptation(name)}
    assert {"image_encoder.blocks.0.adapter.up.weight", "hr_decoder.slice_tokens.weight"} <= named
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimiser = torch.optim.Adam(parameters, 1e-3)
    model.train()
    for step in range(3):
        output = model(photo(2), is_primary=torch.tensor([True, False]))
        loss = (output.fine - step).square().mean() + output.coarse.square().mean() + output.maps.mean()
        (loss + output.domain.square().mean() + output.dense.square().mean()).backward()
        optimiser.step()
        optimiser.zero_grad()
    after = model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert all(is_adaptation(name) for name in changed)
    assert named - changed <= {name for name in named if name.endswith("adapter.down.weight")}


def test_pretraining_trains_everything_and_finetuning_keeps_the_statistics():
    model, images = build(adapters=False), photo(2)
    assert len(trainable_parameters(model, "pretrain")) == len(list(model.parameters()))
    statistics = "image_encoder.downs.0.bn.running_mean"
    before = model.state_dict()[statistics].clone()
    trainable_parameters(model, "finetune")
    run(model.train(), images)
    assert torch.equal(model.state_dict()[statistics], before)
    trainable_parameters(model, "pretrain")
    run(model, images)
    assert not torch.equal(model.state_dict()[statistics], before)


def test_unfreezing_sams_mask_adds_its_token_and_mlp_only():
    changes = {**VIT, "decoder": "sam", "instance_maps": ()}
    plain, unfrozen = build(**changes), build(**changes, unfreeze_sam_mask=True)
    extra = len(trainable_parameters(unfrozen, "ama")) - len(trainable_parameters(plain, "ama"))
    assert extra == 1 + 3 * 2


@pytest.mark.parametrize("value", ["binary", "prob", "logit"])
def test_the_fine_loss_gives_spgen_no_gradient(value):
    model = build(prompt_value=value)
    output = model(photo())
    (output.fine.sum() + output.maps.sum()).backward()
    assert all(p.grad is None for p in model.spgen.parameters())
    output = model(photo())
    output.coarse.sum().backward()
    assert all(p.grad is not None for p in model.spgen.parameters())


def test_the_reversed_gradient_reaches_adapters_from_auxiliary_images_only():
    model = build()
    parameter = model.image_encoder.blocks[0].adapter.up.weight
    for primary, reached in ((True, False), (False, True)):
        domain = model(photo(2), is_primary=torch.tensor([primary] * 2)).domain
        labels = torch.full((2,), float(primary))
        (grad,) = torch.autograd.grad(functional.binary_cross_entropy_with_logits(domain, labels), parameter)
        assert (grad.abs().max() > 0) == reached


def discs(size):
    """A synthetic image of dark discs on a light ground, and its mask."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    mask = torch.zeros(size, size)
    for cy, cx, radius in ((14, 16, 8), (40, 20, 9), (22, 46, 10), (50, 48, 7)):
        mask[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = 1
    noise = 8 * torch.randn(3, size, size, generator=torch.Generator().manual_seed(0))
    image = torch.stack([230 - 120 * mask, 190 - 110 * mask, 220 - 60 * mask]) + noise
    return image.clamp(0, 255)[None], mask[None, None]


def test_the_test_size_overfits_one_image():
    model = build()
    image, mask = discs(64)
    optimiser = torch.optim.AdamW(trainable_parameters(model, "pretrain"), 1e-3)
    model.train()
    for _ in range(60):
        output = model(image)
        loss = functional.binary_cross_entropy_with_logits(output.fine, mask)
        loss = loss + functional.binary_cross_entropy_with_logits(output.coarse, functional.avg_pool2d(mask, 4))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    found = (run(model.eval(), image).fine > 0).float()
    assert 2 * (found * mask).sum() / (found.sum() + mask.sum()) > 0.95


def test_positions_are_sams_at_the_reference_size():
    model = build(position_reference=4)
    sams = sam_module("modeling").PromptEncoder(64, (4, 4), (64, 64), 16)
    sams.load_state_dict(model.prompt_encoder.state_dict())
    torch.testing.assert_close(model.prompt_encoder.position(4, 4), sams.get_dense_pe(), atol=1e-6, rtol=0)


def test_positions_without_a_reference_stretch_over_the_image_as_sams_do():
    model = build(position_reference=None)
    sams = sam_module("modeling").PromptEncoder(64, (3, 5), (48, 80), 16)
    sams.load_state_dict(model.prompt_encoder.state_dict())
    torch.testing.assert_close(model.prompt_encoder.position(3, 5), sams.get_dense_pe(), atol=1e-5, rtol=0)


def test_a_crops_positions_are_those_of_the_whole_at_its_offset():
    encoder = build().prompt_encoder
    whole = encoder.position(8, 9)
    torch.testing.assert_close(encoder.position(3, 4, (5, 2)), whole[:, :, 5:8, 2:6])
    assert encoder.position(8, 9) is whole  # computed once


def test_positions_follow_newly_loaded_weights():
    model = build()
    before = model.prompt_encoder.position(2, 2)
    state = model.state_dict()
    name = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
    model.load_state_dict({**state, name: 2 * state[name]})
    assert not torch.equal(model.prompt_encoder.position(2, 2), before)


def test_points_are_embedded_as_sam_does():
    model = build(position_reference=4)
    sams = sam_module("modeling").PromptEncoder(64, (4, 4), (64, 64), 16)
    sams.load_state_dict(model.prompt_encoder.state_dict())
    points = torch.tensor([[[3.0, 40.0], [20.0, 7.0], [0.0, 0.0]]])
    labels = torch.tensor([[1, 0, -1]])
    expected, _ = sams(points=(points, labels), boxes=None, masks=None)
    found = model.prompt_encoder.sparse((points, labels), 1, (64, 64), (0, 0))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_point_means_the_same_place_in_a_crop():
    encoder = build().prompt_encoder
    labels = torch.tensor([[1]])
    in_crop = encoder.sparse((torch.tensor([[[5.0, 6.0]]]), labels), 1, (64, 64), (2, 1))
    in_whole = encoder.sparse((torch.tensor([[[21.0, 38.0]]]), labels), 1, (128, 128), (0, 0))
    torch.testing.assert_close(in_crop[:, 0], in_whole[:, 0])


def test_points_move_the_maps():
    model = build()
    points = (torch.tensor([[[30.0, 30.0]]]), torch.tensor([[1]]))
    assert (run(model, photo(), points=points).fine - run(model, photo()).fine).abs().max() > 0


def test_a_given_prompt_replaces_spgens_and_nan_keeps_it():
    model, images = build(), photo(2)
    own = run(model, images)
    given = torch.full((2, 1, 16, 16), math.nan)
    assert torch.equal(run(model, images, prompt=given).fine, own.fine)
    given[1] = 1.0
    mixed = run(model, images, prompt=given)
    torch.testing.assert_close(mixed.fine[0], own.fine[0])
    assert (mixed.fine[1] - own.fine[1]).abs().max() > 0
    torch.testing.assert_close(run(model, images, prompt=own.coarse.sigmoid()).fine, own.fine)


def test_prompt_drop_out_works_per_sample():
    model, images = build(), photo(2)
    with_prompt = run(model, images)
    dropped = run(model, images, use_prompt=torch.tensor([True, False]))
    torch.testing.assert_close(dropped.fine[0], with_prompt.fine[0])
    assert (dropped.fine[1] - with_prompt.fine[1]).abs().max() > 0
    no_mask = model.prompt_encoder.no_mask_embed.weight.view(1, -1, 1, 1)
    dense = model.prompt_encoder.dense(torch.rand(2, 1, 16, 16), torch.tensor([False, False]))
    assert torch.equal(dense, no_mask.expand_as(dense))


@pytest.mark.parametrize(
    "ablation",
    [
        Ablation(zero_prompt=True),
        Ablation(zero_f_mask=True),
        Ablation(freeze_tokens=True),
        Ablation(fixed_tokens=torch.zeros(16, 64)),
    ],
)
def test_every_ablation_changes_the_maps(ablation):
    model = build()
    changed = run(model, photo(), options=ForwardOptions(ablation=ablation))
    assert (changed.fine - run(model, photo()).fine).abs().max() > 0


def test_frozen_tokens_do_not_look_at_the_image():
    options = ForwardOptions(ablation=Ablation(freeze_tokens=True))
    model = build()
    one, other = run(model, photo(), options=options), run(model, 255 - photo(), options=options)
    assert torch.equal(one.tokens, other.tokens)


def test_tokens_given_back_as_fixed_tokens_change_nothing():
    model = build()
    own = run(model, photo())
    options = ForwardOptions(ablation=Ablation(fixed_tokens=own.tokens[0]))
    torch.testing.assert_close(run(model, photo(), options=options).fine, own.fine)


def test_a_fused_model_gives_the_same_maps():
    model, images = build(), photo()
    run(model.train(), images)  # statistics other than the start's
    before = run(model.eval(), images)
    after = run(model.fuse(), images)
    torch.testing.assert_close(after.fine, before.fine, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(after.coarse, before.coarse, atol=1e-4, rtol=1e-4)


def test_bf16_autocast_gives_nearly_the_same_probabilities():
    model, images = build(), photo()
    exact = run(model, images).fine.sigmoid()
    with torch.autocast("cpu", torch.bfloat16):
        rough = run(model, images)
    assert rough.fine.dtype == torch.float32
    assert (rough.fine.sigmoid() - exact).abs().max() < 0.05


def test_position_made_in_inference_mode_does_not_hinder_training():
    model, images = build(), photo()
    with torch.inference_mode():
        model(images)
    model(images).fine.sum().backward()
    assert model.image_encoder.downs[0].bn.weight.grad.abs().max() > 0


def test_gradient_checkpoints_change_no_gradient_of_a_vit():
    grads = []
    for recompute in (False, True):
        model = build(**VIT, grad_checkpoint=recompute)
        model(photo()).fine.sum().backward()
        grads.append(model.image_encoder.blocks[0].adapter.up.weight.grad)
    torch.testing.assert_close(*grads)
