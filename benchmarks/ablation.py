"""What domain alignment is worth at this scale: short trainings of one stage 2, several seeds, on held-out patients.

    for s in 0 1 2; do for n in primary-only no-alignment grl cgrl; do
        amasam train workflows/ablation-$n.toml --init runs/tiny-pretrain/best.safetensors --seed $s --out runs/$n-$s
    done; done
    python benchmarks/ablation.py runs

Prints, for each variant, the mean over seeds with the 95 % interval of Student's t, and the differences to the variant
without alignment, seed by seed. The interval speaks of seeds, not of images: these are the same few images each time.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from amasam.entries import load
from amasam.evaluate import evaluate_model, load_part
from amasam.shipped import workflows_folder

VARIANTS = ("primary-only", "no-alignment", "grl", "cgrl")
METRICS = ("dsc", "aji", "pq")


def scores(checkpoint: Path, sets: Sequence[str], root: Path) -> NDArray[np.float64]:
    """Return the means of METRICS for each set, float64 (sets, 3), in percent."""
    segmenter = load("cpu", checkpoint)
    found = []
    for name, part in (text.split(":") for text in sets):
        samples = load_part([name], part, workflows_folder() / "data", root)
        images = evaluate_model(segmenter, samples, name="", on_image=lambda sample: None).images
        found.append([100 * np.mean([getattr(image.metrics, metric) for image in images]) for metric in METRICS])
    return np.array(found)


def interval(values: NDArray[np.float64]) -> str:
    """Mean and half width of the 95 % interval over the first axis."""
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return f"{values.mean():+.2f} ± {half:.2f}"


def main() -> None:
    """Print one table for each set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--sets", nargs="+", default=["monuseg_train:validation"], help="SET:PART")
    parser.add_argument("--data", type=Path, default=os.environ.get("WSIPIPE_DATA"))
    args = parser.parse_args()
    table: dict[str, NDArray[np.float64]] = {}
    for variant in VARIANTS:
        runs = sorted(args.runs.glob(f"{variant}-[0-9]*/last.safetensors"))
        table[variant] = np.array([scores(path, args.sets, args.data) for path in runs])  # (seeds, sets, metrics)
    seeds = min(len(values) for values in table.values())
    for k, name in enumerate(args.sets):
        print(f"\n{name}, {seeds} seeds\n\n| variant | {' | '.join(METRICS)} | AJI - no alignment |")
        print("|---" * (len(METRICS) + 2) + "|")
        for variant, values in table.items():
            cells = [interval(values[:, k, m]).lstrip("+") for m in range(len(METRICS))]
            against = interval(values[:seeds, k, 1] - table["no-alignment"][:seeds, k, 1])
            print(f"| {variant} | {' | '.join(cells)} | {'' if variant == 'no-alignment' else against} |")


if __name__ == "__main__":
    main()
