"""What a data set is in memory: annotated images with their mpp, patient and domain, and which outlines to trust."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from wsipipe.errors import UsageError


class DataError(UsageError):
    """A data set on disk is not what its description says."""


def _no_ids() -> NDArray[np.int32]:
    return np.zeros(0, np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One annotated image; compared by identity.

    Attributes:
        image: uint8 (H, W, 3) RGB.
        labels: int32 (H, W), 0 = background.
        name: file stem, unique in its set.
        domain: name of the data set (one laboratory, one annotation style).
        patient: samples of one patient never cross a split.
        mpp: micrometres per px, the same in x and y.
        organ: as published with the set, "" where unknown.
        doubtful: int32 (k,) labels whose outline is not trusted (e.g. several nuclei under one id); their pixels count
            as foreground, but not for instance maps.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.int32]
    name: str
    domain: str
    patient: str
    mpp: float
    organ: str = ""
    doubtful: NDArray[np.int32] = field(default_factory=_no_ids)

    def __post_init__(self) -> None:
        """Refuse images and labels that cannot belong together."""
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8:
            raise DataError(f"{self.domain}/{self.name}: image must be uint8 (H, W, 3), got {self.image.shape}")
        if self.labels.shape != self.image.shape[:2] or self.labels.dtype != np.int32:
            raise DataError(
                f"{self.domain}/{self.name}: labels must be int32 {self.image.shape[:2]}, "
                f"got {self.labels.dtype} {self.labels.shape}"
            )
        if not 0.05 <= self.mpp <= 2.0:
            raise DataError(f"{self.domain}/{self.name}: mpp must be within 0.05..2 um/px, got {self.mpp}")

    @property
    def n_nuclei(self) -> int:
        """Number of labels."""
        return int(np.count_nonzero(np.bincount(self.labels.ravel())[1:]))


@dataclass(frozen=True, slots=True, eq=False)
class DataSet:
    """All images of one domain, sorted by name.

    Attributes:
        name: the domain.
        samples: in name order.
        licence: of images and annotations, as published.
        validation, test: patients that must not be trained on; see `splits`.
    """

    name: str
    samples: tuple[Sample, ...]
    licence: str = "not stated"
    validation: frozenset[str] = frozenset()
    test: frozenset[str] = frozenset()

    def keep(self, wanted: Callable[[Sample], bool]) -> "DataSet":
        """The same set with the wanted samples only."""
        return replace(self, samples=tuple(sample for sample in self.samples if wanted(sample)))

    def __len__(self) -> int:
        return len(self.samples)
