"""Splits by patient: written down in the data set's description, never drawn at run time without a seed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

from amasam.data.samples import DataError, DataSet


@dataclass(frozen=True, slots=True)
class Split:
    """One set in three parts whose patients do not overlap."""

    train: DataSet
    validation: DataSet
    test: DataSet


def split_by_patient(data: DataSet) -> Split:
    """Part a set by the patients that its description holds out.

    Raises:
        DataError: a held-out patient is not in the set, or stands in two parts.
    """
    patients = {sample.patient for sample in data.samples}
    if lost := sorted((data.validation | data.test) - patients):
        raise DataError(f"data set {data.name}: held-out patient {lost[0]!r} is not in the set")
    if both := sorted(data.validation & data.test):
        raise DataError(f"data set {data.name}: patient {both[0]!r} is in validation and in test")
    held_out = data.validation | data.test
    return Split(
        data.keep(lambda sample: sample.patient not in held_out),
        data.keep(lambda sample: sample.patient in data.validation),
        data.keep(lambda sample: sample.patient in data.test),
    )


def split_at_random(data: DataSet, *, seed: int) -> Split:
    """80 / 10 / 10 % of the images at random, as UN-SAM does [U]: 44 images give 35 / 4 / 5.

    Patients cross this split. It exists to compare with the paper's numbers and never trains a model that ships.
    """
    order = np.random.default_rng(seed).permutation(len(data))
    ends = len(data) * 8 // 10, len(data) * 8 // 10 + len(data) // 10
    parts = (order[: ends[0]], order[ends[0] : ends[1]], order[ends[1] :])
    train, validation, test = (
        replace(data, samples=tuple(data.samples[at] for at in sorted(part.tolist()))) for part in parts
    )
    return Split(train, validation, test)


def splitter(kind: Literal["patient", "random"], seed: int) -> Callable[[DataSet], Split]:
    """Return the function that parts every set of a run."""
    return split_by_patient if kind == "patient" else partial(split_at_random, seed=seed)


def training_sets(
    sets: Sequence[DataSet],
    *,
    primary: str,
    aux_all: bool = False,
    split: Callable[[DataSet], Split] = split_by_patient,
) -> list[DataSet]:
    """Choose what is trained on.

    Args:
        sets: all data sets of the run.
        primary: name of the primary domain.
        aux_all: auxiliary sets give all their images, held-out ones too; the primary set never does.
        split: parts a set.

    Returns:
        The training parts, primary first, then in the given order.
    """
    names = [data.name for data in sets]
    if primary not in names or len(set(names)) != len(names):
        raise DataError(f"data sets must have different names and hold the primary set {primary!r}, got {names}")
    return [
        data if aux_all and data.name != primary else split(data).train
        for data in sorted(sets, key=lambda data: data.name != primary)
    ]
