"""Losses against hand-worked values, and what must not influence them."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from amasam.data.batch import DomainBatch
from amasam.losses import (
    LossConfig,
    coarse_loss,
    compute_losses,
    dense_loss,
    dice_loss,
    domain_accuracy,
    domain_loss,
    fine_loss,
    focal_of_mean,
    map_loss,
    map_losses,
)

NAMES = ("distance", "boundary")
SURE = 40.0  # a logit whose sigmoid is 1 in float32


def make_batch(side: int = 16, names: tuple[str, ...] = NAMES) -> DomainBatch:
    torch.manual_seed(0)
    foreground = torch.zeros(2, 1, side, side, dtype=torch.uint8)
    foreground[:, :, : side // 2] = 1
    ones = torch.ones(2, 1, side, side, dtype=torch.uint8)
    return DomainBatch(
        images=torch.zeros(2, 3, side, side, dtype=torch.uint8),
        labels=foreground[:, 0].int(),
        foreground=foreground,
        maps=(torch.rand(2, len(names), side, side) * foreground).half(),
        valid=ones.clone(),
        trusted=ones.clone(),
        is_primary=torch.tensor([True, False]),
        domain=torch.tensor([0, 1]),
        weights=torch.ones(2),
        zoom=torch.ones(2),
    )


def make_output(side: int = 16, maps: int = 2, *, domain: bool = True, dense: bool = True) -> SimpleNamespace:
    torch.manual_seed(1)
    return SimpleNamespace(
        fine=torch.randn(2, 1, side, side, requires_grad=True),
        coarse=torch.randn(2, 1, side // 4, side // 4, requires_grad=True),
        maps=torch.randn(2, maps, side, side, requires_grad=True),
        domain=torch.randn(2, requires_grad=True) if domain else None,
        dense=torch.randn(2, 1 + maps, side // 4, side // 4, requires_grad=True) if dense else None,
    )


def test_dice_by_hand() -> None:
    """p = 1 on 4 of 8 true pixels: 1 - (2 * 4 + 1) / (4 + 8 + 1)."""
    logits = torch.full((1, 1, 4, 4), -SURE)
    logits[..., 0, :] = SURE
    target = torch.zeros(1, 1, 4, 4)
    target[..., :2, :] = 1
    assert dice_loss(logits, target, torch.ones_like(target), per_image=False).item() == pytest.approx(1 - 9 / 13)


def test_dice_over_the_batch_differs_from_dice_per_image() -> None:
    logits = torch.full((2, 1, 4, 4), -SURE)
    logits[0] = SURE
    target, valid = torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)
    target[0] = 1
    target[1, 0, 0, 0] = 1
    together = 1 - (2 * 16 + 1) / (16 + 17 + 1)
    apart = ((1 - 33 / 33) + (1 - 1 / 2)) / 2
    assert dice_loss(logits, target, valid, per_image=False).item() == pytest.approx(together)
    assert dice_loss(logits, target, valid, per_image=True).item() == pytest.approx(apart)


def test_focal_modulates_the_mean_and_not_each_pixel() -> None:
    """Logits 0: b = ln 2, so 0.8 (1 - 1/2)^2 ln 2."""
    assert focal_of_mean(torch.tensor(math.log(2))).item() == pytest.approx(0.8 * 0.25 * math.log(2))
    target = torch.zeros(1, 1, 4, 4)
    target[..., :2, :] = 1
    found = fine_loss(torch.zeros(1, 1, 4, 4), target, torch.ones_like(target), LossConfig())
    dice = 1 - (2 * 4 + 1) / (8 + 8 + 1)
    assert found.item() == pytest.approx(0.8 * dice + 0.2 * 0.8 * 0.25 * math.log(2))
    other = fine_loss(torch.zeros(1, 1, 4, 4), target, torch.ones_like(target), LossConfig(fine="bce_dice"))
    assert other.item() == pytest.approx(math.log(2) + dice)


def test_coarse_truth_is_every_fourth_pixel() -> None:
    target = torch.zeros(1, 1, 8, 8)
    target[..., 0, 4] = 1
    logits = torch.randn(1, 1, 2, 2)
    small = torch.tensor([[[[0.0, 1.0], [0.0, 0.0]]]])
    expected = F.binary_cross_entropy_with_logits(logits, small)
    assert coarse_loss(logits, target, torch.ones_like(target)).item() == pytest.approx(expected.item())


def test_domain_loss_is_divided_by_the_batch_and_not_by_the_weights() -> None:
    """z = 0 gives ln 2 per sample: (2.1 + 0.656) ln 2 / 2."""
    found = domain_loss(torch.zeros(2), torch.tensor([True, False]), torch.tensor([2.1, 0.656]))
    assert found.item() == pytest.approx((2.1 + 0.656) * math.log(2) / 2)
    heads = domain_loss(torch.zeros(2, 4), torch.tensor([True, False]), torch.tensor([2.1, 0.656]))
    assert heads.item() == pytest.approx(found.item())


def test_primary_is_one_for_the_discriminator() -> None:
    right = domain_loss(torch.tensor([SURE, -SURE]), torch.tensor([True, False]), torch.ones(2))
    assert right.item() == pytest.approx(0, abs=1e-6)
    assert domain_accuracy(torch.tensor([1.0, 2.0, -1.0]), torch.tensor([True, False, False])) == (1.0, 0.5)
    assert np.isnan(domain_accuracy(torch.tensor([1.0]), torch.tensor([True]))[1])


def test_padding_has_no_influence_on_any_loss() -> None:
    batch, output = make_batch(), make_output()
    batch.valid[..., 12:, :] = 0
    batch.trusted[..., 12:, :] = 0
    before = compute_losses(output, batch, LossConfig(), NAMES)
    before.total.backward()
    assert output.fine.grad[..., 12:, :].abs().max() == 0
    assert output.maps.grad[..., 12:, :].abs().max() == 0
    assert output.coarse.grad[..., 3:, :].abs().max() == 0
    assert output.dense.grad[..., 3:, :].abs().max() == 0
    batch.foreground[..., 12:, :] = 1
    batch.maps[..., 12:, :] = 0.7
    assert compute_losses(output, batch, LossConfig(), NAMES).total.item() == before.total.item()


def test_distrusted_pixels_teach_foreground_but_no_instance_map() -> None:
    batch, output = make_batch(), make_output(dense=False)
    batch.trusted[..., :4, :4] = 0
    compute_losses(output, batch, LossConfig(), NAMES).total.backward()
    assert output.maps.grad[..., :4, :4].abs().max() == 0
    assert output.maps.grad[..., 5:, 5:].abs().min() > 0
    assert output.fine.grad[..., :4, :4].abs().min() > 0


def test_boundary_pixels_weigh_twice() -> None:
    target = torch.tensor([[[[1.0, 0.0]]]])
    found = map_loss("boundary", torch.zeros(1, 1, 1, 2), target, torch.ones_like(target))
    assert found.item() == pytest.approx((2 * math.log(2) + math.log(2)) / 2)


def test_distance_losses_by_hand() -> None:
    target = torch.tensor([[[[0.5, 1.0, 0.0]]]])
    logits, ones = torch.zeros_like(target), torch.ones_like(target)
    assert map_loss("distance", logits, target, ones).item() == pytest.approx(math.log(2))
    # inside only, |0.5 - 0.5| = 0 and |0.5 - 1| = 0.5, less half of beta
    assert map_loss("distance", logits, target, ones, "smooth_l1").item() == pytest.approx((0 + 0.45) / 2)


def test_offset_losses_vanish_for_the_truth_only() -> None:
    target = torch.linspace(-1, 1, 8).expand(1, 1, 8, 8).clone()
    ones = torch.ones_like(target)
    assert map_loss("horizontal", target, target, ones).item() == 0
    assert map_loss("horizontal", target + 0.1, target, ones).item() == pytest.approx(0.01, rel=1e-4)
    steeper = map_loss("horizontal", 2 * target, target, ones).item()
    assert steeper == pytest.approx((target**2).mean().item() + (2 / 7) ** 2, rel=1e-4)


def test_the_total_adds_up_the_weighted_terms() -> None:
    config = LossConfig(domain=0.5, coarse=0.25, maps=2.0, dense=0.1)
    losses = compute_losses(make_output(), make_batch(), config, NAMES)
    expected = (
        losses.fine + 0.5 * losses.domain + 0.25 * losses.coarse + 2.0 * sum(losses.maps) / 2 + 0.1 * losses.dense
    )
    assert losses.total.item() == pytest.approx(expected.item())
    assert losses.named(NAMES) == pytest.approx(
        {
            "total": losses.total.item(),
            "fine": losses.fine.item(),
            "coarse": losses.coarse.item(),
            "domain": losses.domain.item(),
            "dense": losses.dense.item(),
            "distance": losses.maps[0].item(),
            "boundary": losses.maps[1].item(),
        }
    )


def test_the_papers_configuration_has_three_terms() -> None:
    batch = make_batch(names=())
    losses = compute_losses(make_output(maps=0, dense=False), batch, LossConfig())
    assert losses.maps == ()
    assert losses.dense.item() == 0
    assert losses.total.item() == pytest.approx((losses.fine + losses.coarse + losses.domain).item())
    alone = compute_losses(make_output(maps=0, domain=False, dense=False), batch, LossConfig())
    assert alone.domain.item() == 0


def test_all_losses_are_float32_under_autocast() -> None:
    output = make_output()
    exact = compute_losses(output, make_batch(), LossConfig(), NAMES)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = compute_losses(output, make_batch(), LossConfig(), NAMES)
    assert mixed.total.dtype == torch.float32
    assert mixed.total.item() == exact.total.item()


def test_a_perfect_answer_costs_next_to_nothing() -> None:
    batch, output = make_batch(), make_output(dense=False)
    batch.maps[:] = batch.foreground
    sign = SURE * (2 * batch.foreground.float() - 1)
    output.fine, output.coarse, output.maps = sign, sign[..., ::4, ::4], sign.expand(-1, 2, -1, -1)
    losses = compute_losses(output, batch, LossConfig(domain=0), NAMES)
    assert losses.total.item() < 1e-4


def test_no_trusted_pixel_gives_zero_and_finite_gradients() -> None:
    batch, output = make_batch(), make_output()
    batch.trusted[:] = 0
    losses = compute_losses(output, batch, LossConfig(), NAMES)
    losses.total.backward()
    assert [loss.item() for loss in losses.maps] == [0, 0]
    assert torch.isfinite(output.maps.grad).all()


def test_dense_head_is_compared_with_averaged_targets() -> None:
    batch = make_batch()
    logits = torch.zeros(2, 3, 4, 4)
    assert dense_loss(logits, batch, LossConfig(), ()).item() == pytest.approx(math.log(2))


def test_wrong_names_and_numbers_of_maps_are_refused() -> None:
    with pytest.raises(ValueError, match="3 map names for 2 maps"):
        map_losses(torch.zeros(2, 2, 16, 16), make_batch(), LossConfig(), ("distance", "boundary", "horizontal"))
    with pytest.raises(ValueError, match="no loss for a map named 'depth'"):
        map_loss("depth", torch.zeros(1), torch.zeros(1), torch.ones(1))
    with pytest.raises(ValueError, match="fine loss must be"):
        LossConfig(fine="l2")
    with pytest.raises(ValueError, match="distance loss must be"):
        LossConfig(distance="l2")
