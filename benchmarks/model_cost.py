"""What a model costs: parameters, multiply-adds and time of one tile, in float32 and bfloat16.

    python benchmarks/model_cost.py [PRESET ...] [--side 1024] [--threads 1] [--repeats 5]

Random weights, fused for inference, one process. Times are the fastest of the repeats: CPU time of all threads, which
other programs on the machine disturb less, and wall time. GMAC are counted by PyTorch's FLOP counter (2 FLOP each).
"""

import argparse

import torch
from decoder import timed
from torch.utils.flop_counter import FlopCounterMode

from amasam.build import build_model, preset
from amasam.checkpoint import TRAINING_ONLY
from amasam.model.amasam import AmaSam


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", default=["tiny", "tiny_vit"])
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"one tile of {args.side} px, {args.threads} threads")
    for name in args.presets:
        model = build_model(preset(name))
        kept = sum(p.numel() for key, p in model.named_parameters() if not key.startswith(TRAINING_ONLY))
        print(f"{name}: {sum(p.numel() for p in model.parameters()):,} parameters, {kept:,} at inference")
        measure(model.fuse(), torch.rand(1, 3, args.side, args.side) * 255, args.repeats)


@torch.inference_mode()
def measure(model: AmaSam, image: torch.Tensor, repeats: int) -> None:
    with FlopCounterMode(display=False) as counter:
        model(image)
    parts = {key: sum(flops.values()) / 2e9 for key, flops in counter.get_flop_counts().items()}
    print(f"  {parts['Global']:.2f} GMAC, of them the encoder {parts['AmaSam.image_encoder']:.2f}")
    for precision in ("float32", "bfloat16"):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            model(image)
            runs = [timed(lambda: model(image).fine) for _ in range(repeats)]
        print(f"  {precision}: {min(cpu for cpu, _ in runs):.0f} ms CPU, {min(wall for _, wall in runs):.0f} ms wall")


if __name__ == "__main__":
    main()
