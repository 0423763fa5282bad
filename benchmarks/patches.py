"""Milliseconds per training patch, part by part: must stay under 6 ms on one core, so that patches never hold a GPU up.

Run: python benchmarks/patches.py [DATA_ROOT]. Without a data root it draws discs.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from amasam.data.augment import AugmentConfig, PatchSize, cut_patch
from amasam.data.load import load_set
from amasam.data.prefetch import PrefetchConfig, PrefetchLoader
from amasam.data.sampler import CropSampler, SamplerConfig
from amasam.data.samples import DataSet, Sample
from amasam.targets import make_targets

DESCRIPTION = Path(__file__).resolve().parents[1] / "workflows" / "data" / "monuseg_train.toml"
REPEATS = 100
BATCH = 8


def drawn_set() -> DataSet:
    rng = np.random.default_rng(0)
    labels = np.zeros((1000, 1000), np.int32)
    for label in range(1, 700):
        cv2.circle(labels, tuple(int(v) for v in rng.integers(0, 1000, 2)), 11, label, -1)
    image = np.where(labels[..., None] > 0, (110, 60, 140), (230, 190, 215)).astype(np.uint8)
    return DataSet("drawn", tuple(Sample(image, labels, f"{k}", "drawn", f"{k}", 0.25) for k in range(4)))


def ms(work: Callable[[int], object], repeats: int = REPEATS) -> float:
    work(0)
    start = time.process_time()
    for step in range(repeats):
        work(step)
    return (time.process_time() - start) / repeats * 1e3


def wall_ms(sampler: CropSampler, config: PrefetchConfig) -> float:
    start = time.perf_counter()
    for _ in PrefetchLoader(sampler, config, start=0, stop=REPEATS // 2):
        pass
    return (time.perf_counter() - start) / (REPEATS // 2) * 1e3


def main() -> None:
    cv2.setNumThreads(1)
    data = load_set(DESCRIPTION, Path(sys.argv[1])) if len(sys.argv) > 1 else drawn_set()
    size = PatchSize()
    samples = data.samples

    def patch(preset: str) -> Callable[[int], object]:
        config = AugmentConfig(preset)
        return lambda k: cut_patch(samples[k % len(samples)], np.random.default_rng((0, k)), config, size)

    labels = samples[0].labels[:320, :320]
    print(f"CPU ms per 256 px patch of {data.name}, one core")
    for preset in ("plain", "robust"):
        print(f"  cut and augment, {preset:<7} {ms(patch(preset)):6.2f}")
    for names in (("distance", "boundary"), ("horizontal", "vertical")):
        print(f"  targets {', '.join(names):<21} {ms(lambda _, n=names: make_targets(labels, n, margin=32)):6.2f}")
    sampler = CropSampler(SamplerConfig(batch=BATCH), [data], 0)
    print(f"  all in                        {ms(sampler.batch, REPEATS // 4) / BATCH:6.2f}")
    print(f"wall ms per batch of {BATCH}")
    for config in (PrefetchConfig(0), PrefetchConfig(2), PrefetchConfig(2, "processes")):
        print(f"  {config.workers} {config.kind:<10} {wall_ms(sampler, config):6.1f}")


if __name__ == "__main__":
    main()
