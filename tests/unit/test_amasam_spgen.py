import pytest
import torch

from amasam.model.spgen import SPGen, mask_prompt


def test_spgen_has_the_published_number_of_parameters():
    assert sum(p.numel() for p in SPGen(256).parameters()) == 136_036


@pytest.mark.parametrize("grid", [(8, 8), (4, 6), (5, 7), (1, 1)])
def test_the_coarse_map_has_four_times_the_token_grid(grid):
    coarse = SPGen(32)(torch.randn(2, 32, *grid))
    assert coarse.shape == (2, 1, 4 * grid[0], 4 * grid[1])


def test_the_prompt_is_binary_at_its_threshold_or_keeps_more():
    coarse = torch.tensor([-3.0, 0.0, 2.9, 3.0]).view(1, 1, 2, 2)
    assert mask_prompt(coarse, "binary", 0.95).flatten().tolist() == [0, 0, 0, 1]  # logit(0.95) = 2.944
    torch.testing.assert_close(mask_prompt(coarse, "prob", 0.95), coarse.sigmoid())
    torch.testing.assert_close(mask_prompt(coarse, "logit", 0.95), coarse)


def test_no_gradient_flows_through_the_prompt():
    coarse = torch.randn(1, 1, 4, 4, requires_grad=True)
    assert not any(mask_prompt(coarse, value, 0.95).requires_grad for value in ("binary", "prob", "logit"))


def test_fusing_keeps_the_map():
    spgen, features = SPGen(32).eval(), torch.randn(2, 32, 6, 5)
    with torch.no_grad():
        before = spgen(features)
        spgen.fuse()
        torch.testing.assert_close(spgen(features), before, atol=1e-5, rtol=0)
    assert len(spgen.double_size) == 1
