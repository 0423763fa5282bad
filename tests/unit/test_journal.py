import json
import subprocess
import sys

import pytest

from wsipipe.errors import LockedError, OutputError, RunKeyError
from wsipipe.journal import RunKey, SlideFolder, locked

KEY = RunKey({"model": "classical", "tile": 1024})


def test_a_new_folder_has_work_to_do_and_nothing_done(tmp_path):
    folder = SlideFolder(tmp_path / "a")
    assert folder.open(KEY, overwrite=False) is False
    assert not folder.is_inferred(3)
    assert not folder.is_extracted(3)


def test_markers_survive_reopening(tmp_path):
    folder = SlideFolder(tmp_path / "a")
    folder.open(KEY, overwrite=False)
    folder.mark_inferred(3)
    again = SlideFolder(tmp_path / "a")
    assert again.open(KEY, overwrite=False) is False
    assert again.is_inferred(3)


def test_another_key_is_refused_with_the_difference_named(tmp_path):
    SlideFolder(tmp_path / "a").open(KEY, overwrite=False)
    other = RunKey({"model": "amasam-tiny", "tile": 1024})
    with pytest.raises(RunKeyError, match="--model was classical, now amasam-tiny; pass --overwrite") as caught:
        SlideFolder(tmp_path / "a").open(other, overwrite=False)
    assert "tile" not in str(caught.value).split(";")[0]


def test_overwrite_forgets_the_earlier_run(tmp_path):
    folder = SlideFolder(tmp_path / "a")
    folder.open(KEY, overwrite=False)
    folder.mark_inferred(0)
    assert folder.open(RunKey({"model": "x"}), overwrite=True) is False
    assert not folder.is_inferred(0)


def test_a_folder_with_foreign_files_is_never_touched(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="did not write"):
            SlideFolder(folder).open(KEY, overwrite=overwrite)
    assert (folder / "thesis.txt").read_text() == "mine"


def test_a_finished_folder_is_recognised(tmp_path):
    folder = SlideFolder(tmp_path / "a")
    folder.open(KEY, overwrite=False)
    (folder.path / "labels").mkdir()
    (folder.path / "labels" / "0").write_bytes(b"12345")
    record = {"status": "done", "run_key": dict(KEY.values), "files": {"labels": {"bytes": 5}}}
    folder.record_path.write_text(json.dumps(record))
    assert folder.open(KEY, overwrite=False) is True
    assert folder.is_done_with({"model": "classical"})
    assert not folder.is_done_with({"model": "amasam-tiny"})
    folder.finish()
    assert not folder.work.exists()


def test_a_finished_folder_that_lost_a_file_has_work_to_do(tmp_path):
    folder = SlideFolder(tmp_path / "a")
    folder.open(KEY, overwrite=False)
    record = {"status": "done", "run_key": dict(KEY.values), "files": {"nuclei.parquet": {"bytes": 5}}}
    folder.record_path.write_text(json.dumps(record))
    assert not folder.is_done()
    assert folder.open(KEY, overwrite=False) is False
    assert not folder.record_path.exists()
    assert folder.open(KEY, overwrite=False) is False


def test_what_a_killed_run_left_half_written_is_swept(tmp_path):
    folder = SlideFolder(tmp_path / "a")
    folder.open(KEY, overwrite=False)
    (folder.path / ".labels.ome.zarr.partial").mkdir()
    (folder.work / "blocks" / ".000001.arrow.77.partial").write_bytes(b"half")
    (folder.work / "blocks" / "000002.arrow").write_bytes(b"whole")
    folder.open(KEY, overwrite=False)
    left = sorted(path.name for path in folder.path.rglob("*") if path.is_file())
    assert left == ["000002.arrow", "run-key.json"]
    assert not (folder.path / ".labels.ome.zarr.partial").exists()


def test_a_half_written_record_counts_as_unfinished(tmp_path):
    folder = SlideFolder(tmp_path / "a")
    folder.open(KEY, overwrite=False)
    folder.record_path.write_text('{"status": "do')
    assert folder.open(KEY, overwrite=False) is False


def test_a_second_run_into_one_folder_is_refused_and_a_killed_one_leaves_no_lock(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from wsipipe.journal import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline().strip() == "held"
    with pytest.raises(LockedError, match="another run"), locked(tmp_path):
        pass
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with locked(tmp_path):
        assert tmp_path.is_dir()


def test_an_output_folder_that_cannot_be_made_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write the output folder"), locked(tmp_path / "file" / "out"):
        pass
