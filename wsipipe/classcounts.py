"""How many nuclei of each class a slide has, for models that tell types of nuclei apart."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from wsipipe.runrecord import RunRecord


@dataclass(frozen=True, slots=True)
class ClassCount:
    """Nuclei of one class on one slide; share: of the slide's nuclei; nuclei_per_mm2: None without tissue."""

    slide: str
    class_name: str
    nuclei: int
    share: float
    nuclei_per_mm2: float | None


def count_classes(folder: Path, record: RunRecord) -> list[ClassCount]:
    """Count a slide's nuclei by class, the most frequent first; empty if the model puts none into a class."""
    with pq.ParquetFile(folder / "nuclei.parquet") as file:
        nuclei = file.read(columns=["class_name", "class_prob"])
    if nuclei["class_prob"].null_count == len(nuclei):
        return []
    counted = nuclei["class_name"].cast(pa.string()).value_counts().to_pylist()
    counted.sort(key=lambda pair: (-pair["counts"], pair["values"]))
    return [_count(folder.name, pair["values"], pair["counts"], len(nuclei), record.tissue_mm2) for pair in counted]


def _count(slide: str, name: str, n: int, of: int, tissue_mm2: float) -> ClassCount:
    return ClassCount(slide, name, n, round(n / of, 6), round(n / tissue_mm2, 3) if tissue_mm2 > 0 else None)
