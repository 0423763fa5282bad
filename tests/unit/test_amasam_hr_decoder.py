from functools import partial

import pytest
import torch
from torch.nn import functional

from amasam.build import build_model, preset
from amasam.model.hr_decoder import Ablation, DecoderInput, run_transformer
from amasam.model.reference import materialised_map
from amasam.model.token_mlps import TokenMlps
from amasam.model.upsample import fused_map, phase_stencils, phase_taps
from amasam.sam import sam_module

SAM_LIKE = partial(preset, "test", early_skip=False, g_refine=False, aux_head=False, mlp_hidden=64)


def build(**changes):
    torch.manual_seed(0)
    return build_model(SAM_LIKE(**changes))


def some_input(width=64, grid=(4, 5), batch=1, points=0):
    generator = torch.Generator().manual_seed(1)
    draw = partial(torch.randn, generator=generator)
    return DecoderInput(
        draw(batch, width, *grid), draw(batch, width, *grid), draw(batch, points, width), draw(1, width, *grid)
    )


def test_taps_of_factor_four_are_those_of_the_specification():
    expected = [(0.375, 0.625, 0), (0.125, 0.875, 0), (0, 0.875, 0.125), (0, 0.625, 0.375)]
    torch.testing.assert_close(phase_taps(4), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=0)


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 9), (2, 3)])
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_the_fused_form_equals_the_materialised_one_borders_included(size, factor):
    torch.manual_seed(0)
    features = torch.randn(2, 6, *size, dtype=torch.float64)
    slices = torch.randn(2, factor**2, 6, dtype=torch.float64)
    fused = fused_map(features, slices, phase_stencils(factor))
    torch.testing.assert_close(fused, materialised_map(features, slices, factor), rtol=0, atol=1e-10)


def test_gradients_of_both_forms_agree():
    torch.manual_seed(0)
    features = torch.randn(1, 6, 5, 7, dtype=torch.float64, requires_grad=True)
    slices = torch.randn(1, 16, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(1, 1, 20, 28, dtype=torch.float64)
    one = torch.autograd.grad((fused_map(features, slices, phase_stencils(4)) * weight).sum(), (features, slices))
    other = torch.autograd.grad((materialised_map(features, slices, 4) * weight).sum(), (features, slices))
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def test_the_fused_form_passes_gradcheck():
    features = torch.randn(1, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    slices = torch.randn(1, 4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda g, t: fused_map(g, t, phase_stencils(2)), (features, slices))


def test_slices_are_pixel_phases_in_row_order():
    slices = torch.zeros(1, 16, 1)
    slices[0, 4 * 2 + 3] = 1  # p = 2, q = 3
    large = fused_map(torch.ones(1, 1, 3, 3), slices, phase_stencils(4).float())
    on = torch.nonzero(large[0, 0] > 0.5)
    assert (on % 4 == torch.tensor([2, 3])).all()
    assert len(on) == 9


def test_the_transformer_pass_equals_sams_for_one_image():
    model = build(decoder="sam", instance_maps=())
    given = some_input(points=2)
    with torch.no_grad():
        tokens, f_mask = run_transformer(model.mask_decoder, given, None)
        masks, _ = model.mask_decoder.predict_masks(given.features, given.position, given.sparse, given.dense)
        vector = model.mask_decoder.output_hypernetworks_mlps[2](tokens[:, 3])
    torch.testing.assert_close(torch.einsum("bc,bchw->bhw", vector, f_mask), masks[:, 2], atol=1e-5, rtol=1e-5)


def test_started_from_sam_the_fine_map_is_near_sams_enlarged_mask():
    model = build(hr_init="sam")
    given = some_input(grid=(4, 4))
    with torch.no_grad():
        fine = model.hr_decoder(model.mask_decoder, given, Ablation()).fine
        model.hr_decoder.slice_tokens.weight.copy_(model.mask_decoder.mask_tokens.weight[:1].expand(16, -1))
        exact = model.hr_decoder(model.mask_decoder, given, Ablation()).fine
        tokens, f_mask = run_transformer(model.mask_decoder, given, model.hr_decoder.slice_tokens.weight)
        mask = torch.einsum("bc,bchw->bhw", model.mask_decoder.output_hypernetworks_mlps[0](tokens[:, 5]), f_mask)
    enlarged = functional.interpolate(mask[:, None], scale_factor=4, mode="bilinear")
    torch.testing.assert_close(exact, enlarged, atol=1e-5, rtol=0)
    assert (fine - exact).std() < exact.std()


@pytest.mark.parametrize("shared", [False, True])
def test_instance_maps_leave_the_fine_map_as_it_is_to_the_bit(shared):
    plain = build(instance_maps=(), shared_mlp=shared)
    extra = build(instance_maps=("distance", "boundary"), shared_mlp=shared)
    extra.load_state_dict(plain.state_dict(), strict=False)
    images = torch.rand(2, 3, 64, 48) * 255
    with torch.no_grad():
        one, other = plain(images), extra(images)
    assert torch.equal(one.fine, other.fine)
    assert one.maps.shape == (2, 0, 64, 48)
    assert other.maps.shape == (2, 2, 64, 48)


def test_token_mlps_equal_separate_linear_layers():
    mlps = TokenMlps(3, (4, 5, 2), shared=False)
    tokens = torch.randn(2, 3, 4)
    for i in range(3):
        x = tokens[:, i]
        for k in range(3):
            x = (x if k == 0 else x.relu()) @ mlps.weights[k][i] + mlps.biases[k][i, 0]
        torch.testing.assert_close(mlps(tokens)[:, i], x)


def test_paper_sizes_of_the_trainable_parts():
    count = lambda module: sum(p.numel() for p in module.parameters())  # noqa: E731
    with torch.device("meta"):
        decoder = build_model(preset("paper", encoder="vit")).hr_decoder
        shared = build_model(preset("paper", encoder="vit", shared_mlp=True, one_step_conv=True)).hr_decoder
    assert count(decoder.slice_tokens) == 4_096
    assert count(decoder.mlps) == 2_236_928
    assert count(decoder.conv) == 73_952
    assert count(shared.mlps) == 139_808
    assert count(shared.conv) == 131_104


def test_extensions_of_g_change_nothing_but_g():
    config = preset("test", refine_f_mask=True, one_step_conv=True, g_refine=True)
    model = build_model(config)
    with torch.no_grad():
        output = model(torch.rand(1, 3, 32, 32) * 255)
    assert output.fine.shape == (1, 1, 32, 32)


def test_stencils_keep_float32_under_autocast():
    features, slices = torch.randn(1, 8, 4, 4).bfloat16(), torch.randn(1, 16, 8).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        fused = fused_map(features, slices, phase_stencils(4).float())
    assert fused.dtype == torch.float32


def test_sam_modules_are_the_packages_own():
    model = build()
    assert isinstance(model.mask_decoder, sam_module("modeling").MaskDecoder)
