"""Read data sets from disk into memory."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from amasam.data import cpm17, cryonuseg, monuseg, tnbc
from amasam.data.files import read_folder
from amasam.data.noise import merged_labels
from amasam.data.samples import DataError, DataSet, Sample
from amasam.data.spec import SetSpec, read_spec

_READERS: dict[str, Callable[[SetSpec, Path], list[Sample]]] = {
    "folder": read_folder,
    "monuseg": monuseg.read,
    "tnbc": tnbc.read,
    "cryonuseg": cryonuseg.read,
    "cpm17": cpm17.read,
}


def load_set(spec: SetSpec | Path, root: Path) -> DataSet:
    """Read one data set.

    Args:
        spec: a description, or the TOML file that holds it.
        root: data root that `spec.folder` is relative to.

    Returns:
        All its samples in name order, with their doubtful labels marked.

    Raises:
        DataError: the folder is missing, incomplete, or holds another number of images than described.
    """
    spec = read_spec(spec) if isinstance(spec, Path) else spec
    folder = root / spec.folder
    if not folder.is_dir():
        raise DataError(f"data set {spec.name}: no folder {folder}")
    samples = sorted(_READERS[spec.format](spec, folder), key=lambda sample: sample.name)
    if not samples:
        raise DataError(f"data set {spec.name}: no images in {folder}")
    if spec.images and len(samples) != spec.images:
        raise DataError(f"data set {spec.name}: expected {spec.images} images in {folder}, found {len(samples)}")
    if spec.merged_labels:
        samples = [replace(sample, doubtful=ids) for sample, ids in zip(samples, merged_labels(samples), strict=True)]
    return DataSet(spec.name, tuple(samples), spec.licence, frozenset(spec.validation), frozenset(spec.test))
