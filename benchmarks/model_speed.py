"""Seconds per 1024 px tile of the default model, post-processing included, beside a plain U-Net with ResNet-34 encoder.

    python benchmarks/model_speed.py [--threads 2] [--repeats 5]

Both run in this process, in turn, channels-last, fp32 unless the row says bf16. The U-Net is the usual one (encoder
64-64-128-256-512, decoder 256-128-64-32-16 with skips, about 24 M parameters, as many maps, random weights) and gets
the same post-processing on the default model's maps.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from wsipipe.drawnslide import DemoSpec, Painter
from wsipipe.grid import ALL_SIDES, Box
from wsipipe.segmenter import load_segmenter

SIDE = 1024


def conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = conv(inputs, outputs, stride)
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))
        same = stride == 1 and inputs == outputs
        self.skip = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.second(self.first(x)) + self.skip(x))


class UNetResNet34(nn.Module):
    """He et al. 2016 (ResNet-34), Ronneberger et al. 2015 (U-Net)."""

    def __init__(self, maps: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True))
        widths, depths = (64, 128, 256, 512), (3, 4, 6, 3)
        stages, inputs = [], 64
        for k, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            first = Residual(inputs, width, 1 if k == 0 else 2)
            stages.append(nn.Sequential(first, *(Residual(width, width, 1) for _ in range(depth - 1))))
            inputs = width
        self.stages = nn.ModuleList(stages)
        skips, decoder = (256, 128, 64, 64, 0), []
        for width, skip in zip((256, 128, 64, 32, 16), skips, strict=True):
            decoder.append(nn.Sequential(conv(inputs + skip, width), conv(width, width)))
            inputs = width
        self.decoder = nn.ModuleList(decoder)
        self.head = nn.Conv2d(inputs, maps, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = [self.stem(x)]
        x = functional.max_pool2d(skips[0], 3, 2, 1)
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        for step, skip in zip(self.decoder, [*skips[-2::-1], None], strict=True):
            x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
            x = step(x if skip is None else torch.cat([x, skip], dim=1))
        return self.head(x)


def unet_maps(model: nn.Module, images: np.ndarray, *, bf16: bool) -> np.ndarray:
    """The U-Net as a segmenter would run it: normalise, forward, sigmoid, uint8."""
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        x = (torch.from_numpy(images).float() / 255 - 0.5).contiguous(memory_format=torch.channels_last)
        return (model(x).float().sigmoid() * 255).round().to(torch.uint8).numpy()


def time_in_turn(variants: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Wall seconds of each variant, interleaved, first round dropped."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(repeats + 1):
        for name, run in variants.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return {name: times[1:] for name, times in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="amasam-tiny")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    segmenter = load_segmenter(args.model, device="cpu")
    spec = DemoSpec(width=SIDE, height=SIDE, tissue=1.0, mpp=segmenter.mpp)
    image = Painter(spec).paint(Box(0, 0, SIDE, SIDE)).rgb
    images = np.ascontiguousarray(image.transpose(2, 0, 1)[None])
    unet = UNetResNet34(len(segmenter.map_names)).to(memory_format=torch.channels_last).eval()
    print(f"U-Net ResNet-34: {sum(p.numel() for p in unet.parameters()) / 1e6:.1f} M parameters")
    maps = np.ascontiguousarray(segmenter.maps(images)[0])

    def post() -> None:
        segmenter.instances(maps, mpp=segmenter.mpp, sides=ALL_SIDES)

    def ours() -> None:
        segmenter.maps(images)
        post()

    def plain(bf16: bool) -> None:
        unet_maps(unet, images, bf16=bf16)
        post()

    seconds = time_in_turn(
        {args.model: ours, "U-Net fp32": lambda: plain(False), "U-Net bf16": lambda: plain(True), "post only": post},
        args.repeats,
    )
    base = statistics.median(seconds["U-Net fp32"])
    for name, times in seconds.items():
        median = statistics.median(times)
        print(f"{name:16s} {median:7.3f} s per tile, {median / base:.3f} of the U-Net in fp32, {args.threads} threads")
    print("parameters of the segmenter:", dict(segmenter.parameters))


if __name__ == "__main__":
    main()
