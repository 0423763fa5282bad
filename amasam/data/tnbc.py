"""TNBC (Naylor et al.) as distributed: Slide_NN/NN_k.png with a foreground mask of the same name in GT_NN."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from amasam.data.files import IMAGE_SUFFIXES, files_by_stem, make_sample, read_rgb
from amasam.data.samples import DataError, Sample
from amasam.data.spec import SetSpec


def read(spec: SetSpec, folder: Path) -> list[Sample]:
    """Read all slides; instances are 8-connected components, so touching nuclei share an id."""
    samples = []
    for slide in sorted(folder.rglob("Slide_*")):
        if not slide.is_dir() or "__MACOSX" in slide.parts:
            continue
        masks_folder = slide.with_name(slide.name.replace("Slide_", "GT_"))
        images, masks = files_by_stem(slide, IMAGE_SUFFIXES), files_by_stem(masks_folder, IMAGE_SUFFIXES)
        if lonely := sorted(images.keys() ^ masks.keys()):
            raise DataError(f"data set {spec.name}: {lonely[0]!r} is not in both {slide} and {masks_folder.name}")
        samples += [make_sample(spec, stem, read_rgb(images[stem]), components(masks[stem])) for stem in images]
    return samples


def components(mask_path: Path) -> NDArray[np.int32]:
    """8-connected components of a foreground image."""
    mask = read_rgb(mask_path).max(axis=2) > 0
    return np.asarray(cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[1], np.int32)
