"""The decoder's fusion branch: absent until trained, exact when folded, trained as a whole."""

import pytest
import torch
from torch import nn

from amasam.build import build_model, preset
from amasam.model.amasam import AmaSamOutput
from wsipipe.errors import UsageError


def with_fusion(*, seed: int = 0, started: bool) -> nn.Module:
    """A small model; `started`: its branch holds something to add, and its BatchNorm has seen something."""
    torch.manual_seed(seed)
    model = build_model(preset("test", fusion=16))
    if started:
        nn.init.normal_(model.hr_decoder.fusion.out.weight, std=0.5)
        model.train()(torch.rand(4, 3, 64, 64) * 255)
    return model.eval()


@torch.no_grad()
def with_and_without(model: nn.Module) -> tuple[AmaSamOutput, AmaSamOutput]:
    """The outputs for one image, before and after the branch is taken out."""
    images = torch.rand(1, 3, 64, 64) * 255
    whole = model(images)
    model.hr_decoder.fusion = None
    return whole, model(images)


def test_a_fresh_branch_changes_no_output():
    whole, bare = with_and_without(with_fusion(started=False))
    assert torch.equal(whole.fine, bare.fine)
    assert torch.equal(whole.maps, bare.maps)


def test_a_trained_branch_changes_every_map():
    whole, bare = with_and_without(with_fusion(started=True))
    assert not torch.allclose(whole.fine, bare.fine, atol=1e-3)
    assert not torch.allclose(whole.maps, bare.maps, atol=1e-3)


@torch.no_grad()
def test_folding_batch_norm_keeps_the_outputs():
    model = with_fusion(started=True)
    images = torch.rand(1, 3, 64, 64) * 255
    before = model(images)
    after = model.fuse()(images)
    torch.testing.assert_close(after.fine, before.fine, atol=1e-4, rtol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


def test_every_parameter_of_the_branch_gets_a_gradient_once_it_adds_something():
    model = with_fusion(started=True).train()
    output = model(torch.rand(2, 3, 64, 64) * 255)
    (output.fine.square().mean() + output.maps.square().mean()).backward()
    for name, parameter in model.hr_decoder.fusion.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_a_branch_without_early_features_is_refused():
    with pytest.raises(UsageError, match="fusion needs the early features"):
        build_model(preset("test", fusion=16, early_skip=False))
