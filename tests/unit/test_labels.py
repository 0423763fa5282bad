"""labels.ome.zarr: valid metadata, exact pixels, a pyramid by whole shards."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from ome_zarr_models.v05.image_label import ImageLabel
from support_nuclei import FRAME, PROVENANCE, Sample, make_sample, runs_of, write_labels

from wsipipe import labels as labels_module
from wsipipe.frames import WorkFrame
from wsipipe.grid import Box
from wsipipe.labels import (
    create_labels,
    level_sizes,
    level_transform,
    list_shards,
    read_labels,
    reduce_labels,
    shard_path,
    write_level0_shard,
)

WHOLE = Box(0, 0, FRAME.width, FRAME.height)


@pytest.fixture(scope="module")
def sample() -> Sample:
    return make_sample(60)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels_module, "SHARD", 256)
    monkeypatch.setattr(labels_module, "CHUNK", 64)


def _tree(path: Path) -> dict[str, bytes]:
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_metadata_are_a_valid_ome_zarr_0_5_label_image(tmp_path: Path, sample: Sample) -> None:
    write_labels(tmp_path / "l.ome.zarr", sample)
    image = ImageLabel.from_zarr(zarr.open_group(str(tmp_path / "l.ome.zarr"), mode="r"))
    multiscale = image.ome_attributes.multiscales[0]
    assert [(axis.name, axis.unit) for axis in multiscale.axes] == [("y", "micrometer"), ("x", "micrometer")]
    assert image.ome_attributes.image_label.version == "0.5"
    assert multiscale.datasets[0].coordinateTransformations[0].scale == [0.5, 0.5]


def test_arrays_are_sharded_zstd_without_shuffle(tmp_path: Path) -> None:
    create_labels(tmp_path / "l.ome.zarr", PROVENANCE)
    array = zarr.open_array(str(tmp_path / "l.ome.zarr" / "0"), mode="r")
    assert (array.dtype, array.shape, array.shards, array.chunks) == (
        np.uint32,
        (FRAME.height, FRAME.width),
        (4096, 4096),
        (512, 512),
    )
    assert [type(codec).__name__ for codec in array.compressors] == ["ZstdCodec"]


def test_levels_end_at_512_px() -> None:
    assert level_sizes(FRAME) == [(1300, 1001), (650, 501), (325, 251)]
    assert level_sizes(WorkFrame(512, 100, 0.25, 0.25, 1, 1)) == [(512, 100)]
    assert len(level_sizes(WorkFrame(1, 1, 0.25, 0.25, 1, 1))) == 1


def test_a_pixel_centre_has_one_place_in_micrometres_on_every_level() -> None:
    frame = WorkFrame(8000, 8000, 0.25, 0.2, 2.0, 3.0)
    for level in range(3):
        (_, scale), (_, translation) = (tuple(item.values()) for item in level_transform(frame, level))
        for axis, (mpp, l0_scale) in enumerate([(0.2, 3.0), (0.25, 2.0)]):
            left_edge_um = translation[axis] - scale[axis] / 2  # index -0.5
            assert left_edge_um == pytest.approx(-mpp / 2)  # the left edge of the slide's first pixel
            assert scale[axis] == pytest.approx(mpp * l0_scale * 2**level)


@pytest.mark.usefixtures("small_shards")
def test_pixels_are_painted_exactly_across_shards(tmp_path: Path, sample: Sample) -> None:
    write_labels(tmp_path / "l.ome.zarr", sample)
    np.testing.assert_array_equal(read_labels(tmp_path / "l.ome.zarr", WHOLE), sample.labels)


@pytest.mark.usefixtures("small_shards")
def test_levels_of_many_shards_equal_the_reduction_of_the_whole(tmp_path: Path, sample: Sample) -> None:
    write_labels(tmp_path / "l.ome.zarr", sample)
    expected = sample.labels.astype(np.uint32)
    for level, (width, height) in enumerate(level_sizes(FRAME)):
        got = read_labels(tmp_path / "l.ome.zarr", Box(0, 0, width, height), level)
        np.testing.assert_array_equal(got, expected)
        expected = reduce_labels(expected)


@pytest.mark.usefixtures("small_shards")
def test_blocks_are_painted_with_their_offsets(tmp_path: Path) -> None:
    path = tmp_path / "l.ome.zarr"
    create_labels(path, PROVENANCE)
    one = np.zeros((FRAME.height, FRAME.width), np.int32)
    other = one.copy()
    one[10:14, 250:260] = 1  # over the border between two shards
    other[10:14, 300:303] = 1
    for shard in list_shards(FRAME, 0):
        write_level0_shard(path, shard, [(runs_of(one), 0), (runs_of(other), 4_000_000_000)])
    got = read_labels(path, WHOLE)
    assert set(np.unique(got)) == {0, 1, 4_000_000_001}
    np.testing.assert_array_equal(got == 1, one == 1)
    np.testing.assert_array_equal(got == 4_000_000_001, other == 1)


@pytest.mark.usefixtures("small_shards")
def test_shards_without_nuclei_do_not_exist(tmp_path: Path, sample: Sample) -> None:
    path = tmp_path / "l.ome.zarr"
    write_labels(path, sample)
    for level in range(len(level_sizes(FRAME))):
        for shard in list_shards(FRAME, level):
            stored = shard_path(path, level, shard.row, shard.col).exists()
            assert stored == read_labels(path, shard.box, level).any()


@pytest.mark.usefixtures("small_shards")
def test_a_shard_written_again_without_nuclei_goes_away(tmp_path: Path, sample: Sample) -> None:
    path = tmp_path / "l.ome.zarr"
    write_labels(path, sample)
    shard = list_shards(FRAME, 0, [Box(0, 0, 1, 1)])[0]
    write_level0_shard(path, shard, [])
    assert not read_labels(path, shard.box).any()
    assert not shard_path(path, 0, 0, 0).exists()


@pytest.mark.usefixtures("small_shards")
def test_equal_nuclei_give_equal_bytes_in_any_order_of_shards(tmp_path: Path, sample: Sample) -> None:
    write_labels(tmp_path / "a.ome.zarr", sample)
    write_labels(tmp_path / "b.ome.zarr", sample)
    for shard in reversed(list_shards(FRAME, 0)):
        write_level0_shard(tmp_path / "b.ome.zarr", shard, [(sample.runs, 0)])
    assert _tree(tmp_path / "a.ome.zarr") == _tree(tmp_path / "b.ome.zarr")


@pytest.mark.usefixtures("small_shards")
def test_only_touched_shards_are_listed() -> None:
    touched = [Box(250, 10, 260, 20), Box(0, 0, 0, 0), Box(1290, 1000, 1400, 1100)]
    assert [(s.row, s.col) for s in list_shards(FRAME, 0, touched)] == [(0, 0), (0, 1), (3, 5)]
    assert [(s.row, s.col) for s in list_shards(FRAME, 1, touched)] == [(0, 0), (1, 2)]
    assert list_shards(FRAME, 0, []) == []
    assert len(list_shards(FRAME, 0)) == 4 * 6
    assert list_shards(FRAME, 0)[-1].box == Box(1280, 768, 1300, 1001)


def test_reading_beyond_the_image_gives_background(tmp_path: Path, sample: Sample) -> None:
    write_labels(tmp_path / "l.ome.zarr", sample)
    got = read_labels(tmp_path / "l.ome.zarr", Box(-5, -7, FRAME.width + 5, 20))
    np.testing.assert_array_equal(got[7:, 5:-5], sample.labels[:20])
    assert not got[:7].any()
    assert read_labels(tmp_path / "l.ome.zarr", Box(5000, 5000, 5003, 5002)).shape == (2, 3)


@pytest.mark.parametrize(
    ("pixels", "winner"),
    [
        ([[7, 7], [7, 7]], 7),
        ([[7, 7], [0, 0]], 7),  # half covered: nucleus
        ([[7, 0], [0, 0]], 0),
        ([[9, 7], [0, 0]], 7),  # equal shares: the lower label
        ([[9, 7], [9, 0]], 9),
        ([[9, 9], [7, 7]], 7),
        ([[1, 2], [3, 4]], 1),
        ([[5]], 5),  # the last odd corner
        ([[5, 0]], 5),
        ([[0], [5]], 5),
    ],
)
def test_a_reduced_pixel_is_the_label_that_holds_most(pixels: list[list[int]], winner: int) -> None:
    assert reduce_labels(np.array(pixels, np.uint32)).tolist() == [[winner]]


@pytest.mark.parametrize("offset", [0, 1])
def test_two_pixels_wide_nuclei_survive_a_halving_wherever_they_lie(offset: int) -> None:
    labels = np.zeros((10, 10), np.uint32)
    labels[4 + offset : 6 + offset, 4:6] = 3
    assert (reduce_labels(labels) == 3).sum() in (1, 2)
