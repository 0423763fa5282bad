"""Statistics of many nuclei: time and memory of the cohort's table, and agreement with pandas.

    python benchmarks/cohort.py [--rows 100000000] [--per-slide 1000000] [--check 1000000]

Invents one table of nuclei and lists it as many slides (links, so that the disk stays small; each slide is read and
summarised on its own, nothing is reused). Prints rows per second, the peak memory of this process and how it grew from
the first slide to the last, then compares every statistic of `--check` rows with a plain pandas computation.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from support_cohort import Invented, invent_slide, invent_table

from wsipipe.runrecord import read_record
from wsipipe.summary import MEASUREMENTS, QUANTILES, Row, nuclei_statistics, summarise_slide
from wsipipe.table import ROW_GROUP, SCHEMA


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--per-slide", type=int, default=1_000_000)
    parser.add_argument("--check", type=int, default=1_000_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        slides = invent_slides(Path(folder), args.per_slide, max(1, args.rows // args.per_slide))
        summarise(slides, args.per_slide)
        compare(Path(folder), args.check)


def write_rows(path: Path, rows: int) -> None:
    """Write a table of invented nuclei in row groups, as the pipeline does, without holding all of it."""
    path.unlink(missing_ok=True)
    with pq.ParquetWriter(
        path, SCHEMA, compression="zstd", compression_level=3, use_dictionary=["class_name"]
    ) as writer:
        for start in range(0, rows, ROW_GROUP):
            writer.write_table(invent_table(Invented(n=min(ROW_GROUP, rows - start), seed=start)))


def invent_slides(out: Path, rows: int, n_slides: int) -> list[Path]:
    first = invent_slide(out, "slide-00000", Invented(n=1))
    write_rows(first / "nuclei.parquet", rows)
    record = replace(read_record(first / "run.json"), nuclei=rows)
    record.write(first / "run.json")
    folders = [first]
    for k in range(1, n_slides):
        folder = out / f"slide-{k:05d}"
        folder.mkdir()
        os.link(first / "nuclei.parquet", folder / "nuclei.parquet")
        record.write(folder / "run.json")
        folders.append(folder)
    return folders


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def summarise(folders: list[Path], rows: int) -> None:
    before = peak_mb()
    started, cpu = time.perf_counter(), time.process_time()
    after_first = before
    for k, folder in enumerate(folders):
        summarise_slide(folder, read_record(folder / "run.json"))
        after_first = peak_mb() if k == 0 else after_first
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    total = rows * len(folders)
    print(f"{total:,} nuclei on {len(folders)} slides: {seconds:.1f} s, {cpu:.1f} CPU-s, {total / seconds:,.0f} rows/s")
    print(
        f"peak memory: {before:.0f} MB before, {after_first:.0f} after the first slide, {peak_mb():.0f} after the last"
    )


def compare(out: Path, rows: int) -> None:
    folder = out / "slide-00000"
    write_rows(folder / "nuclei.parquet", rows)
    record = replace(read_record(folder / "run.json"), nuclei=rows)
    started = time.perf_counter()
    ours = nuclei_statistics(folder, record)
    mine, started = time.perf_counter() - started, time.perf_counter()
    expected = with_pandas(folder)
    theirs = time.perf_counter() - started
    worst = max(abs(ours[name] - value) / max(abs(value), 1e-12) for name, value in expected.items())
    print(f"{rows:,} rows: {mine:.1f} s here, {theirs:.1f} s with pandas (less statistics)")
    print(f"largest relative difference of {len(expected)} statistics: {worst:.1e}")


def with_pandas(folder: Path) -> Row:
    frame = pd.read_parquet(folder / "nuclei.parquet", columns=list(MEASUREMENTS)).astype(np.float64)
    tables = {"mean": frame.mean(), "sd": frame.std(), "count": frame.count()}
    tables |= {f"q{round(100 * q):02d}": frame.quantile(q) for q in QUANTILES}
    return {f"{column}_{name}": value for name, series in tables.items() for column, value in series.items()}


if __name__ == "__main__":
    main()
