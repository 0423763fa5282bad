"""CryoNuSeg as distributed: frozen sections of ten organs, label images per annotator and round."""

from pathlib import Path

from amasam.data.files import (
    IMAGE_SUFFIXES,
    LABEL_SUFFIXES,
    files_by_stem,
    find_folder,
    make_sample,
    read_labels,
    read_rgb,
)
from amasam.data.samples import DataError, Sample
from amasam.data.spec import SetSpec

LABELS = "label masks modify"  # the plain "label masks" add the ids of overlapping outlines up


def read(spec: SetSpec, folder: Path) -> list[Sample]:
    """Read the images and the labels of `spec.annotator`, whose folder may be nested under its own name."""
    images_folder, round_folder = find_folder(folder, "tissue images"), find_folder(folder, spec.annotator)
    labels_folder = round_folder and find_folder(round_folder, LABELS)
    if images_folder is None or labels_folder is None:
        raise DataError(f"data set {spec.name}: no 'tissue images' or '{spec.annotator}/{LABELS}' under {folder}")
    images, labels = files_by_stem(images_folder, IMAGE_SUFFIXES), files_by_stem(labels_folder, LABEL_SUFFIXES)
    if lonely := sorted(images.keys() ^ labels.keys()):
        raise DataError(f"data set {spec.name}: {lonely[0]!r} is not in both {images_folder} and {labels_folder}")
    return [make_sample(spec, stem, read_rgb(path), read_labels(labels[stem])) for stem, path in images.items()]
