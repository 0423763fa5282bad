"""Reading 1024 px tiles at level 0: OpenSlide + PIL against Slide.read, both in this process, tile by tile in turn.

    python benchmarks/read.py [SLIDE] [--tiles 40] [--halo 64]

Without a slide it draws an Aperio file of 240 px JPEG tiles. Prints CPU ms per Mpx (medians over the tiles), their
ratio, and whether the px are equal.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import openslide
import tifffile

from wsipipe.frames import work_frame
from wsipipe.grid import Box
from wsipipe.slide import Slide, open_slide

SIDE = 1024
GOAL = 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", nargs="?", type=Path)
    parser.add_argument("--tiles", type=int, default=40)
    parser.add_argument("--halo", type=int, default=64, help="px that neighbouring tiles share on each side")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = args.slide or draw(Path(folder) / "drawn.svs", 8192)
        with open_slide(path, mpp=0.25) as slide, openslide.OpenSlide(path) as plain:
            compare(slide, plain, args.tiles, args.halo)


def draw(path: Path, side: int) -> Path:
    """Write a one-level SVS with the texture of stained tissue, so that JPEG tiles have their usual size."""
    rng = np.random.default_rng(0)
    coarse = rng.normal(size=(side // 8, side // 8, 3)).astype(np.float32)
    texture = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    texture += rng.normal(scale=0.3, size=texture.shape).astype(np.float32)
    image = np.clip(texture * 25 + np.array([190, 130, 175], np.float32), 0, 255).astype(np.uint8)
    area = f"{side}x{side} [0,0 {side}x{side}] (240x240)"
    text = f"Aperio Image Library v12.0.15\r\n{area} JPEG/RGB Q=70|AppMag = 40|MPP = 0.25"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            image,
            photometric="rgb",
            compression="jpeg",
            compressionargs={"level": 70},
            tile=(240, 240),
            description=text,
            metadata=None,
        )
    return path


def compare(slide: Slide, plain: openslide.OpenSlide, tiles: int, halo: int) -> None:
    frame = work_frame((slide.width, slide.height), (slide.mpp.x, slide.mpp.y), slide.mpp.mean, slide.downsamples)
    step = SIDE - 2 * halo
    starts = [(x, y) for y in range(0, slide.height - SIDE + 1, step) for x in range(0, slide.width - SIDE + 1, step)]
    times: dict[str, list[float]] = {"plain": [], "ours": []}
    equal = True
    for x, y in starts[:tiles]:
        begin = time.process_time()
        expected = np.asarray(plain.read_region((x, y), 0, (SIDE, SIDE)).convert("RGB"))
        middle = time.process_time()
        got = slide.read(Box(x, y, x + SIDE, y + SIDE), frame)
        times["plain"].append(middle - begin)
        times["ours"].append(time.process_time() - middle)
        equal = equal and np.array_equal(expected, got)
    mpx = SIDE * SIDE / 1e6
    each = {name: 1000 * statistics.median(values) / mpx for name, values in times.items()}
    print(f"{slide.path.name}: {len(times['ours'])} tiles of {SIDE} px, halo {halo}, reader {slide.reader}")
    print(f"OpenSlide.read_region + PIL   {each['plain']:7.1f} CPU ms per Mpx")
    print(f"Slide.read                    {each['ours']:7.1f} CPU ms per Mpx")
    print(f"ratio {each['plain'] / each['ours']:.2f} (goal >= {GOAL:g}), px equal: {equal}")


if __name__ == "__main__":
    main()
