"""For tests of wsipipe and of models that plug into it: a toy segmenter, a contract to subclass, Hypothesis strategies.

    class TestMySegmenter(SegmenterContract):
        def make(self) -> Segmenter:
            return MySegmenter()

The strategies need Hypothesis; the rest does not.
"""

import hashlib
import json
import pickle
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from wsipipe.drawnslide import DemoSpec, Painter
from wsipipe.grid import ALL_SIDES, Box, Sides, TileGrid, sides_of
from wsipipe.instances import SplitRules, split_instances
from wsipipe.segmenter import InstanceWindow, Segmenter

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


@dataclass
class ToySegmenter:
    """Dark is nucleus: maps are functions of each pixel alone, so tiles fit at every halo.

    Attributes:
        mpp, tile, halo: what it asks for; any values work.
        sleep_s: how long each tile takes, a stand-in for a model on a device.
        fail_at: the tile, counted from 1 over the life of this object, at which `maps` raises RuntimeError.
        threshold: darkness from which on a pixel is foreground.
    """

    mpp: float = 0.5
    tile: int = 256
    halo: int = 16
    sleep_s: float = 0.0
    fail_at: int | None = None
    threshold: int = 110
    name: str = "toy"
    map_names: tuple[str, ...] = ("foreground", "height")
    class_names: tuple[str, ...] = ("Nucleus",)
    licence: str = "Apache-2.0"
    n_tiles: int = field(default=0, init=False)

    @property
    def sha256(self) -> str:
        """Hash of name and threshold."""
        return hashlib.sha256(f"{self.name} {self.threshold}".encode()).hexdigest()

    @property
    def parameters(self) -> Mapping[str, Any]:
        """What changes the result."""
        return {"threshold": self.threshold, "tile": self.tile, "halo": self.halo, "mpp": self.mpp}

    def fitted(self, sample: NDArray[np.uint8]) -> "ToySegmenter":
        """Return itself: there is nothing to adapt."""
        return self

    def maps(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the darkness of the red channel, twice: uint8 (B, 3, S, S) -> (B, 2, S, S)."""
        for _ in range(len(images)):
            self.n_tiles += 1
            if self.n_tiles == self.fail_at:
                raise RuntimeError(f"toy failure at tile {self.n_tiles}")
            time.sleep(self.sleep_s)
        dark = 255 - images[:, 0]  # (B, S, S)
        return np.stack([dark, dark], axis=1)

    def instances(self, maps: NDArray[np.uint8], *, mpp: float, sides: Sides) -> InstanceWindow:
        """Split at the pale lines between dark spots."""
        area = max(1, round(3 / mpp**2))
        return split_instances(maps[0], maps[1], SplitRules(self.threshold, 40, 2, area, area), sides)


class SegmenterContract:
    """What wsipipe relies on, as tests. Subclass it, name the subclass Test..., and say how to make the segmenter.

    tolerance: map steps by which results may differ where floating-point order may (0 = none).
    pickles: whether the segmenter can be sent to another process.
    """

    tolerance = 0
    pickles = True

    def make(self) -> Segmenter:
        """Return the segmenter to test."""
        raise NotImplementedError

    def images(self, segmenter: Segmenter) -> NDArray[np.uint8]:
        """Return uint8 (3, 3, S, S): drawn tissue twice, and blank glass."""
        side = segmenter.tile
        painter = Painter(DemoSpec(2 * side, side, mpp=segmenter.mpp, tissue=1))
        drawn = [painter.paint(Box(x, 0, x + side, side)).rgb.transpose(2, 0, 1) for x in (0, side)]
        return np.stack([*drawn, np.full((3, side, side), 245, np.uint8)])

    def test_it_says_what_it_is(self) -> None:
        """All attributes are there, of their types, and can be written to run.json."""
        segmenter = self.make()
        assert isinstance(segmenter, Segmenter)
        assert segmenter.mpp > 0
        assert 0 <= 2 * segmenter.halo < segmenter.tile
        assert segmenter.map_names
        assert segmenter.class_names
        assert len(segmenter.sha256) == 64
        assert segmenter.name
        assert segmenter.licence
        json.dumps(dict(segmenter.parameters))

    def test_maps_are_uint8_of_the_promised_shape(self) -> None:
        """(B, C, S, S) with one map per name, for any batch size."""
        segmenter = self.make()
        images = self.images(segmenter)
        for n in (1, len(images)):
            maps = _array(segmenter.maps(images[:n]))
            assert maps.dtype == np.uint8
            assert maps.shape == (n, len(segmenter.map_names), segmenter.tile, segmenter.tile)

    def test_an_image_does_not_depend_on_its_batch(self) -> None:
        """Alone, with others, and in another order: the same maps."""
        segmenter = self.make()
        images = self.images(segmenter)
        together = _array(segmenter.maps(images))
        reversed_order = _array(segmenter.maps(np.ascontiguousarray(images[::-1])))[::-1]
        alone = np.concatenate([_array(segmenter.maps(images[i : i + 1])) for i in range(len(images))])
        self._assert_same(together, reversed_order)
        self._assert_same(together, alone)

    def test_two_of_them_agree(self) -> None:
        """Nothing random, nothing remembered from earlier calls."""
        first, second = self.make(), self.make()
        images = self.images(first)
        first.maps(images[1:])
        self._assert_same(_array(first.maps(images[:1])), _array(second.maps(images[:1])))
        assert first.sha256 == second.sha256

    def test_fitting_returns_a_segmenter_whatever_the_sample(self) -> None:
        """No tiles, blank tiles, tissue: what comes back maps the same tiles alike, and the original is unchanged."""
        segmenter = self.make()
        images = self.images(segmenter)
        before = dict(segmenter.parameters)
        for sample in (images[:0], images[2:], images):
            one, other = segmenter.fitted(sample), segmenter.fitted(sample)
            assert isinstance(one, Segmenter)
            assert dict(one.parameters) == dict(other.parameters)
            self._assert_same(_array(one.maps(images[:1])), _array(other.maps(images[:1])))
        assert dict(segmenter.parameters) == before

    def test_labels_of_a_whole_map_are_certain_connected_and_in_raster_order(self) -> None:
        """Labels 1..n by first pixel, each one 4-connected region, none uncertain where no side is open."""
        segmenter, maps = self._example()
        found = segmenter.instances(maps, mpp=segmenter.mpp, sides=ALL_SIDES)
        n = len(found.certain) - 1
        assert n > 0, "the example images should hold nuclei"
        assert found.labels.dtype == np.int32
        assert found.labels.shape == maps.shape[1:]
        assert len(found.class_id) == len(found.class_prob) == n + 1
        assert found.certain.all()
        ids, first = np.unique(found.labels, return_index=True)
        inside = ids > 0
        assert ids[inside].tolist() == list(range(1, n + 1))
        assert (np.diff(first[inside]) > 0).all()
        for label in ids[inside]:
            assert cv2.connectedComponents((found.labels == label).astype(np.uint8), connectivity=4)[0] == 2

    def test_what_is_certain_in_a_window_is_so_on_the_whole_map(self) -> None:
        """Certain labels are instances of the whole map, pixel for pixel; background is background there too."""
        segmenter, maps = self._example()
        height, width = maps.shape[1:]
        whole = segmenter.instances(maps, mpp=segmenter.mpp, sides=ALL_SIDES).labels
        random = np.random.default_rng(0)
        some_certain = False
        for _ in range(8):
            y0, x0 = (int(random.integers(0, size // 2)) for size in (height, width))
            box = Box(
                x0, y0, x0 + int(random.integers(width // 4, width)), y0 + int(random.integers(height // 4, height))
            )
            box = box.intersect(Box(0, 0, width, height))
            window = np.ascontiguousarray(maps[:, box.y0 : box.y1, box.x0 : box.x1])
            found = segmenter.instances(window, mpp=segmenter.mpp, sides=sides_of(box, width=width, height=height))
            some_certain |= bool(found.certain[1:].any())
            _assert_part_of(whole, found, box)
        assert some_certain

    def test_it_survives_pickling(self) -> None:
        """A copy sent to another process finds the same."""
        if not self.pickles:
            return
        segmenter = self.make()
        images = self.images(segmenter)[:1]
        copy = pickle.loads(pickle.dumps(segmenter))
        self._assert_same(_array(copy.maps(images)), _array(segmenter.maps(images)))
        assert dict(copy.parameters) == dict(segmenter.parameters)

    def _example(self) -> tuple[Segmenter, NDArray[np.uint8]]:
        segmenter = self.make()
        return segmenter, np.ascontiguousarray(_array(segmenter.maps(self.images(segmenter)[:1]))[0])

    def _assert_same(self, one: NDArray[np.uint8], other: NDArray[np.uint8]) -> None:
        difference = np.abs(one.astype(np.int16) - other.astype(np.int16))
        assert difference.max(initial=0) <= self.tolerance


def _array(maps: Any) -> NDArray[np.uint8]:
    """Bring maps to the host: an array, or a tensor of any device."""
    return np.asarray(maps.cpu() if hasattr(maps, "cpu") else maps)


def _assert_part_of(whole: NDArray[np.int32], found: InstanceWindow, box: Box) -> None:
    """Compare a window's certain labels and its background with the labels of the whole map."""
    there = whole[box.y0 : box.y1, box.x0 : box.x1]
    assert not there[found.labels == 0].any()
    sizes = np.bincount(whole.ravel())
    for label in np.flatnonzero(found.certain)[1:]:
        mask = found.labels == label
        ids = np.unique(there[mask])
        assert len(ids) == 1
        assert ids[0] > 0
        assert mask.sum() == sizes[ids[0]]


def label_maps(max_side: int = 24, max_label: int = 5) -> "SearchStrategy[NDArray[np.int32]]":
    """Draw int32 (H, W) label maps of blocky shapes, 0..max_label; sides 1..max_side."""
    from hypothesis import strategies as st
    from hypothesis.extra.numpy import arrays

    def enlarge(cells: NDArray[np.int32], step: int) -> NDArray[np.int32]:
        return np.ascontiguousarray(np.kron(cells, np.ones((step, step), np.int32))[:max_side, :max_side])

    sides = st.integers(1, max_side)
    cells = st.tuples(sides, sides).flatmap(lambda shape: arrays(np.int32, shape, elements=st.integers(0, max_label)))
    return st.builds(enlarge, cells, st.integers(1, 4))


def tile_grids(max_side: int = 400) -> "SearchStrategy[TileGrid]":
    """Draw small tile grids, halo 0 and single tiles included."""
    from hypothesis import strategies as st

    return st.builds(
        lambda width, height, halo, core, block: TileGrid(width, height, core + 2 * halo, halo, block),
        st.integers(1, max_side),
        st.integers(1, max_side),
        st.integers(0, 16),
        st.integers(8, 64),
        st.integers(1, 4),
    )


def windows(width: int, height: int) -> "SearchStrategy[Box]":
    """Draw non-empty boxes inside a width x height map."""
    from hypothesis import strategies as st

    def box(xs: tuple[int, int], ys: tuple[int, int]) -> Box:
        return Box(min(xs), min(ys), max(xs) + 1, max(ys) + 1)

    columns, rows = st.integers(0, width - 1), st.integers(0, height - 1)
    return st.builds(box, st.tuples(columns, columns), st.tuples(rows, rows))
