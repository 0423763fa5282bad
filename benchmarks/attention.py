"""Folded attention against SAM's own, on the blocks of ViT-B: time, memory, largest difference.

    python benchmarks/attention.py [--threads 2] [--repeats 3] [--encoder]

Both run in this process, in turn, with the same random weights. Rows: windows of 14 x 14 tokens, and global attention
at 512 and 1024 px. `--encoder` adds the whole ViT-B at 1024 px, with adapters at their zero start, against
segment-anything's encoder (about 1 minute and 3 GB). Milliseconds are the fastest of the repeats.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from decoder import growth_mib, timed
from torch import Tensor, nn

from amasam.model.folded import folded_attention
from amasam.model.vit import VIT_SIZES, VitEncoder, VitOptions
from amasam.sam import sam_module

SIZE = VIT_SIZES["vit_b"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--encoder", action="store_true", help="the whole ViT-B at 1024 px as well")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    print(f"ViT-B, float32, {args.threads} threads: SAM's own / folded")
    with torch.inference_mode():
        compare("25 windows of 14 x 14", *attention_forms((25, 14, 14)), args.repeats)
        compare("global, 32 x 32 tokens", *attention_forms((1, 32, 32)), args.repeats)
        compare("global, 64 x 64 tokens", *attention_forms((1, 64, 64)), args.repeats)
        if args.encoder:
            compare("whole encoder, 1024 px", *encoder_forms(), 1)


def attention_forms(shape: tuple[int, int, int]) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """Return SAM's attention and the folded one on tokens of (B, H, W)."""
    attention = sam_module("modeling.image_encoder").Attention
    module = attention(SIZE.width, SIZE.heads, use_rel_pos=True, input_size=shape[1:])
    nn.init.normal_(module.rel_pos_h, std=0.1)
    nn.init.normal_(module.rel_pos_w, std=0.1)
    tokens = torch.randn(*shape, SIZE.width)
    return partial(module, tokens), partial(folded_attention, module, tokens)


def encoder_forms() -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """Return segment-anything's ViT-B and ours on one image of 1024 px."""
    stock = sam_module("build_sam").build_sam_vit_b().image_encoder
    with torch.no_grad():
        for name, parameter in stock.named_parameters():
            if "pos" in name:  # SAM starts them at zero
                parameter.normal_(std=0.1)
    ours = VitEncoder(SIZE, input_size=1024, outputs=256, options=VitOptions()).eval()
    ours.load_state_dict(stock.state_dict(), strict=False)
    images = torch.randn(1, 3, 1024, 1024)
    return partial(stock, images), lambda: ours(images).features


def compare(title: str, own: Callable[[], Tensor], folded: Callable[[], Tensor], repeats: int) -> None:
    difference = (own() - folded()).abs().max().item()
    runs = [(timed(own), timed(folded)) for _ in range(repeats)]
    own_ms, folded_ms = (min(run[i][0] for run in runs) for i in (0, 1))
    own_wall, folded_wall = (min(run[i][1] for run in runs) for i in (0, 1))
    own_mib, folded_mib = growth_mib(own), growth_mib(folded)
    print(f"{title:24} CPU {own_ms:8.0f} / {folded_ms:8.0f} ms = {own_ms / folded_ms:4.2f}, wall {own_wall:.0f} / "
          f"{folded_wall:.0f} ms = {own_wall / folded_wall:4.2f}, memory {own_mib:.0f} / {folded_mib:.0f} MiB, "
          f"largest difference {difference:.1e}")  # fmt: skip


if __name__ == "__main__":
    main()
