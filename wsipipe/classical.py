"""The segmenter without weights: hematoxylin threshold and distance watershed; the floor that every model must beat.

Hematoxylin's optical density (QuPath's vectors) is blurred and compared with a threshold that follows the surroundings:
    threshold = max(floor * T, (factor - weight * centre) * T + weight * local mean),  T = Otsu's threshold.
T is one number per slide (`fitted`), so that tiles agree at their seams; an unfitted segmenter takes each image's own.
Small holes are filled, and the distance to the background splits what touches (see `wsipipe.instances`).

On MoNuSeg's 30 training images (docs/classical.md): AJI 0.463, PQ 0.404, F1 0.572, Dice 0.743; on the 6 of them that
had no part in the tuning 0.475, 0.419, 0.582, 0.751. It fails on pale vesicular nuclei, whose rims it takes for nuclei.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from wsipipe.grid import Sides
from wsipipe.instances import SplitRules, split_instances
from wsipipe.relief import MAX_SMOOTH_PX, fill_holes
from wsipipe.segmenter import InstanceWindow, SegmenterEntry
from wsipipe.stain import QUPATH_HE, unmix

NAME = "classical"
LICENCE = "Apache-2.0"
THRESHOLD = 128  # of the foreground map
MIN_SPLIT_PX = 1.0  # waists shallower than this are the staircase of the pixel grid
OD_BINS, OD_MAX = 512, 2.0  # of the histogram that Otsu's threshold is found on
TISSUE_OD = 0.05  # fainter px, mean of the channels, are glass and say nothing about stain
MIN_TISSUE_PX = 4096  # in the sample; with less the slide gives no threshold
DEFAULT_OD = 0.25  # threshold where there is no tissue to take one from
OD_RANGE = (0.05, 1.0)  # thresholds outside are no hematoxylin
_OPEN = Sides(left=False, top=False, right=False, bottom=False)


@dataclass(frozen=True, slots=True)
class ClassicalParameters:
    """What the classical segmenter does; lengths in micrometres, so it means the same at every mpp.

    Attributes:
        blur_um: sigma of the blur of the hematoxylin.
        factor, weight, centre, floor: of the threshold, see above.
        local_um: radius of the square of the local mean.
        hole_um2: holes up to this area are filled.
        reach_um: distances to the background count up to here.
        split_um: two summits of the distance this much above their saddle are two nuclei (but see MIN_SPLIT_PX).
        smooth_um: radius of the blur of the distance.
        min_um2: smaller objects are dropped.
    """

    blur_um: float = 0.375
    factor: float = 1.0
    weight: float = 0.6
    centre: float = 0.8
    floor: float = 0.7
    local_um: float = 6.0
    hole_um2: float = 30.0
    reach_um: float = 4.0
    split_um: float = 0.25
    smooth_um: float = 0.25
    min_um2: float = 7.0


@dataclass(frozen=True)
class ClassicalSegmenter:
    """Implements `wsipipe.segmenter.Segmenter` on the CPU.

    Attributes:
        mpp: um per px that it is given; its rules are in um.
        rules: what it does.
        threshold_od: T of the slide that it was fitted to; None = of each image.
    """

    mpp: float = 0.25
    rules: ClassicalParameters = field(default_factory=ClassicalParameters)
    threshold_od: float | None = None
    tile: int = 1024
    halo: int = 64
    name: str = NAME
    map_names: tuple[str, ...] = ("foreground", "distance")
    class_names: tuple[str, ...] = ("Nucleus",)
    licence: str = LICENCE

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The rules, and the slide's threshold once fitted."""
        return {**asdict(self.rules), "mpp": self.mpp, "threshold_od": self.threshold_od}

    @cached_property
    def sha256(self) -> str:
        """Hash of name and rules, the same for every slide."""
        return hashlib.sha256(json.dumps([NAME, self.mpp, asdict(self.rules)]).encode()).hexdigest()

    def fitted(self, sample: NDArray[np.uint8]) -> "ClassicalSegmenter":
        """Return this segmenter with the threshold of a slide.

        Args:
            sample: uint8 (N, 3, S, S) RGB, tissue tiles; with too little tissue self is returned.
        """
        counts = np.zeros(OD_BINS, np.int64)
        for image in sample:
            rgb = _rgb(image)
            counts += _od_counts(self._hematoxylin(rgb), rgb)
        if counts.sum() < MIN_TISSUE_PX:
            return self
        return replace(self, threshold_od=_otsu(counts))

    def maps(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return foreground (THRESHOLD and above) and distance to the background, 255 = `reach_um` and beyond.

        Args:
            images: uint8 (B, 3, S, S) RGB.

        Returns:
            uint8 (B, 2, S, S).
        """
        out = np.empty((len(images), 2, *images.shape[2:]), np.uint8)
        for image, maps in zip(images, out, strict=True):
            maps[0], maps[1] = self._maps_of(_rgb(image))
        return out

    def instances(self, maps: NDArray[np.uint8], *, mpp: float, sides: Sides) -> InstanceWindow:
        """Split the foreground at the waists of its distance; see `wsipipe.instances` for what is certain."""
        rules = SplitRules(
            threshold=THRESHOLD,
            h=max(1, min(255, round(255 * max(self.rules.split_um, MIN_SPLIT_PX * mpp) / self.rules.reach_um))),
            smooth_px=min(MAX_SMOOTH_PX, math.ceil(self.rules.smooth_um / mpp - 1e-6)),
            min_area_px=round(self.rules.min_um2 / mpp**2),
            fill_holes_px=0,
        )
        return split_instances(maps[0], maps[1], rules, sides)

    def _hematoxylin(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        amount = np.ascontiguousarray(unmix(rgb, QUPATH_HE)[..., 0])
        return _blurred(amount, self.rules.blur_um / self.mpp)

    def _maps_of(self, rgb: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return the two maps of one (H, W, 3) image."""
        rules, od = self.rules, self._hematoxylin(rgb)
        slide_od = self.threshold_od or _own_threshold(od, rgb)
        side = 2 * max(1, round(rules.local_um / self.mpp)) + 1
        local = np.asarray(cv2.blur(od, (side, side), borderType=cv2.BORDER_REFLECT_101), np.float32)
        base = (rules.factor - rules.weight * rules.centre) * slide_od
        threshold = np.maximum(local * np.float32(rules.weight) + np.float32(base), np.float32(rules.floor * slide_od))
        # one third above the threshold is certain, one third below certainly not
        foreground = np.clip(THRESHOLD + 3 * THRESHOLD * (od - threshold) / threshold, 0, 255).astype(np.uint8)
        filled = fill_holes((foreground >= THRESHOLD).view(np.uint8), round(rules.hole_um2 / self.mpp**2), _OPEN)
        mask = filled == 1  # 2 = a hole that may go on beyond the image
        np.maximum(foreground, THRESHOLD, out=foreground, where=mask)
        distance = cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
        return foreground, _scaled(distance, rules.reach_um / self.mpp)


def _rgb(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(3, S, S) -> (S, S, 3), contiguous."""
    return np.ascontiguousarray(image.transpose(1, 2, 0))


def _blurred(image: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    size = 2 * max(1, math.ceil(3 * sigma)) + 1
    return np.asarray(cv2.GaussianBlur(image, (size, size), sigma, borderType=cv2.BORDER_REFLECT_101))


def _scaled(distance: NDArray[np.float32], reach_px: float) -> NDArray[np.uint8]:
    return np.asarray(np.minimum(distance, reach_px) * (255 / reach_px)).astype(np.uint8)


def _od_counts(od: NDArray[np.float32], rgb: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count the tissue px of an image by hematoxylin, OD_BINS bins over 0..OD_MAX."""
    tissue = rgb.mean(axis=2) < 255 * 10**-TISSUE_OD
    bins = np.clip(od[tissue] * (OD_BINS / OD_MAX), 0, OD_BINS - 1).astype(np.int64)
    return np.bincount(bins, minlength=OD_BINS)


def _own_threshold(od: NDArray[np.float32], rgb: NDArray[np.uint8]) -> float:
    counts = _od_counts(od, rgb)
    return _otsu(counts) if counts.sum() >= MIN_TISSUE_PX else DEFAULT_OD


def _otsu(counts: NDArray[np.int64]) -> float:
    """Return the threshold with the largest variance between its two sides (Otsu 1979), kept in OD_RANGE."""
    values = (np.arange(OD_BINS) + 0.5) * (OD_MAX / OD_BINS)
    below, sums = np.cumsum(counts)[:-1], np.cumsum(counts * values)
    above = counts.sum() - below
    gap = sums[-1] * below / counts.sum() - sums[:-1]
    between = gap**2 / np.maximum(below * above, 1)
    return float(np.clip(values[np.argmax(between)], *OD_RANGE))


def _weights() -> str:
    return "none needed"


def _load(device: str, weights: Path | None) -> ClassicalSegmenter:
    """Return the segmenter; it runs on the CPU whatever the device and has no weights."""
    return ClassicalSegmenter()


ENTRY = SegmenterEntry(
    name=NAME,
    about="hematoxylin threshold and distance watershed, no weights: the floor for every model",
    mpp=0.25,
    licence=LICENCE,
    weights=_weights,
    load=_load,
)
