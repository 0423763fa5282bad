"""Writing the label pyramid: plain tile-wise writing against whole shards, and what the stages cost.

    python benchmarks/labels.py [--side 16384] [--rounds 2]

Prints Mpx of level 0 per CPU-s (of the pyramid: of level 0 too), sizes, and the ratio of whole shards to 1024 px tiles
written one by one into the same shards; then the reduction by most frequent label in numba and in numpy.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray

from wsipipe.frames import WorkFrame
from wsipipe.grid import Box
from wsipipe.labels import (
    SHARD,
    create_labels,
    level_sizes,
    list_shards,
    read_labels,
    reduce_labels,
    write_level0_shard,
    write_reduced_shard,
)
from wsipipe.nuclei import Runs
from wsipipe.provenance import Provenance

TILE = 1024
SPACING, RADIUS = 44, 14  # px: 540 nuclei per 1024 px tile


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=16384)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    frame = WorkFrame(args.side, args.side, 0.25, 0.25, 1.0, 1.0)
    provenance = Provenance("drawn.svs", "key", "none", "none", frame)
    runs = draw_runs(args.side)
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), provenance, runs, args.rounds)
    compare_reductions(runs)


def draw_runs(side: int) -> Runs:
    """Return disks on a lattice, as runs sorted by label."""
    step = np.arange(SPACING // 2, side - RADIUS, SPACING)
    y, x = (a.ravel() for a in np.meshgrid(step, step, indexing="ij"))
    dy = np.arange(-RADIUS, RADIUS + 1)
    half = np.sqrt(RADIUS**2 - dy**2).astype(np.int64)
    rows = (y[:, None] + dy).ravel()
    x0, x1 = (x[:, None] - half).ravel(), (x[:, None] + half + 1).ravel()
    labels = np.repeat(np.arange(1, len(x) + 1), len(dy))
    return Runs(*(np.ascontiguousarray(values, dtype=np.int32) for values in (rows, x0, x1, labels)))


def seconds(task: Callable[[], object]) -> float:
    start = time.process_time()
    task()
    return time.process_time() - start


def write_shards(path: Path, provenance: Provenance, runs: Runs) -> None:
    for shard in list_shards(provenance.frame, 0):
        write_level0_shard(path, shard, [(runs, 0)])


def write_levels(path: Path, provenance: Provenance) -> None:
    for level in range(1, len(level_sizes(provenance.frame))):
        for shard in list_shards(provenance.frame, level):
            write_reduced_shard(path, shard)


def write_tiles(path: Path, source: Path, box: Box) -> None:
    """Write one shard as 1024 px tiles, as a tile-wise program does."""
    array = zarr.open_array(store=str(path / "0"), mode="r+")
    labels = read_labels(source, box)
    for y in range(0, box.height, TILE):
        for x in range(0, box.width, TILE):
            array[box.y0 + y : box.y0 + y + TILE, box.x0 + x : box.x0 + x + TILE] = labels[y : y + TILE, x : x + TILE]


def compare(folder: Path, provenance: Provenance, runs: Runs, rounds: int) -> None:
    frame = provenance.frame
    mpx = frame.width * frame.height / 1e6
    shard = list_shards(frame, 0)[0]
    shard_mpx = shard.box.width * shard.box.height / 1e6
    times: dict[str, list[float]] = {"shards": [], "levels": [], "one": [], "tiles": []}
    for k in range(rounds + 1):  # the first round compiles and is left out
        ours, plain = folder / f"ours{k}.ome.zarr", folder / f"plain{k}.ome.zarr"
        for path in (ours, plain):
            create_labels(path, provenance)
        times["shards"].append(seconds(lambda path=ours: write_shards(path, provenance, runs)))
        times["levels"].append(seconds(lambda path=ours: write_levels(path, provenance)))
        times["one"].append(seconds(lambda path=ours: write_level0_shard(path, shard, [(runs, 0)])))
        times["tiles"].append(seconds(lambda path=plain, source=ours: write_tiles(path, source, shard.box)))
    each = {name: statistics.median(values[1:]) for name, values in times.items()}
    size = sum(file.stat().st_size for file in ours.rglob("*") if file.is_file())
    print(f"{frame.width} x {frame.height} px, {int(runs.label[-1])} nuclei, shards of {SHARD} px, {size / 1e6:.1f} MB")
    print(f"level 0, paint + write whole shards  {mpx / each['shards']:7.0f} Mpx per CPU-s")
    print(f"levels 1 and up                      {mpx / each['levels']:7.0f} Mpx per CPU-s")
    print(f"all                                  {mpx / (each['shards'] + each['levels']):7.0f} Mpx per CPU-s")
    print(f"one shard in {TILE} px tiles           {shard_mpx / each['tiles']:7.0f} Mpx per CPU-s")
    print(f"one shard whole                      {shard_mpx / each['one']:7.0f} Mpx per CPU-s", end="   ")
    print(f"ratio {each['tiles'] / each['one']:.1f}")


def numpy_mode(labels: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Do what reduce_labels does, with numpy alone; even sides only."""
    four = np.stack([labels[i::2, j::2] for i in (0, 1) for j in (0, 1)]).astype(np.int64)
    counts = np.stack([(four == value).sum(axis=0) for value in four])
    rank = np.where(four > 0, counts * (1 << 40) - four, -1)  # most px first, then the lower label
    best = np.take_along_axis(four, rank.argmax(axis=0)[None], axis=0)[0]
    return np.where((four > 0).sum(axis=0) >= 2, best, 0).astype(np.uint32)


def compare_reductions(runs: Runs) -> None:
    labels = np.zeros((SHARD, SHARD), dtype=np.uint32)
    for row, x0, x1, label in zip(runs.row, runs.x0, runs.x1, runs.label, strict=True):
        if row < SHARD and x0 < SHARD:
            labels[row, x0:x1] = label
    reduce_labels(labels)
    mpx = labels.size / 1e6
    ours = statistics.median(seconds(lambda: reduce_labels(labels)) for _ in range(5))
    plain = statistics.median(seconds(lambda: numpy_mode(labels)) for _ in range(3))
    equal = np.array_equal(reduce_labels(labels), numpy_mode(labels))
    print(f"reduction: numpy {mpx / plain:.0f}, ours {mpx / ours:.0f} Mpx per CPU-s", end="   ")
    print(f"ratio {plain / ours:.1f}, px equal: {equal}")


if __name__ == "__main__":
    main()
