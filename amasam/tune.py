"""Choose the post-processing of a model on validation images: a coarse grid, then each parameter by itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from amasam.data.samples import Sample
from amasam.postprocess import Height, PostConfig, find_instances
from amasam.predict import nearest, predict_maps, to_work
from amasam.segmenter import AmaSamSegmenter
from wsipipe.score import match

HEIGHTS: tuple[Height, ...] = ("foreground", "distance", "distance_boundary")
THRESHOLDS = (0.4, 0.45, 0.5, 0.55, 0.6)
DEPTHS = (0.05, 0.1, 0.15, 0.2, 0.3)
SMOOTHINGS_UM = (0.0, 0.25, 0.5, 0.75)
AREAS_UM2 = (2.0, 4.0, 6.0, 8.0, 12.0, 16.0)


@dataclass(frozen=True, slots=True)
class Tried:
    """One setting and its mean scores over the images."""

    post: PostConfig
    aji: float
    pq: float

    @property
    def score(self) -> float:
        """Return the mean of AJI and PQ, which is maximised."""
        return (self.aji + self.pq) / 2


def tune_postprocess(
    segmenter: AmaSamSegmenter, samples: Sequence[Sample], *, on_try: Callable[[Tried], None] = lambda tried: None
) -> tuple[Tried, ...]:
    """Find the post-processing of the highest (AJI + PQ) / 2 on validation images; the network runs once per image.

    The height map, threshold and depth are searched together, smoothing and least area afterwards, one by one.

    Args:
        segmenter: the model, at the precision that it is shipped with.
        samples: validation images at the model's mpp, never test images.
        on_try: called with every setting.

    Returns:
        all settings in the order tried.
    """
    maps = [predict_maps(segmenter, to_work(segmenter, sample.image, sample.mpp)) for sample in samples]
    truths = [_at_size(sample.labels, found.shape[1:]) for sample, found in zip(samples, maps, strict=True)]
    tried: list[Tried] = []

    def attempt(settings: Sequence[PostConfig]) -> PostConfig:
        for post in settings:
            tried.append(_try(segmenter, maps, truths, post))
            on_try(tried[-1])
        return max(tried, key=lambda t: t.score).post

    start = segmenter.post
    heights = [height for height in HEIGHTS if set(height.split("_")) <= set(segmenter.map_names)]
    best = attempt(
        [
            replace(start, height=height, threshold=threshold, h=depth)
            for height in heights
            for threshold in THRESHOLDS
            for depth in DEPTHS
        ]
    )
    best = attempt([replace(best, smooth_um=value) for value in SMOOTHINGS_UM])
    best = attempt([replace(best, min_area_um2=value) for value in AREAS_UM2])
    attempt([replace(best, threshold=best.threshold + change) for change in (-0.025, 0.025)])
    return tuple(tried)


def _try(
    segmenter: AmaSamSegmenter,
    maps: Sequence[NDArray[np.uint8]],
    truths: Sequence[NDArray[np.int32]],
    post: PostConfig,
) -> Tried:
    scores = [
        match(truth, find_instances(found, segmenter.map_names, post, mpp=segmenter.mpp).labels)
        for found, truth in zip(maps, truths, strict=True)
    ]
    return Tried(post, float(np.nanmean([s.aji for s in scores])), float(np.nanmean([s.pq for s in scores])))


def _at_size(labels: NDArray[np.int32], shape: tuple[int, ...]) -> NDArray[np.int32]:
    return labels if labels.shape == shape else nearest(labels, shape[0], shape[1])
