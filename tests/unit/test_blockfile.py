"""Block files: exact, deterministic, partly readable, and damage is noticed."""

import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from support_nuclei import make_sample, runs_of

from wsipipe.blockfile import read_block, read_block_outlines, read_block_runs, read_block_table, write_block
from wsipipe.errors import BlockFileError
from wsipipe.frames import WorkFrame
from wsipipe.grid import Box
from wsipipe.nuclei import BlockNuclei, Outlines

FRAME = WorkFrame(300, 200, 0.25, 0.25, 1.0, 1.0)


@pytest.fixture(scope="module")
def nuclei() -> BlockNuclei:
    sample = make_sample(8, FRAME)
    table = sample.table.drop_columns(["label", "uuid", "class_prob", "neighbour_distance_um"])  # NaN equals nothing
    return BlockNuclei(Box(0, 0, 300, 200), sample.runs, sample.outlines_l0, table)


@pytest.fixture
def empty(nuclei: BlockNuclei) -> BlockNuclei:
    outlines = Outlines(np.empty((0, 2)), np.zeros(1, np.int64), np.zeros(1, np.int64))
    return BlockNuclei(Box(-4, 0, 8, 2), runs_of(np.zeros((2, 2), np.int32)), outlines, nuclei.table.slice(0, 0))


def _assert_same_outlines(a: Outlines, b: Outlines) -> None:
    for name in ("coords", "ring_starts", "polygon_starts"):
        got, expected = getattr(a, name), getattr(b, name)
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)


def test_what_was_written_is_read_back_exactly(tmp_path: Path, nuclei: BlockNuclei) -> None:
    write_block(tmp_path / "b.arrow", nuclei)
    got = read_block(tmp_path / "b.arrow")
    assert got.window == nuclei.window
    assert len(got) == len(nuclei)
    assert got.table.equals(nuclei.table)
    _assert_same_outlines(got.outlines, nuclei.outlines)
    for name in ("row", "x0", "x1", "label"):
        np.testing.assert_array_equal(getattr(got.runs, name), getattr(nuclei.runs, name))


def test_a_block_without_nuclei_is_a_full_schema_with_no_rows(tmp_path: Path, empty: BlockNuclei) -> None:
    write_block(tmp_path / "b.arrow", empty)
    got = read_block(tmp_path / "b.arrow")
    assert len(got) == 0
    assert got.table.schema.equals(empty.table.schema)
    assert len(got.outlines) == 0
    assert len(got.runs.row) == 0
    _assert_same_outlines(got.outlines, empty.outlines)


def test_parts_can_be_read_alone(tmp_path: Path, nuclei: BlockNuclei) -> None:
    write_block(tmp_path / "b.arrow", nuclei)
    assert read_block_table(tmp_path / "b.arrow").equals(nuclei.table)
    np.testing.assert_array_equal(read_block_runs(tmp_path / "b.arrow").x1, nuclei.runs.x1)
    _assert_same_outlines(read_block_outlines(tmp_path / "b.arrow"), nuclei.outlines)


def test_equal_nuclei_give_equal_bytes_however_chunked(tmp_path: Path, nuclei: BlockNuclei) -> None:
    write_block(tmp_path / "a.arrow", nuclei)
    table = pa.concat_tables([nuclei.table.slice(0, 3), nuclei.table.slice(3)])
    write_block(tmp_path / "b.arrow", BlockNuclei(nuclei.window, nuclei.runs, nuclei.outlines, table))
    assert (tmp_path / "a.arrow").read_bytes() == (tmp_path / "b.arrow").read_bytes()


def test_nothing_but_the_target_is_left(tmp_path: Path, nuclei: BlockNuclei) -> None:
    write_block(tmp_path / "b.arrow", nuclei)
    assert [path.name for path in tmp_path.iterdir()] == ["b.arrow"]


def test_every_flipped_byte_of_the_data_is_noticed(tmp_path: Path, nuclei: BlockNuclei) -> None:
    path = tmp_path / "b.arrow"
    write_block(path, nuclei)
    good = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        spans = [(i.header_offset + 30 + len(i.filename), i.compress_size) for i in archive.infolist()]
    for start, size in spans:
        for at in np.linspace(start, start + size - 1, 12).astype(int).tolist():
            path.write_bytes(good[:at] + bytes([good[at] ^ 0x10]) + good[at + 1 :])
            with pytest.raises(BlockFileError, match=r"damaged.*b\.arrow"):
                read_block(path)


@pytest.mark.parametrize("kept", [0, 10, 500, -30])
def test_a_file_cut_short_is_noticed(tmp_path: Path, nuclei: BlockNuclei, kept: int) -> None:
    path = tmp_path / "b.arrow"
    write_block(path, nuclei)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(BlockFileError, match="damaged"):
        read_block_runs(path)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(BlockFileError, match="missing"):
        read_block_table(tmp_path / "none.arrow")


def test_another_format_version_is_refused(
    tmp_path: Path, nuclei: BlockNuclei, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "b.arrow"
    with monkeypatch.context() as patch:
        patch.setattr("wsipipe.blockfile.FORMAT_VERSION", 99)
        write_block(path, nuclei)
    with pytest.raises(BlockFileError, match="format_version must be 1, got 99"):
        read_block(path)
