"""Score models on annotated images: per image, per set and organ, beside each other and beside the paper."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from amasam.data.load import load_set
from amasam.data.samples import DataSet, Sample
from amasam.data.splits import split_by_patient
from amasam.metrics import ImageMetrics, component_truth, score_image
from amasam.predict import nearest, predict_image
from amasam.summary import INSTANCE_METRICS, Summary, paired_test, summarise, values_of
from amasam.traindata import find_description
from wsipipe.errors import UsageError
from wsipipe.segmenter import Segmenter

Part = Literal["validation", "test", "train", "all"]


@dataclass(frozen=True, slots=True)
class ScoredImage:
    """One image under one model.

    Attributes:
        sample: the image, as it was given to the model.
        labels: int32 (H, W) what was found.
        metrics: against the true instances.
        components: components of the found foreground against components of the true one: what the paper may have used.
    """

    sample: Sample
    labels: NDArray[np.int32]
    metrics: ImageMetrics
    components: ImageMetrics


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All images under one model, in the order that every model gets them."""

    model: str
    images: tuple[ScoredImage, ...]

    def groups(self) -> dict[str, list[ScoredImage]]:
        """Return all images by set, and by organ where a set has several: "set" and "set: organ"."""
        found: dict[str, list[ScoredImage]] = {}
        for image in self.images:
            found.setdefault(image.sample.domain, []).append(image)
        for name, images in list(found.items()):
            organs = sorted({image.sample.organ for image in images})
            if len(organs) > 1:
                for organ in organs:
                    found[f"{name}: {organ or 'unknown'}"] = [i for i in images if i.sample.organ == organ]
        return found


def load_part(names: Sequence[str], part: Part, descriptions: Path, root: Path) -> list[Sample]:
    """Read the images of one part of some sets.

    Args:
        names: of sets.
        part: which patients; sets that hold nobody out have all their images in "train".
        descriptions: folder of the sets' TOML files.
        root: folder that the sets' image folders are relative to.

    Raises:
        UsageError: no image is left.
    """
    samples = [s for name in names for s in _part(load_set(find_description(descriptions, name), root), part)]
    if not samples:
        raise UsageError(f"sets {', '.join(names)} have no images in their part {part!r}")
    return samples


def _part(data: DataSet, part: Part) -> tuple[Sample, ...]:
    if part == "all":
        return data.samples
    chosen: DataSet = getattr(split_by_patient(data), part)
    return chosen.samples


def coarsen(sample: Sample, factor: float) -> Sample:
    """Return the sample as a scanner of `factor` times the mpp would give it: image by area average, labels nearest."""
    if factor == 1:
        return sample
    height, width = (max(1, round(side / factor)) for side in sample.labels.shape)
    image = np.asarray(cv2.resize(sample.image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    return Sample(
        image,
        nearest(sample.labels, height, width),
        sample.name,
        sample.domain,
        sample.patient,
        sample.mpp * factor,
        sample.organ,
    )


def evaluate_model(
    segmenter: Segmenter, samples: Sequence[Sample], *, name: str, on_image: Callable[[Sample], None]
) -> Evaluation:
    """Segment and score every sample at its own size.

    Args:
        segmenter: a loaded model.
        samples: in any order.
        name: under which the model stands in tables.
        on_image: called after each image.
    """
    images = []
    for sample in samples:
        labels = predict_image(segmenter, sample.image, mpp=sample.mpp)
        components = score_image(component_truth(sample.labels), component_truth(labels))
        images.append(ScoredImage(sample, labels, score_image(sample.labels, labels), components))
        on_image(sample)
    return Evaluation(name, tuple(images))


def summarise_group(images: Sequence[ScoredImage]) -> dict[str, Summary]:
    """Summarise all metrics of some images; instance metrics of components get the suffix "_cc"."""
    found = summarise([image.metrics for image in images])
    components = summarise([image.components for image in images])
    return found | {f"{name}_cc": components[name] for name in INSTANCE_METRICS}


def compare(one: Evaluation, other: Evaluation, metrics: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Compare two models on the same images.

    Returns:
        by metric: mean of (one - other), and p of the paired Wilcoxon test over images.
    """
    found = {}
    for name in metrics:
        first, second = (values_of([image.metrics for image in e.images], name) for e in (one, other))
        found[name] = (float(np.nanmean(first - second)), paired_test(first, second))
    return found
