"""Fits one colour transform to a slide with TIAToolbox's stain normalisers.

Their `transform` estimates stains anew for each image that it gets: two tiles of a slide would get two transforms, with
a step at their seam. So the slide is fitted once, on a sample of its tissue, as the target is on its image, and what
their `transform` would then do with that sample is put in closed form (`wsipipe.stainnorm.ColourTransform`).
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from wsipipe.errors import SlideError, UsageError
from wsipipe.integrations.tiatoolboximport import check_installed, import_from_tiatoolbox
from wsipipe.stainnorm import ColourTransform, StainNorm

GLASS = 220  # px with every channel above are no tissue and left out of the sample
FIT_PX = 250_000  # of the sample, evenly spread: more changes nothing but the time
MIN_FIT_PX = 4096  # with less tissue there is nothing to fit to
MAX_CONDITION = 1000.0  # of two stain vectors; H&E's have about 4, one and the same stain twice has infinity
_OPTION = "--stain-norm"


def make_fitter(norm: StainNorm) -> Callable[[NDArray[np.uint8]], ColourTransform | None]:
    """Return `fit_colours` for a method and a target.

    Raises:
        MissingExtraError: TIAToolbox is not installed.
    """
    check_installed(f"{_OPTION} {norm.method}")
    return partial(fit_colours, norm)


def fit_colours(norm: StainNorm, sample: NDArray[np.uint8]) -> ColourTransform | None:
    """Fit the transform that brings a slide to the target's colours.

    Args:
        norm: method and target.
        sample: uint8 (N, 3, S, S) RGB, tissue tiles of the slide; N may be 0.

    Returns:
        The transform; None where there is too little tissue to fit to, and little to segment.

    Raises:
        MissingExtraError: TIAToolbox is not installed.
        SlideError: the stains of the slide cannot be told apart.
        UsageError: the same of the target, or it is no image.
    """
    source = _tissue_px(sample)
    if len(source) < MIN_FIT_PX:
        return None
    module = import_from_tiatoolbox("tiatoolbox.tools.stainnorm", what=f"{_OPTION} {norm.method}")
    target = _fit(module, norm.method, _read_target(norm))
    if target is None:
        raise UsageError(f"{_OPTION}: no stains can be told apart in the target image {norm.target}; pass another one")
    fitted = _fit(module, norm.method, source)
    if fitted is None:
        raise SlideError(f"stains of this slide cannot be told apart by {norm.method}; leave {_OPTION} out for it")
    if norm.method == "reinhard":
        return ColourTransform(norm.method, "lab", _lab_values(fitted, target))
    return ColourTransform(norm.method, "density", _density_values(fitted, target))


def _tissue_px(sample: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return (n, 1, 3) uint8 RGB of the sample's tissue, n <= FIT_PX: an image to TIAToolbox."""
    px = sample.transpose(0, 2, 3, 1).reshape(-1, 3)  # (N, 3, S, S) -> (N * S * S, 3)
    px = px[px.min(axis=1) <= GLASS]
    return np.ascontiguousarray(px[:: max(1, -(-len(px) // FIT_PX))])[:, None]


def _read_target(norm: StainNorm) -> NDArray[np.uint8]:
    if norm.target is None:
        data = import_from_tiatoolbox("tiatoolbox.data", what=f"{_OPTION} {norm.method}")
        return np.asarray(data.stain_norm_target(), np.uint8)[..., :3]
    image = cv2.imread(str(norm.target), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise UsageError(f"{_OPTION} target must be an image (PNG, JPEG, TIFF): {norm.target}")
    return np.asarray(image, np.uint8)


def _fit(module: Any, method: str, image: NDArray[np.uint8]) -> Any:
    """Return a normaliser of TIAToolbox fitted to an image; None if it finds no stains there."""
    normaliser = module.get_normalizer(method)
    try:
        with _same_random_numbers(), np.errstate(all="ignore"):
            normaliser.fit(image.copy())  # it writes into its argument
    except (ValueError, np.linalg.LinAlgError):
        return None
    return normaliser if _is_usable(normaliser, method) else None


def _is_usable(normaliser: Any, method: str) -> bool:
    """Whether there is a spread of colours, or two stains that are not one."""
    amounts = np.asarray(normaliser.target_stds if method == "reinhard" else normaliser.maxC_target)
    if not (np.isfinite(amounts).all() and (amounts > 0).all()):
        return False
    return method == "reinhard" or bool(np.linalg.cond(normaliser.stain_matrix_target) < MAX_CONDITION)


@contextlib.contextmanager
def _same_random_numbers() -> Iterator[None]:
    """Let numpy's global random numbers, which Vahadane's dictionary learning takes, be the same each time."""
    state = np.random.get_state()  # noqa: NPY002 - scikit-learn uses the global ones unless told otherwise
    np.random.seed(0)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def _density_values(source: Any, target: Any) -> tuple[float, ...]:
    """Concentrations in the source's stains, scaled to the target's, in the target's stains: one 3 x 3 matrix."""
    ratio = np.diag((target.maxC_target / source.maxC_target).ravel())
    matrix = np.linalg.pinv(source.stain_matrix_target) @ ratio @ target.stain_matrix_target
    return tuple(float(value) for value in matrix.ravel())


def _lab_values(source: Any, target: Any) -> tuple[float, ...]:
    rows = zip(source.target_means, source.target_stds, target.target_means, target.target_stds, strict=True)
    return tuple(float(v) for mean, std, to_mean, to_std in rows for v in (mean, to_std / std, to_mean))
