"""Peak memory, time and nuclei of slides of several sizes, each in a process of its own.

    python benchmarks/memory.py 10000 40000 [--workers 2] [--memory 4GB]

Sizes are px along a side at 0.25 um per px, rounded to tile cores; tissue is dense everywhere and the model costs
nothing, so that everything else is what is measured. Goal: 40,000 px needs at most 1.2 times what 10,000 px needs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from standin import CORE, StandIn, write_slide

from wsipipe.machine import peak_rss_bytes
from wsipipe.options import RunOptions, parse_memory
from wsipipe.runner import run_slides
from wsipipe.slidelist import list_slides

GOAL = 1.2


def measure(side: int, workers: int, memory: str | None) -> dict[str, float]:
    """Do one slide in this process."""
    tiles = max(1, round(side / CORE))
    with tempfile.TemporaryDirectory() as name:
        slide = write_slide(Path(name) / "slide.svs", tiles)
        options = RunOptions(
            out=Path(name) / "out", tissue="none", workers=workers, memory=parse_memory(memory) if memory else None
        )
        started = time.perf_counter()
        summary = run_slides(list_slides([str(slide)], mpp=None), options, lambda event: None, segmenter=StandIn())
        seconds = time.perf_counter() - started
        assert summary.exit_code == 0, summary.failures
    nuclei = summary.results[0].record.nuclei
    return {"px": tiles * CORE, "peak": peak_rss_bytes(), "seconds": seconds, "nuclei": nuclei}


def main() -> None:
    """Print one line per size and the ratio of the last to the first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", type=int, nargs="+")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--memory")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        print(json.dumps(measure(args.sizes[0], args.workers, args.memory)))
        return
    more = ["--workers", str(args.workers), *(["--memory", args.memory] if args.memory else [])]
    found = []
    for size in args.sizes:
        command = [sys.executable, __file__, str(size), "--here", *more]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr)
        found.append(json.loads(done.stdout.splitlines()[-1]))
        one = found[-1]
        print(
            f"{one['px']:6.0f} px: peak {one['peak'] / 2**20:6.0f} MiB, {one['seconds']:7.1f} s, "
            f"{one['seconds'] / (one['px'] / 1000) ** 2:.3f} s per Mpx, {one['nuclei']:9.0f} nuclei",
            flush=True,
        )
    ratio = found[-1]["peak"] / found[0]["peak"]
    print(f"{found[-1]['px']:.0f} px / {found[0]['px']:.0f} px: {ratio:.2f} times the memory, goal {GOAL}")


if __name__ == "__main__":
    main()
