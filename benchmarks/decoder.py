"""The HR-Decoder's last steps, fused against literal: time, memory, largest difference.

    python benchmarks/decoder.py [--side 1024] [--threads 2] [--repeats 5]

Both run in this process, in turn, on the same G (32 channels at stride 4) and slice vectors. Prints milliseconds (the
fastest of the repeats; CPU time of all threads, which other programs disturb less, and wall time) and the growth of the
process while one runs (Linux only).
"""

import argparse
import ctypes
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from amasam.model.reference import materialised_map
from amasam.model.upsample import fused_map, phase_stencils

CHANNELS, FACTOR = 32, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=1024, help="of the fine map, px")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    grid = args.side // FACTOR
    features = torch.randn(1, CHANNELS, grid, grid).contiguous(memory_format=torch.channels_last)
    slices = torch.randn(1, FACTOR**2, CHANNELS)
    stencils = phase_stencils(FACTOR).float()
    forms: dict[str, Callable[[], Tensor]] = {
        "literal": lambda: materialised_map(features, slices, FACTOR),
        "fused": lambda: fused_map(features, slices, stencils),
    }
    print(f"1 x {CHANNELS} x {grid} x {grid} -> 1 x 1 x {args.side} x {args.side}, float32, {args.threads} threads")
    with torch.inference_mode():
        difference = (forms["literal"]() - forms["fused"]()).abs().max().item()
        cpu = {name: [] for name in forms}
        wall = {name: [] for name in forms}
        for _ in range(args.repeats):
            for name, form in forms.items():
                cpu_ms, wall_ms = timed(form)
                cpu[name].append(cpu_ms)
                wall[name].append(wall_ms)
        grown = {name: growth_mib(form) for name, form in forms.items()}
    for name in forms:
        print(
            f"{name:8} {min(cpu[name]):8.1f} ms CPU {min(wall[name]):8.1f} ms wall {grown[name]:8.1f} MiB at its peak"
        )
    print(f"literal / fused: CPU {min(cpu['literal']) / min(cpu['fused']):.1f}, "
          f"wall {min(wall['literal']) / min(wall['fused']):.1f}, "
          f"memory {grown['literal'] / max(grown['fused'], 0.1):.1f}; largest difference {difference:.1e}")  # fmt: skip


def timed(form: Callable[[], Tensor]) -> tuple[float, float]:
    """Return CPU and wall milliseconds of one run."""
    cpu, wall = time.process_time(), time.perf_counter()
    form()
    return 1e3 * (time.process_time() - cpu), 1e3 * (time.perf_counter() - wall)


def growth_mib(form: Callable[[], Tensor]) -> float:
    """Return by how much the resident set grows at most while `form` runs; NaN where the system does not say."""
    status, clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not clear.exists():
        return float("nan")
    ctypes.CDLL(None).malloc_trim(0)  # freed memory that the process still holds would hide the growth
    clear.write_text("5")  # sets the recorded peak back to the present size
    before = read_kib(status, "VmRSS")
    form()
    return (read_kib(status, "VmHWM") - before) / 1024


def read_kib(status: Path, field: str) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1])


if __name__ == "__main__":
    main()
