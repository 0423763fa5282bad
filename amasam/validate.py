"""Validation during training: whole images, averaged weights, the instances that a user would get."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from amasam.data.samples import Sample
from amasam.predict import predict_image
from wsipipe.score import match
from wsipipe.segmenter import Segmenter

METRICS = ("dsc", "aji", "pq")


@dataclass(frozen=True, slots=True)
class Validation:
    """Scores of one validation.

    Attributes:
        means: mean over the images of the first domain, by metric.
        by_domain: the same per domain, "metric_domain".
        labels: instances found, one map per image.
    """

    means: dict[str, float]
    by_domain: dict[str, float]
    labels: tuple[NDArray[np.int32], ...]

    def score(self, select: str) -> float:
        """Return the number that picks the best weights; "aji+pq" is their mean."""
        parts = select.split("+")
        return sum(self.means[part] for part in parts) / len(parts)


def validate(
    segmenter: Segmenter, samples: Sequence[Sample], *, on_image: Callable[[Sample], None] = lambda sample: None
) -> Validation:
    """Segment whole images and score them against their labels at the images' own size.

    Args:
        segmenter: the model in the form that is shipped.
        samples: at least one; the domain of the first is the one that counts.
        on_image: called after each image.
    """
    found = []
    scores: dict[str, list[tuple[float, float, float]]] = {}
    for sample in samples:
        labels = predict_image(segmenter, sample.image, mpp=sample.mpp)
        result = match(sample.labels, labels)
        scores.setdefault(sample.domain, []).append((result.dsc, result.aji, result.pq))
        found.append(labels)
        on_image(sample)
    means = {domain: np.nanmean(np.asarray(rows, np.float64), axis=0) for domain, rows in scores.items()}
    first = means[samples[0].domain]
    return Validation(
        means={name: float(value) for name, value in zip(METRICS, first, strict=True)},
        by_domain={
            f"{name}_{domain}": float(value)
            for domain, row in means.items()
            for name, value in zip(METRICS, row, strict=True)
        },
        labels=tuple(found),
    )


def spread_choice(samples: Sequence[Sample], n: int) -> tuple[Sample, ...]:
    """Choose n of the samples evenly over the list; 0, or more than there are, chooses all."""
    if n == 0 or n >= len(samples):
        return tuple(samples)
    return tuple(samples[i * len(samples) // n] for i in range(n))
