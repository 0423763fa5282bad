"""The description of a data set: a small TOML file, checked at the edge."""

import re
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from amasam.data.samples import DataError

ESTIMATE_RANGE = (0.12, 0.6)  # um/px that an estimate from nuclei may reach
FORMATS = ("folder", "monuseg", "tnbc", "cryonuseg", "cpm17")


@dataclass(frozen=True, slots=True)
class SetSpec:
    """Where a set lies and how to read it.

    Attributes:
        name: of the domain.
        folder: relative to the data root.
        mpp: micrometres per px; 0 with `nucleus_um`.
        nucleus_um: for sets of unknown, varied mpp: assumed median nucleus diameter, um, from which every image's mpp
            is estimated by its labels (within ESTIMATE_RANGE); 0 = not used.
        format: one of FORMATS; "folder" is images/*.{png,tif,tiff} + labels/*.{png,tif,tiff,npy}.
        mpp_of: (regular expression on the stem, mpp) pairs, the first that matches wins over `mpp`.
        patient: regular expression on the stem; its first group, or the whole match, names the patient; "" puts the
            whole set under one patient, so that it cannot be split.
        organ_of: (regular expression on the stem, organ) pairs; the organ may quote groups of the match.
        images: expected number of images, 0 = not checked.
        merged_labels: the labels are connected components, so touching nuclei share one id.
        validation, test: patients held out of training.
        part: which part of an official layout, "train" | "test" | "all".
        annotator: of CryoNuSeg, the folder of one annotation round.
        licence: as published.
    """

    name: str
    folder: str
    mpp: float
    format: str = "folder"
    mpp_of: tuple[tuple[str, float], ...] = ()
    patient: str = ".*"
    organ_of: tuple[tuple[str, str], ...] = ()
    images: int = 0
    merged_labels: bool = False
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    part: str = "train"
    annotator: str = "Annotator 1 (biologist)"
    licence: str = "not stated"
    nucleus_um: float = 0.0

    def __post_init__(self) -> None:
        """Refuse values that no loader understands."""
        if self.format not in FORMATS:
            raise DataError(f"data set {self.name}: format must be one of {FORMATS}, got {self.format!r}")
        if self.part not in ("train", "test", "all"):
            raise DataError(f"data set {self.name}: part must be train, test or all, got {self.part!r}")
        for pattern in (self.patient, *(p for p, _ in self.mpp_of), *(p for p, _ in self.organ_of)):
            try:
                re.compile(pattern)
            except re.error as error:
                raise DataError(f"data set {self.name}: not a regular expression: {pattern!r} ({error})") from error

    def patient_of(self, stem: str) -> str:
        """Name the patient of an image."""
        found = re.search(self.patient, stem)
        if found is None:
            raise DataError(f"data set {self.name}: patient pattern {self.patient!r} does not match image {stem!r}")
        return (found.group(1) if found.groups() else found.group(0)) or self.name

    def mpp_at(self, stem: str) -> float:
        """Micrometres per px of an image."""
        return next((mpp for pattern, mpp in self.mpp_of if re.search(pattern, stem)), self.mpp)

    def organ_at(self, stem: str) -> str:
        """Organ of an image, "" where the description names none."""
        matches = ((re.search(pattern, stem), organ) for pattern, organ in self.organ_of)
        return next((found.expand(organ) for found, organ in matches if found), "")


def read_spec(path: Path) -> SetSpec:
    """Read a data set's TOML; an unknown or missing key is an error that names it."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"cannot read the data set description {path}: {error}") from error
    known = {item.name for item in fields(SetSpec)}
    if unknown := sorted(set(table) - known):
        raise DataError(f"unknown key {unknown[0]!r} in {path}; known: {', '.join(sorted(known))}")
    if missing := [key for key in ("name", "folder", "mpp") if key not in table]:
        raise DataError(f"missing key {missing[0]!r} in {path}")
    return SetSpec(**{key: _frozen(value) for key, value in table.items()})


def _frozen(value: Any) -> Any:
    """TOML arrays as tuples, TOML tables as tuples of pairs in file order."""
    if isinstance(value, dict):
        return tuple(value.items())
    return tuple(value) if isinstance(value, list) else value
