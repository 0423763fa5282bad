import pytest
import torch
from torch.nn import functional

from amasam.model.cgrl import Alignment, gradient_coefficient, scale_gradient

PRIMARY = torch.tensor([True, False, True, False])
LAMBDA = 0.7


def domain_loss(alignment, features, strength=LAMBDA):
    logits = alignment([features], PRIMARY, strength)
    return functional.binary_cross_entropy_with_logits(logits, PRIMARY.float())


@pytest.mark.parametrize(
    ("align", "expected"), [("cgrl", [0, -0.7, 0, -0.7]), ("grl", [-0.7] * 4), ("none", [0, 0, 0, 0])]
)
@pytest.mark.parametrize("kind", ["gap_mlp", "conv"])
def test_feature_gradients_are_scaled_per_sample_as_in_section_3_1(align, expected, kind):
    torch.manual_seed(0)
    alignment = Alignment([16], kind=kind, align=align)
    features = torch.randn(4, 16, 8, 8, requires_grad=True)
    domain_loss(alignment, features).backward()
    plain = features.detach().clone().requires_grad_()
    logits = alignment.heads[0](plain)[:, 0]
    functional.binary_cross_entropy_with_logits(logits, PRIMARY.float()).backward()
    ratio = torch.tensor(expected, dtype=torch.float32).view(4, 1, 1, 1)
    torch.testing.assert_close(features.grad, plain.grad * ratio)


@pytest.mark.parametrize("align", ["cgrl", "grl", "none"])
def test_the_discriminator_learns_from_primary_images_alone(align):
    alignment = Alignment([16], kind="gap_mlp", align=align)
    logits = alignment([torch.randn(2, 16, 4, 4)], torch.tensor([True, True]), LAMBDA)
    functional.binary_cross_entropy_with_logits(logits, torch.ones(2)).backward()
    assert all(p.grad.abs().sum() > 0 for p in alignment.parameters())


def test_the_discriminators_own_gradient_is_not_reversed():
    torch.manual_seed(0)
    features, grads = torch.randn(4, 16, 4, 4), []
    alignment = Alignment([16], kind="gap_mlp", align="cgrl")
    for align in ("cgrl", "none"):
        alignment.align = align
        grads.append(torch.autograd.grad(domain_loss(alignment, features), list(alignment.parameters())))
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_losses_beside_the_branch_reach_primary_features_unchanged():
    torch.manual_seed(0)
    alignment = Alignment([16], kind="gap_mlp", align="cgrl")
    weight = torch.randn(4, 16, 4, 4)
    features = torch.randn(4, 16, 4, 4, requires_grad=True)
    ((features * weight).sum() + domain_loss(alignment, features)).backward()
    torch.testing.assert_close(features.grad[PRIMARY], weight[PRIMARY], rtol=0, atol=0)
    assert (features.grad[~PRIMARY] - weight[~PRIMARY]).abs().max() > 0


def test_the_layer_returns_its_input_bit_by_bit():
    x = torch.randn(4, 3)
    assert torch.equal(scale_gradient(x, gradient_coefficient(PRIMARY, "grl", 1.0)), x)


def test_the_discriminator_runs_in_float32_under_autocast():
    alignment = Alignment([16], kind="conv", align="cgrl")
    with torch.autocast("cpu", torch.bfloat16):
        logits = alignment([torch.randn(4, 16, 8, 8).bfloat16()], PRIMARY, LAMBDA)
    assert logits.dtype == torch.float32


def test_several_taps_give_a_column_each():
    alignment = Alignment([8, 16], kind="gap_mlp", align="cgrl")
    taps = [torch.randn(4, 8, 4, 4), torch.randn(4, 16, 4, 4)]
    assert alignment(taps, PRIMARY, 1.0).shape == (4, 2)


def test_discriminators_have_the_specified_sizes():
    count = {
        kind: sum(p.numel() for p in Alignment([256], kind=kind, align="cgrl").parameters())
        for kind in ("gap_mlp", "conv")
    }
    assert count == {"gap_mlp": 33_025, "conv": 184_513}
