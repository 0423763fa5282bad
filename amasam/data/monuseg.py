"""MoNuSeg 2018 as distributed: tissue images and Aperio XML outlines.

The training download holds 37 images today: the 30 of the challenge and 7 added later. Only the 30 are read.
"""

import logging
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from skimage.draw import polygon

from amasam.data.files import IMAGE_SUFFIXES, files_by_stem, find_folder, make_sample, read_rgb
from amasam.data.samples import DataError, Sample
from amasam.data.spec import SetSpec

_DX = (
    "A7-A13E A7-A13F AR-A1AK AR-A1AS E2-A1B5 E2-A14V B0-5711 HE-7128 HE-7129 HE-7130 B0-5710 B0-5698 18-5592 38-6178 "
    "49-4488 50-5931 21-5784 21-5786 G9-6336 G9-6348 G9-6356 G9-6363 CH-5767 G9-6362"
)
_FROZEN = "DK-A2I6-01A-01-TS1 G2-A2EK-01A-02-TSB AY-A8YK-01A-01-TS1 NH-A8F7-01A-01-TS1 KB-A93J-01A-01-TS1"
_TEST = (
    "2Z-A9J9-01A-01-TS1 44-2665-01B-06-BS6 69-7764-01A-01-TS1 A6-6782-01A-01-BS1 AC-A2FO-01A-01-TS1 "
    "AO-A0J2-01A-01-BSA CU-A0YN-01A-02-BSB EJ-A46H-01A-03-TSC FG-A4MU-01B-01-TS1 GL-6846-01A-01-BS1 "
    "HC-7209-01A-01-TS1 HT-8564-01Z-00-DX1 IZ-8196-01A-01-BS1 ZF-A9R5-01A-01-TS1"
)
TRAIN_30 = tuple(
    sorted(
        [f"TCGA-{case}-01Z-00-DX1" for case in _DX.split()]
        + [f"TCGA-{case}" for case in [*_FROZEN.split(), "RD-A8N9-01A-01-TS1"]]
    )
)
TEST_14 = tuple(f"TCGA-{case}" for case in _TEST.split())

Ring = NDArray[np.float64]

_log = logging.getLogger(__name__)


def read(spec: SetSpec, folder: Path) -> list[Sample]:
    """Read the 30 training images, the 14 test images, or both (`spec.part`)."""
    samples: list[Sample] = []
    if spec.part in ("train", "all"):
        samples += _read_part(spec, find_folder(folder, "Tissue Images"), find_folder(folder, "Annotations"), TRAIN_30)
    if spec.part in ("test", "all"):
        test = find_folder(folder, "MoNuSegTestData")
        samples += _read_part(spec, test, test, TEST_14)
    return samples


def _read_part(spec: SetSpec, images: Path | None, outlines: Path | None, wanted: tuple[str, ...]) -> list[Sample]:
    if images is None or outlines is None:
        raise DataError(f"data set {spec.name}: found no images and XML files of the {len(wanted)} MoNuSeg images")
    by_stem, xml_by_stem = files_by_stem(images, IMAGE_SUFFIXES), files_by_stem(outlines, (".xml",))
    for stem in wanted:
        if stem not in by_stem or stem not in xml_by_stem:
            raise DataError(f"data set {spec.name}: {stem} lacks its image or XML file in {images}")
    if later := sorted(by_stem.keys() - set(wanted)):
        _log.warning("%s: %d images are not of the challenge and are left out: %s", spec.name, len(later), later)
    return [_read_image(spec, stem, by_stem[stem], xml_by_stem[stem]) for stem in wanted]


def _read_image(spec: SetSpec, stem: str, image_path: Path, xml_path: Path) -> Sample:
    image = read_rgb(image_path)
    labels = fill_rings(list(read_rings(xml_path)), (image.shape[0], image.shape[1]))
    return make_sample(spec, stem, image, labels)


def read_rings(path: Path) -> Iterator[Ring]:
    """Outlines of every annotation layer in file order, float (n, 2) x, y as written; two vertices are none."""
    try:
        tree = ET.parse(path)
    except ET.ParseError as error:
        raise DataError(f"cannot read outlines {path}: {error}") from error
    for region in tree.iterfind("./Annotation/Regions/Region"):
        vertices = [(float(v.attrib["X"]), float(v.attrib["Y"])) for v in region.iterfind("./Vertices/Vertex")]
        if len(vertices) >= 3:
            yield np.array(vertices)


def fill_rings(rings: list[Ring], shape: tuple[int, int]) -> NDArray[np.int32]:
    """Fill outlines with ids 1..n in file order, large ones first, so that a small nucleus inside stays visible.

    The published masks took the XML's numbers as MATLAB pixel centres, whose first is 1: here that is vertex - 1.

    Args:
        rings: (n, 2) x, y each.
        shape: (height, width); what lies outside is cut.

    Returns:
        int32 (height, width), 0 = background.
    """
    labels = np.zeros(shape, np.int32)
    filled = [polygon(ring[:, 1] - 1, ring[:, 0] - 1, shape) for ring in rings]  # type: ignore[no-untyped-call]
    for at in sorted(range(len(rings)), key=lambda at: -len(filled[at][0])):
        labels[filled[at]] = at + 1
    return labels
