from ast import literal_eval
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from amasam.build import build_model, preset
from amasam.model.folded import folded_attention
from amasam.model.hybrid import HybridEncoder, HybridSize
from amasam.model.layers import LayerNorm2d, fuse_batch_norms
from amasam.model.stages import is_adaptation
from amasam.model.tiny_vit import BiasedAttention, TinyVit
from amasam.model.vit import VIT_SIZES, VitEncoder, VitOptions, VitSize
from amasam.model.window import WindowAttention, join_windows, split_windows
from amasam.sam import sam_module

SMALL = VitSize(64, 2, 2, 5, (1,))
HYBRID = HybridSize((8, 12, 16, 32), (1, 1, 1, 2), 2, 4, 2.0)
PARAMETER_LIST = Path(__file__).resolve().parents[1] / "data" / "mobilesam-parameters.tsv"


def stock_encoder(size, input_size, outputs):
    """SAM's own encoder with every parameter drawn, the zero-started relative positions among them."""
    torch.manual_seed(0)
    encoder = sam_module("modeling").ImageEncoderViT(
        img_size=input_size,
        embed_dim=size.width,
        depth=size.depth,
        num_heads=size.heads,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=size.window,
        global_attn_indexes=size.global_blocks,
        out_chans=outputs,
    )
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "pos" in name:
                parameter.normal_(std=0.2)
    return encoder.eval()


def with_weights_of(stock, size, input_size, outputs, **options):
    ours = VitEncoder(size, input_size=input_size, outputs=outputs, options=VitOptions(**options)).eval()
    missing, unexpected = ours.load_state_dict(stock.state_dict(), strict=False)
    assert not unexpected
    assert all("adapter" in name for name in missing)
    return ours


@pytest.mark.parametrize("placement", ["mlp_parallel", "both"])
def test_zero_started_adapters_leave_sams_encoder_exactly_as_it_is(placement):
    stock = stock_encoder(SMALL, 128, 32)
    ours = with_weights_of(stock, SMALL, 128, 32, folded=False, placement=placement)
    images = torch.randn(2, 3, 128, 128)
    with torch.no_grad():
        assert torch.equal(ours(images).features, stock(images))


def test_at_the_zero_start_only_the_up_projection_gets_a_gradient():
    ours = with_weights_of(stock_encoder(SMALL, 64, 32), SMALL, 64, 32)
    ours(torch.randn(1, 3, 64, 64)).features.square().sum().backward()
    adapter = ours.blocks[0].adapter
    assert adapter.down.weight.grad.abs().max() == 0
    assert adapter.up.weight.grad.abs().max() > 0


def test_vit_b_blocks_equal_segment_anything_within_1e_4():
    size = VitSize(768, 2, 12, 14, (1,))  # a windowed and a global block of ViT-B
    stock = stock_encoder(size, 256, 256)
    ours = with_weights_of(stock, size, 256, 256)
    images = torch.randn(1, 3, 256, 256)
    with torch.no_grad():
        assert (ours(images).features - stock(images)).abs().max() <= 1e-4


@pytest.mark.slow
def test_the_whole_of_vit_b_equals_segment_anything_within_1e_4_at_1024_px():
    stock = stock_encoder(VIT_SIZES["vit_b"], 1024, 256)
    ours = with_weights_of(stock, VIT_SIZES["vit_b"], 1024, 256)
    images = torch.randn(1, 3, 1024, 1024)
    with torch.no_grad():
        assert (ours(images).features - stock(images)).abs().max() <= 1e-4


@pytest.mark.parametrize("grid", [(6, 6), (4, 7), (1, 3)])
def test_folded_attention_equals_sams_own(grid):
    torch.manual_seed(0)
    attention = sam_module("modeling.image_encoder").Attention(32, num_heads=2, use_rel_pos=True, input_size=grid)
    nn.init.normal_(attention.rel_pos_h)
    nn.init.normal_(attention.rel_pos_w)
    attention.double()
    x = torch.randn(3, *grid, 32, dtype=torch.float64, requires_grad=True)
    folded, own = folded_attention(attention, x), attention(x)
    torch.testing.assert_close(folded, own, rtol=0, atol=1e-12)
    weight = torch.randn_like(own)
    one, other = (torch.autograd.grad((y * weight).sum(), x)[0] for y in (folded, own))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


def test_vit_takes_other_sizes_by_interpolating_positions():
    ours = VitEncoder(SMALL, input_size=128, outputs=32, options=VitOptions())
    assert ours(torch.randn(1, 3, 96, 160)).features.shape == (1, 32, 6, 10)


@pytest.mark.parametrize(("tap", "channels"), [("neck", [32]), ("last_block", [64]), ("global_blocks", [64])])
def test_vit_taps_have_the_channels_that_they_promise(tap, channels):
    ours = VitEncoder(SMALL, input_size=64, outputs=32, options=VitOptions())
    assert [map_.shape[1] for map_ in ours(torch.randn(1, 3, 64, 64), tap).taps] == channels
    assert ours.tap_channels[tap] == tuple(channels)


def encoders():
    torch.manual_seed(0)
    return {
        "hybrid": HybridEncoder(HYBRID, outputs=32, adapters=(True, True)),
        "tiny_vit": TinyVit(outputs=32, adapters=(True, True)),
    }


def settle(encoder):
    """Give BatchNorm statistics and affine parameters that are not those of the start."""
    generator = torch.Generator().manual_seed(3)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean):
                tensor.add_(0.2 * torch.randn(tensor.shape, generator=generator))
            module.running_var.mul_(0.5 + torch.rand(module.running_var.shape, generator=generator))
    return encoder.eval()


@pytest.mark.parametrize("name", ["hybrid", "tiny_vit"])
@pytest.mark.parametrize("size", [(64, 64), (48, 80), (16, 16)])
def test_small_encoders_take_any_multiple_of_16(name, size):
    encoder = encoders()[name].eval()
    with torch.no_grad():
        encoded = encoder(torch.randn(2, 3, *size))
    height, width = size
    assert encoded.features.shape == (2, 32, height // 16, width // 16)
    for stride, channels, early in zip((4, 8), encoder.early_channels, encoded.early, strict=True):
        assert early.shape == (2, channels, height // stride, width // stride)


@pytest.mark.parametrize("name", ["hybrid", "tiny_vit"])
def test_folding_batch_norm_keeps_the_features(name):
    encoder = settle(encoders()[name])
    images = torch.randn(1, 3, 64, 48)
    with torch.no_grad():
        before = encoder(images).features
        fuse_batch_norms(encoder)
        assert not any(isinstance(module, nn.BatchNorm2d) for module in encoder.modules())
        torch.testing.assert_close(encoder(images).features, before, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["hybrid", "tiny_vit"])
def test_zero_started_adapters_leave_small_encoders_as_they_are(name):
    adapted = settle(encoders()[name])
    make = {
        "hybrid": partial(HybridEncoder, HYBRID, outputs=32, adapters=(False, False)),
        "tiny_vit": partial(TinyVit, outputs=32, adapters=(False, False)),
    }
    plain = make[name]().eval()
    state = {key: tensor for key, tensor in adapted.state_dict().items() if "adapter" not in key}
    plain.load_state_dict(state)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(adapted(images).features, plain(images).features)


@pytest.mark.parametrize("name", ["hybrid", "tiny_vit"])
def test_gradient_checkpoints_change_no_gradient(name):
    images, grads = torch.randn(1, 3, 32, 32), []
    for recompute in (False, True):
        encoder = settle(encoders()[name])
        encoder.grad_checkpoint = recompute
        encoder(images).features.square().sum().backward()
        grads.append([p.grad for p in encoder.parameters()])
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other)


def test_windows_are_cut_and_joined_without_loss():
    x = torch.arange(2 * 8 * 12 * 3.0).view(2, 8, 12, 3)
    windows = split_windows(x, 4)
    assert windows.shape == (12, 16, 3)
    assert torch.equal(windows[1].view(4, 4, 3), x[0, :4, 4:8])
    assert torch.equal(join_windows(windows, 4, 8, 12), x)


def test_window_attention_never_looks_at_padding_or_into_other_windows():
    torch.manual_seed(0)
    attention = WindowAttention(16, 2, 4)
    nn.init.normal_(attention.bias_table)
    x = torch.randn(2, 6, 7, 16)
    with torch.no_grad():
        whole = attention(x)
        corner = attention(x[:, 4:, 4:])  # the last window holds 2 x 3 real tokens
        other = x.clone()
        other[:, :4] += 1
    torch.testing.assert_close(whole[:, 4:, 4:], corner)
    with torch.no_grad():
        torch.testing.assert_close(attention(other)[:, 4:], whole[:, 4:])


def test_window_attention_equals_its_definition():
    torch.manual_seed(0)
    attention = WindowAttention(8, 1, 2)
    nn.init.normal_(attention.bias_table)
    x = torch.randn(1, 2, 2, 8)
    tokens = x.view(4, 8)
    query, key, value = attention.qkv(tokens).chunk(3, dim=-1)
    places = [(0, 0), (0, 1), (1, 0), (1, 1)]
    bias = torch.tensor([[(a[0] - b[0] + 1) * 3 + a[1] - b[1] + 1 for b in places] for a in places])
    scores = query @ key.T / 8**0.5 + attention.bias_table[0][bias]
    expected = attention.proj(scores.softmax(-1) @ value).view(1, 2, 2, 8)
    torch.testing.assert_close(attention(x), expected)


def test_tiny_vits_bias_depends_on_the_absolute_offset():
    attention = BiasedAttention(8, 1, 7)
    index = attention.bias_index
    assert index.max() == 48
    assert torch.equal(index, index.T)
    assert index[0, 9] == 1 * 7 + 2  # token 9 lies one row down, two columns right


def test_layer_norm_2d_equals_sams():
    ours, sams = LayerNorm2d(6), sam_module("modeling.common").LayerNorm2d(6)
    for module in (ours, sams):
        module.weight.data = torch.arange(6.0)
        module.bias.data = -torch.arange(6.0)
    x = 3 * torch.randn(2, 6, 4, 5) + 1
    torch.testing.assert_close(ours(x), sams(x))


def test_a_mobilesam_checkpoint_fills_every_frozen_tensor_of_tiny_vit():
    rows = [line.split("\t") for line in PARAMETER_LIST.read_text().splitlines()]
    state = {name: torch.rand(literal_eval(shape)) + 0.1 for name, shape in rows}
    model = build_model(preset("paper", encoder="tiny_vit", early_skip=True))
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(is_adaptation(name) for name in missing)
    own = model.state_dict()
    unused = ("image_encoder.head", "image_encoder.norm_head")
    for name in state:
        if not name.startswith(unused):
            torch.testing.assert_close(own[name].float(), state[name].to(own[name].dtype).float())
