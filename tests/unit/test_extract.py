"""What a block's extraction asks for and returns; that blocks equal the whole map is in tests/parity."""

import numpy as np
import pytest
from numpy.typing import NDArray

from wsipipe.extract import extract_block
from wsipipe.grid import Box, Sides
from wsipipe.instances import SplitRules, split_instances
from wsipipe.segmenter import InstanceWindow

WIDTH, HEIGHT = 400, 300


class ClassedSplitter:
    """Splits, and gives label i the class i and the probability i / 100."""

    def instances(self, maps: NDArray[np.uint8], *, mpp: float, sides: Sides) -> InstanceWindow:
        found = split_instances(maps[0], maps[0], SplitRules(128, 10, 1, 1, 0), sides)
        n = len(found.certain)
        return InstanceWindow(
            found.labels, found.certain, np.arange(n, dtype=np.int16), (np.arange(n) / 100).astype(np.float32)
        )


class Maps:
    """Stitched maps that remember the windows that were read."""

    def __init__(self, *boxes: Box) -> None:
        self.pixels = np.zeros((1, HEIGHT, WIDTH), np.uint8)
        for box in boxes:
            self.pixels[0, box.y0 : box.y1, box.x0 : box.x1] = 200
        self.windows: list[Box] = []

    def read(self, box: Box) -> NDArray[np.uint8]:
        self.windows.append(box)
        return self.pixels[:, box.y0 : box.y1, box.x0 : box.x1]


def extract(maps: Maps, core: Box, halo: int = 8):
    return extract_block(maps.read, core, ClassedSplitter(), mpp=0.25, width=WIDTH, height=HEIGHT, halo=halo)


def test_a_block_without_foreground_owns_nothing_and_reads_once():
    maps = Maps()
    found = extract(maps, Box(100, 100, 200, 200))
    assert found.n == 0
    assert found.labels.shape == (found.window.height, found.window.width) == (1, 1)
    assert not found.labels.any()
    assert maps.windows == [Box(92, 92, 208, 208)]


def test_the_window_grows_until_an_instance_is_whole():
    maps = Maps(Box(150, 150, 240, 160))
    found = extract(maps, Box(100, 100, 200, 200))
    assert found.n == 1
    assert found.window == Box(150, 150, 240, 160)
    assert [window.x1 for window in maps.windows] == [208, 216, 232, 264]


def test_an_instance_centred_next_door_is_not_owned():
    maps = Maps(Box(150, 150, 252, 160))
    assert extract(maps, Box(100, 100, 200, 200)).n == 0
    assert extract(maps, Box(200, 100, 300, 200)).n == 1


def test_instances_outside_the_core_do_not_make_the_window_grow():
    maps = Maps(Box(201, 150, 400, 160), Box(120, 120, 130, 130))
    assert extract(maps, Box(100, 100, 200, 200)).n == 1
    assert len(maps.windows) == 1


def test_classes_follow_their_instances():
    maps = Maps(Box(93, 110, 97, 114), Box(120, 120, 124, 124), Box(110, 130, 114, 134))
    found = extract(maps, Box(100, 100, 200, 200))
    assert found.n == 2
    assert found.class_id.tolist() == [0, 2, 3]
    assert found.class_prob.tolist() == pytest.approx([0, 0.02, 0.03])


def test_a_core_outside_the_map_is_refused():
    with pytest.raises(ValueError, match="block core"):
        extract(Maps(), Box(350, 0, 450, 100))
