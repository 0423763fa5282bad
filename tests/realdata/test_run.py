"""The main job on the two real slides."""

import csv
import shutil

import pytest

from wsipipe.options import RunOptions
from wsipipe.runner import run_slides
from wsipipe.runrecord import read_record
from wsipipe.slidelist import list_slides
from wsipipe.verify import verify_folder

pytestmark = pytest.mark.realdata


def run(out, inputs, mpp=None):
    options = RunOptions(out=out, model="classical", workers=2)
    return run_slides(list_slides([str(path) for path in inputs], mpp=mpp), options, lambda event: None)


def test_both_real_slides_are_done_and_keep_their_promises(data_root, tmp_path):
    cmu = data_root / "slides" / "cmu-1-small-region.svs"
    tcga = data_root / "slides" / "tcga-cr-7395-01a-01-ts1.svs"
    first = run(tmp_path, [cmu, tcga])
    assert first.exit_code == 1
    with (tmp_path / "failed.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [str(tcga)]
    assert "--mpp" in rows[0]["reason"]
    record = read_record(tmp_path / cmu.stem / "run.json")
    assert record.nuclei > 2000
    assert record.l0_mpp[0] == pytest.approx(0.499, abs=1e-3)
    assert record.flags == ()
    assert verify_folder(tmp_path / cmu.stem) == []
    assert run(tmp_path, [tcga], mpp=0.25).exit_code == 0
    assert read_record(tmp_path / tcga.stem / "run.json").nuclei > 1000
    assert verify_folder(tmp_path / tcga.stem) == []


def test_odd_files_fail_one_by_one_with_a_reason_each(data_root, tmp_path):
    odd = sorted((data_root / "slides" / "odd").iterdir())
    shutil.copytree(data_root / "slides" / "odd", tmp_path / "odd")
    summary = run(tmp_path / "out", sorted((tmp_path / "odd").iterdir()))
    assert summary.exit_code == 1
    failed = {failure.path.rsplit("/", 1)[-1]: failure.reason for failure in summary.failures}
    assert failed.keys() == {path.name for path in odd} - {"small.svs"}
    assert all("\n" not in reason and "internal error" not in reason for reason in failed.values())
    assert verify_folder(tmp_path / "out" / "small") == []
