"""run.json: everything comes back, damage is a clear error, digests are those of sha256sum."""

import hashlib
import json
from pathlib import Path

import pytest
from support_nuclei import FRAME, make_record

from wsipipe.errors import OutputError
from wsipipe.runrecord import FileDigest, file_digest, git_commit, package_versions, read_record, tree_digest


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    record = make_record(tmp_path, 7, ("a.txt",))
    record.write(tmp_path / "run.json")
    got = read_record(tmp_path / "run.json")
    assert got == record
    assert got.frame == FRAME
    assert got.files["a.txt"] == FileDigest(1, hashlib.sha256(b"a").hexdigest())


def test_the_text_tells_size_and_scale_of_the_work_grid(tmp_path: Path) -> None:
    values = json.loads(make_record(tmp_path, 0, ()).to_json())
    assert values["work_size"] == [FRAME.width, FRAME.height]
    assert values["work_mpp"] == [FRAME.mpp_x, FRAME.mpp_y]
    assert values["format_version"] == 1


def test_a_missing_record_means_an_unfinished_run(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"missing.*unfinished.*run\.json"):
        read_record(tmp_path / "run.json")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format_version": 2}', '{"format_version": 1}'])
def test_a_record_that_lacks_something_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(OutputError, match="cannot be used"):
        read_record(tmp_path / "run.json")


def test_a_tree_digest_changes_with_names_and_contents_only(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "c" / "0").mkdir(parents=True)
        (tmp_path / name / "c" / "0" / "0").write_bytes(b"shard")
        (tmp_path / name / "zarr.json").write_bytes(b"{}")
    assert tree_digest(tmp_path / "one") == tree_digest(tmp_path / "two")
    lines = [f"{hashlib.sha256(b'shard').hexdigest()}  c/0/0\n", f"{hashlib.sha256(b'{}').hexdigest()}  zarr.json\n"]
    assert tree_digest(tmp_path / "one") == FileDigest(7, hashlib.sha256("".join(lines).encode()).hexdigest())
    (tmp_path / "two" / "zarr.json").rename(tmp_path / "two" / "other.json")
    assert tree_digest(tmp_path / "one") != tree_digest(tmp_path / "two")


def test_a_large_file_is_read_in_pieces(tmp_path: Path) -> None:
    data = bytes(range(256)) * 10_000
    (tmp_path / "large").write_bytes(data)
    assert file_digest(tmp_path / "large") == FileDigest(len(data), hashlib.sha256(data).hexdigest())


def test_versions_name_python_this_package_and_its_requirements() -> None:
    versions = package_versions()
    assert {"python", "platform", "wsipipe", "numba", "zarr", "dask"} <= set(versions)


def test_the_commit_is_a_hash_or_none() -> None:
    commit = git_commit()
    assert commit is None or len(commit) == 40
