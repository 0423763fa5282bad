"""Writing nuclei as GeoJSON: geojson.dumps against GeoJsonWriter, the same nuclei, both in this process, in turn.

    python benchmarks/geojson_writer.py [--nuclei 20000] [--rounds 5] [--big 1000000]

Prints CPU microseconds per nucleus (medians over the rounds) without and with gzip on both sides, and their ratio; then
size and speed of the compression levels; then time and peak memory of a big file (--big 0 leaves it out).
"""

import argparse
import gzip
import io
import json
import resource
import statistics
import tempfile
import time
from pathlib import Path

import geojson
import numpy as np
import pyarrow as pa
from isal import igzip

from wsipipe.geojson import FULL_MEASUREMENTS, GeoJsonWriter
from wsipipe.nuclei import Outlines
from wsipipe.table import nucleus_uuids

GOAL = 20.0
VERTICES = 24


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nuclei", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--big", type=int, default=1_000_000)
    args = parser.parse_args()
    outlines, table = draw(args.nuclei)
    with tempfile.TemporaryDirectory() as folder:
        compare(outlines, table, Path(folder), args.rounds)
        compare_levels(outlines, table, Path(folder))
        if args.big:
            write_big(Path(folder), args.big)


def draw(n: int) -> tuple[Outlines, pa.Table]:
    """Return n round polygons of 24 vertices on the 0.01 px grid, and all their measurements."""
    rng = np.random.default_rng(0)
    angles = np.linspace(0, -2 * np.pi, VERTICES, endpoint=False)
    radii = rng.uniform(10, 20, (n, 1)) * rng.uniform(0.9, 1.1, (n, VERTICES))
    centres = rng.uniform(100, 100_000, (n, 2))
    x, y = centres[:, :1] + radii * np.cos(angles), centres[:, 1:] + radii * np.sin(angles)
    rings = np.round(np.stack([x, y], axis=2), 2)
    rings = np.concatenate([rings, rings[:, :1]], axis=1)  # (n, 24, 2) -> (n, 25, 2), closed
    starts = np.arange(0, (VERTICES + 1) * n + 1, VERTICES + 1)
    columns: dict[str, object] = {m.column: rng.random(n).astype(np.float32) * 100 for m in FULL_MEASUREMENTS}
    columns |= {"uuid": nucleus_uuids("benchmark", 1, n), "class_name": ["Nucleus"] * n}
    return Outlines(rings.reshape(-1, 2), starts, np.arange(n + 1)), pa.table(columns)


def plain_text(outlines: Outlines, table: pa.Table) -> str:
    """Write the same features with objects of the geojson package."""
    columns = {m.name: table[m.column].to_pylist() for m in FULL_MEASUREMENTS}
    uuids = table["uuid"].to_pylist()
    features = []
    for i in range(len(outlines)):
        rings = range(outlines.polygon_starts[i], outlines.polygon_starts[i + 1])
        shape = [outlines.coords[outlines.ring_starts[k] : outlines.ring_starts[k + 1]].tolist() for k in rings]
        properties = {
            "objectType": "detection",
            "classification": {"name": "Nucleus", "color": [200, 0, 0]},
            "measurements": {name: values[i] for name, values in columns.items()},
        }
        features.append(geojson.Feature(id=uuids[i], geometry=geojson.Polygon(shape), properties=properties))
    return geojson.dumps(geojson.FeatureCollection(features))


def our_file(path: Path, outlines: Outlines, table: pa.Table) -> None:
    with GeoJsonWriter(path, l0_mpp=(0.25, 0.25), detail="full") as writer:
        writer.write(outlines, table)


def our_text(outlines: Outlines, table: pa.Table) -> bytes:
    """Assemble the same bytes without compressing them."""
    writer = GeoJsonWriter(Path("none.geojson.gz"), l0_mpp=(0.25, 0.25), detail="full")
    kept = io.BytesIO()
    writer._gzip = kept
    writer.write(outlines, table)
    kept.write(writer._pending)
    return kept.getvalue()


def compare(outlines: Outlines, table: pa.Table, folder: Path, rounds: int) -> None:
    our_file(folder / "warm.geojson.gz", outlines, table)
    times: dict[str, list[float]] = {"plain": [], "plain gz": [], "ours": [], "ours gz": []}
    for _ in range(rounds):
        start = time.process_time()
        text = plain_text(outlines, table)
        middle = time.process_time()
        with gzip.open(folder / "plain.geojson.gz", "wb", compresslevel=1) as file:
            file.write(text.encode())
        end = time.process_time()
        times["plain"].append(middle - start)
        times["plain gz"].append(end - start)
        start = time.process_time()
        our_text(outlines, table)
        middle = time.process_time()
        our_file(folder / "ours.geojson.gz", outlines, table)
        times["ours"].append(middle - start)
        times["ours gz"].append(time.process_time() - middle)
    each = {name: 1e6 * statistics.median(values) / len(outlines) for name, values in times.items()}
    with gzip.open(folder / "ours.geojson.gz") as file:
        equal = len(json.load(file)["features"]) == len(outlines)
    print(f"{len(outlines)} nuclei, {VERTICES} vertices, {len(FULL_MEASUREMENTS)} measurements, CPU us per nucleus")
    print(f"without gzip: geojson.dumps {each['plain']:8.1f}   ours {each['ours']:6.2f}", end="   ")
    print(f"ratio {each['plain'] / each['ours']:.0f} (goal >= {GOAL:g})")
    print(f"with gzip:    + zlib 1      {each['plain gz']:8.1f}   ours {each['ours gz']:6.2f}", end="   ")
    print(f"ratio {each['plain gz'] / each['ours gz']:.0f}, all features there: {equal}")


def compare_levels(outlines: Outlines, table: pa.Table, folder: Path) -> None:
    text = our_text(outlines, table)
    print(f"compression of {len(text) / 1e6:.1f} MB:")
    for level in range(4):
        start = time.process_time()
        size = len(igzip.compress(text, compresslevel=level))
        seconds = time.process_time() - start
        print(
            f"  isal level {level}: {size / len(text):6.3f} of the size, {len(text) / 1e6 / seconds:6.0f} MB per CPU-s"
        )


def write_big(folder: Path, n: int) -> None:
    outlines, table = draw(10_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    with GeoJsonWriter(folder / "big.geojson.gz", l0_mpp=(0.25, 0.25), detail="full") as writer:
        for _ in range(n // 10_000):
            writer.write(outlines, table)
    seconds = time.process_time() - start
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    size = (folder / "big.geojson.gz").stat().st_size / 1e6
    print(f"{n} nuclei: {seconds:.1f} CPU-s, {size:.0f} MB on disk, peak memory grew by {grown:.0f} MB")


if __name__ == "__main__":
    main()
