"""On real images, blocks of any size in any order give exactly the nuclei of one window, with the same measurements."""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from wsipipe.classical import ClassicalSegmenter
from wsipipe.extract import extract_block
from wsipipe.frames import WorkFrame, work_frame
from wsipipe.grid import Box
from wsipipe.measure import measure, unclassified
from wsipipe.outlines import simplify, trace
from wsipipe.slide import open_slide
from wsipipe.stain import QUPATH_HE

pytestmark = pytest.mark.realdata

SIDE = 1500  # px of the slide's part


def _monuseg(root: Path) -> tuple[NDArray[np.uint8], WorkFrame]:
    path = root / "nuclei" / "monuseg_train" / "images" / "TCGA-A7-A13F-01Z-00-DX1.png"
    rgb = np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])
    return rgb, WorkFrame(rgb.shape[1], rgb.shape[0], 0.25, 0.25, 1.0, 1.0)


def _cmu(root: Path) -> tuple[NDArray[np.uint8], WorkFrame]:
    with open_slide(root / "slides" / "cmu-1-small-region.svs") as slide:
        frame = work_frame((slide.width, slide.height), (slide.mpp.x, slide.mpp.y), slide.mpp.x)
        rgb = slide.read(Box(300, 500, 300 + SIDE, 500 + SIDE), frame)
    return rgb, WorkFrame(SIDE, SIDE, frame.l0_mpp_x, frame.l0_mpp_y, 1.0, 1.0)


IMAGES = {"monuseg": _monuseg, "cmu": _cmu}


def _extract(
    rgb: NDArray[np.uint8], frame: WorkFrame, segmenter: ClassicalSegmenter, cores: Iterable[Box], halo: int
) -> tuple[NDArray[np.int32], pa.Table]:
    """Extract and measure block by block; return the labels painted together and the rows in the order of painting."""
    maps = segmenter.maps(np.ascontiguousarray(rgb.transpose(2, 0, 1)[None]))[0]
    whole = Box(0, 0, frame.width, frame.height)
    painted, tables, n = np.zeros(rgb.shape[:2], np.int32), [], 0
    for core in cores:
        found = extract_block(
            lambda box: maps[:, *box.slices(whole)],
            core,
            segmenter,
            mpp=frame.mpp,
            width=frame.width,
            height=frame.height,
            halo=halo,
        )
        place, origin = found.window.slices(whole), (found.window.x0, found.window.y0)
        outlines = simplify(trace(found.labels, found.n, origin=origin))
        tables.append(
            measure(
                found.labels,
                np.ascontiguousarray(rgb[place]),
                outlines,
                unclassified(found.n),
                frame=frame,
                stain=QUPATH_HE,
                origin=origin,
            )
        )
        inside = found.labels > 0
        assert not painted[place][inside].any()
        painted[place][inside] = found.labels[inside] + n
        n += found.n
    return painted, pa.concat_tables(tables)


def _random_cores(rng: np.random.Generator, width: int, height: int) -> list[Box]:
    """Cut the image at random places, some very close to each other, and shuffle the parts."""
    xs, ys = ([0, *np.sort(rng.choice(np.arange(1, side), 3, replace=False)), side] for side in (width, height))
    cores = [Box(int(xs[i]), int(ys[j]), int(xs[i + 1]), int(ys[j + 1])) for i in range(4) for j in range(4)]
    return [cores[k] for k in rng.permutation(len(cores))]


@pytest.mark.parametrize("name", IMAGES)
def test_random_blocks_in_random_order_equal_one_window(data_root, name):
    rgb, frame = IMAGES[name](data_root)
    segmenter = ClassicalSegmenter(mpp=frame.mpp).fitted(np.ascontiguousarray(rgb.transpose(2, 0, 1)[None]))
    whole = Box(0, 0, frame.width, frame.height)
    expected, rows = _extract(rgb, frame, segmenter, [whole], 1)
    assert expected.max() > 300
    for seed in range(3):
        rng = np.random.default_rng(seed)
        painted, found = _extract(rgb, frame, segmenter, _random_cores(rng, frame.width, frame.height), seed * 20 + 1)
        pairs = np.unique(np.stack([expected.ravel(), painted.ravel()]), axis=1)  # (2, pairs of labels that meet)
        assert pairs.shape[1] == expected.max() + 1 == painted.max() + 1
        order = pairs[1, 1:] - 1  # rows of found in the order of the expected labels; pair 0 is the background
        assert found.take(order).equals(rows)
