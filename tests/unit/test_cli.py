import csv
import errno
import json
import re
import sys
from inspect import signature

import numpy as np
import pytest
from support_he import he_picture
from support_slides import write_slide

from wsipipe.cli.main import main
from wsipipe.cli.plan import plan as plan_command
from wsipipe.cli.run import run as run_command
from wsipipe.options import DEFAULT_MODEL


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    folder = tmp_path_factory.mktemp("a folder with späces")
    return write_slide(folder / "slide ünïcode 1.tiff", he_picture(700, 500, n=60)[0], mpp=0.25, factors=(1, 4))


@pytest.fixture
def wsipipe(monkeypatch, capfd):
    """Run the command line in this process; returns (exit code, stdout, stderr)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["wsipipe", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capfd.readouterr()
        return stopped.value.code or 0, out, err

    return call


def failures(out):
    with (out / "failed.csv").open(encoding="utf-8") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def run(wsipipe, out, *arguments):
    return wsipipe("run", *arguments, "-o", out, "--model", "classical", "--device", "cpu", "--workers", "0")


def test_run_makes_a_folder_that_verifies_and_a_second_run_does_nothing(wsipipe, slide, tmp_path):
    code, _, err = run(wsipipe, tmp_path, slide)
    assert code == 0, err
    folder = tmp_path / "slide ünïcode 1"
    expected = {"nuclei.geojson.gz", "nuclei.parquet", "labels.ome.zarr", "overview.png", "run.json"}
    assert expected <= {path.name for path in folder.iterdir()}
    assert not (folder / ".work").exists()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    code, _, err = run(wsipipe, tmp_path, slide)
    assert code == 0
    assert "already done" in err
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    for asked in ([folder], [tmp_path], sorted(path for path in tmp_path.iterdir() if path.is_dir())):
        code, out, _ = wsipipe("verify", *asked)
        assert code == 0
        assert out == f"ok {folder}\n"


def test_each_bad_input_is_one_line_and_the_other_slides_are_done(wsipipe, slide, tmp_path):
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "text.svs").write_text("not a slide")
    (bad / "truncated.tiff").write_bytes(slide.read_bytes()[:3000])
    picture = he_picture(300, 200, n=5)[0]
    write_slide(bad / "no mpp.tiff", picture, mpp=None)
    write_slide(bad / "implausible.tiff", picture, mpp=40.0)
    (bad / "sub").mkdir()
    write_slide(bad / "sub" / slide.name, picture)
    out = tmp_path / "out"
    inputs = [slide, *sorted(bad.glob("*.*")), bad / "sub" / slide.name, slide, bad / "gone.svs", bad / "*.ndpi"]
    code, _, err = run(wsipipe, out, *inputs)
    assert code == 1
    assert "Traceback" not in err
    rows = failures(out)
    reasons = {path.rsplit("/", 1)[-1]: row["reason"] for path, row in rows.items() if "sub" not in path}
    assert "not a slide" in reasons["text.svs"]
    assert reasons["truncated.tiff"]
    assert "pass it, e.g. --mpp" in reasons["no mpp.tiff"]
    assert "40" in reasons["implausible.tiff"]
    assert "does not exist" in reasons["gone.svs"]
    assert "no file matches" in reasons["*.ndpi"]
    assert "taken by" in rows[str(bad / "sub" / slide.name)]["reason"]
    assert rows[str(slide)]["status"] == "skipped"
    assert all(err.count(f"FAILED {path}: ") == 1 for path, row in rows.items() if row["status"] == "failed")
    assert (out / "slide ünïcode 1" / "run.json").is_file()


def test_a_tiny_slide_and_a_blank_one_are_normal(wsipipe, tmp_path):
    tiny = write_slide(tmp_path / "tiny.tiff", np.full((16, 16, 3), 120, np.uint8))
    blank = write_slide(tmp_path / "blank.tiff", np.full((300, 400, 3), 244, np.uint8))
    code, _, err = run(wsipipe, tmp_path / "out", tiny, blank, "--tissue", "auto")
    assert code == 0, err
    assert "no tissue was found" in err
    for name in ("tiny", "blank"):
        assert wsipipe("verify", tmp_path / "out" / name)[0] == 0


@pytest.mark.parametrize("name", ["*.svs", "gone.svs", "empty folder"])
def test_inputs_without_a_slide_are_wrong_usage_and_nothing_is_written(wsipipe, tmp_path, name):
    (tmp_path / "empty folder").mkdir()
    code, _, err = run(wsipipe, tmp_path / "out", tmp_path / name)
    assert code == 2
    assert err.count(f"FAILED {tmp_path / name}: ") == 1
    assert err.splitlines()[-1].startswith("wsipipe: no slide among the inputs, see above; nothing was written")
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_not_known_leaves_no_folder(wsipipe, slide, tmp_path):
    assert wsipipe("run", slide, "-o", tmp_path / "out", "--model", "nonsense")[0] == 2
    assert not (tmp_path / "out").exists()


def test_a_file_in_place_of_the_output_folder_is_wrong_usage(wsipipe, slide, tmp_path):
    (tmp_path / "afile").write_text("mine")
    for command in ("run", "plan"):
        code, _, err = wsipipe(command, slide, "-o", tmp_path / "afile", "--model", "classical")
        assert code == 2
        assert err == f"wsipipe: -o must be a folder, this is a file; choose another -o: {tmp_path / 'afile'}\n"
    assert (tmp_path / "afile").read_text() == "mine"


def test_a_tissue_file_of_no_use_is_wrong_usage_and_nothing_is_written(wsipipe, slide, tmp_path):
    (tmp_path / "mask.txt").write_text("no picture")
    (tmp_path / "roi.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    for name, words in (("mask.txt", "tissue mask must be an image"), ("roi.geojson", "at least one Polygon")):
        code, _, err = run(wsipipe, tmp_path / "out", slide, "--tissue", tmp_path / name)
        assert code == 2
        assert words in err
        assert not (tmp_path / "out").exists()


def test_a_passed_mpp_far_from_the_slides_own_is_said_and_flagged(wsipipe, slide, tmp_path):
    _, _, err = run(wsipipe, tmp_path, slide, "--mpp", "0.12")
    assert "mpp 0.12 (from option, the slide says 0.25)" in err
    assert "mpp 0.12 was passed, the slide says 0.25; check which is right" in err


def test_a_refused_run_leaves_the_records_of_the_finished_one(wsipipe, slide, tmp_path):
    run(wsipipe, tmp_path, slide)
    names = ("run.json", "failed.csv", "cohort.csv", "cohort.html")
    before = [(tmp_path / name).read_bytes() for name in names]
    code, _, err = run(wsipipe, tmp_path, slide, "--stain", "macenko", "--tissue", "none")
    assert code == 1
    assert "--stain was qupath, now macenko; --tissue was auto, now none; pass --overwrite" in err
    assert [(tmp_path / name).read_bytes() for name in names] == before
    code, _, _ = run(wsipipe, tmp_path, slide, slide.parent / "gone.svs", "--stain", "macenko")
    assert code == 1
    assert len(failures(tmp_path)) == 2  # a run in which something else went wrong, too, is recorded


def test_what_a_slide_table_holds_beside_its_columns_is_said(wsipipe, slide, tmp_path):
    table = tmp_path / "slides.csv"
    table.write_text(f"path,id,stage\n{slide},a/b,II\n", encoding="utf-8")
    code, out, err = run(wsipipe, tmp_path / "out", table, "--json")
    assert code == 0
    notes = [event["text"] for event in map(json.loads, out.splitlines()) if event["event"] == "Noted"]
    assert notes[:2] == [
        f"columns of the slide table that are not used: stage (known are path, mpp, id): {table}",
        f"id 'a/b' cannot be a folder's name everywhere, the slide's id is 'a_b': {slide}",
    ]
    code, _, err = wsipipe("plan", table, "--model", "classical")
    assert [line.split(":")[0] for line in err.splitlines()] == ["note", "note"]


def test_metadata_that_fits_no_slide_is_said_on_the_terminal(wsipipe, slide, tmp_path):
    study = tmp_path / "study.csv"
    study.write_text("slide,group\nother,A\n", encoding="utf-8")
    _, _, err = run(wsipipe, tmp_path / "out", slide, "--metadata", study)
    assert "note: not in study.csv, so in no group: 1 slide (slide ünïcode 1)" in err
    assert "note: rows of study.csv without a finished slide here: 1 row (other)" in err
    _, _, err = wsipipe("cohort", tmp_path / "out", "--metadata", study)
    assert "note: not in study.csv" in err


def test_an_output_folder_that_cannot_be_written_is_one_line(wsipipe, slide, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = run(wsipipe, tmp_path / "file" / "out", slide)
    assert code == 1
    assert err.startswith("wsipipe: cannot write the output folder")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "nonsense"), "model must be one of"),
        (("--device", "cuda:7"), "--device cuda:7"),
        (("--batch-size", "many"), "--batch-size must be auto or a number"),
        (("--memory", "lots"), "--memory must look like"),
    ],
)
def test_wrong_options_are_one_line_and_exit_code_2(wsipipe, slide, tmp_path, arguments, message):
    code, _, err = wsipipe("run", slide, "-o", tmp_path, *arguments)
    assert code == 2
    assert message in err


def test_json_events_are_one_object_a_line_on_stdout(wsipipe, slide, tmp_path):
    code, out, _ = run(wsipipe, tmp_path, slide, "--json")
    assert code == 0
    events = [json.loads(line) for line in out.splitlines()]
    names = [event["event"] for event in events]
    assert names[0] == "RunStarted"
    assert names[-1] == "RunDone"
    assert events[names.index("SlideDone")]["nuclei"] > 20


def test_a_config_file_holds_the_same_keys_and_unknown_ones_are_refused(wsipipe, slide, tmp_path):
    config = tmp_path / "run.toml"
    out = tmp_path / "out"
    config.write_text(f'out = "{out}"\nmodel = "classical"\nworkers = 0\ngeojson-detail = "none"\n')
    assert wsipipe("run", slide, "--config", config)[0] == 0
    assert not (out / "slide ünïcode 1" / "nuclei.geojson.gz").exists()
    config.write_text('modell = "classical"\n')
    code, _, err = wsipipe("run", slide, "--config", config)
    assert code == 2
    assert "unknown keys modell" in err


def test_plan_tells_what_would_fail_and_writes_nothing(wsipipe, slide, tmp_path):
    (tmp_path / "bad.svs").write_text("no")
    code, out, _ = wsipipe("plan", slide, tmp_path / "bad.svs", "--model", "classical")
    assert code == 1
    lines = out.splitlines()
    assert lines[0].startswith(f"ok {slide}")
    assert "mpp 0.25 (slide)" in lines[0]
    assert lines[1].startswith(f"FAILS {tmp_path / 'bad.svs'}")
    assert lines[1].count("bad.svs") == 1
    assert lines[3].startswith("times are wall time, from ")
    assert "1 slide can run, 1 would fail" in lines[2]
    code, out, _ = wsipipe("plan", slide, "--model", "classical", "--json")
    assert code == 0
    assert json.loads(out.splitlines()[0])["tiles"] >= 1


def test_plan_takes_the_config_of_a_run_and_names_results_of_other_parameters(wsipipe, slide, tmp_path):
    config = tmp_path / "run.toml"
    config.write_text(
        f'out = "{tmp_path / "out"}"\nmodel = "classical"\nworkers = 0\nmemory = "3GB"\nfail-fast = true\n'
    )
    assert wsipipe("run", slide, "--config", config)[0] == 0
    code, out, err = wsipipe("plan", slide, "--config", config)
    assert code == 0, err
    code, out, _ = wsipipe("plan", slide, "--config", config, "--stain", "macenko")
    assert code == 1
    assert "results of other parameters: --stain was qupath, now macenko; pass --overwrite" in out
    assert wsipipe("plan", slide, "--config", config, "--stain", "macenko", "--overwrite")[0] == 0
    config.write_text('modell = "classical"\n')
    assert wsipipe("plan", slide, "--config", config)[0] == 2


def test_models_and_doctor_tell_as_text_and_as_json(wsipipe):
    code, out, _ = wsipipe("models")
    assert code == 0
    assert "classical" in out
    code, out, _ = wsipipe("models", "--json")
    assert {"name", "mpp", "licence", "weights", "default"} <= json.loads(out)[0].keys()
    code, out, _ = wsipipe("doctor")
    assert code == 0
    assert "openslide-python" in out
    facts = json.loads(wsipipe("doctor", "--json")[1])
    assert facts["cpu cores"] >= 1
    plain = facts["a plain run here"]
    assert plain.keys() == {"device", "scheduler", "memory", "model", "precision"}
    assert plain["scheduler"].startswith("local, ")
    assert plain["model"] == DEFAULT_MODEL


def test_demo_prints_a_score_and_where_to_look(wsipipe, tmp_path):
    code, out, err = wsipipe("demo", "-o", tmp_path, "--size", "600", "--model", "classical", "--device", "cpu")
    assert code == 0, err
    assert re.search(r"F1 [01]\.\d{3} at IoU 0.5", out)
    assert "report.html" in out


def test_a_full_disk_at_the_very_end_is_one_line(wsipipe, slide, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "cohort.parquet"))

    monkeypatch.setattr("wsipipe.cohort.rebuild_cohort", refuse)
    code, _, err = run(wsipipe, tmp_path, slide)
    assert code == 1
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("wsipipe: no space left on the disk; free some and run the same command")


def test_out_of_memory_is_one_line_and_verbose_in_a_config_shows_where(wsipipe, slide, tmp_path, monkeypatch, caplog):
    def refuse(*_, **__):
        raise MemoryError

    monkeypatch.setattr("wsipipe.runner.run_slides", refuse)
    config = tmp_path / "run.toml"
    for text, shown in (("verbose = false", False), ("verbose = true", True)):
        config.write_text(text)
        code, _, err = run(wsipipe, tmp_path, slide, "--config", config)
        assert code == 1
        assert err.splitlines()[-1].startswith("wsipipe: out of memory")
        assert bool(caplog.records) == shown


@pytest.mark.parametrize("value", ["0", "-1", "nan", "0,25", "wide"])
def test_an_mpp_that_cannot_be_is_wrong_usage(wsipipe, slide, tmp_path, value):
    code, _, err = run(wsipipe, tmp_path, slide, "--mpp", value)
    assert code == 2
    assert err.startswith("wsipipe: --mpp must be a positive number")
    assert ("write a point: 0.25" in err) == (value == "0,25")


def test_cohort_is_rebuilt_from_finished_folders(wsipipe, slide, tmp_path):
    run(wsipipe, tmp_path, slide)
    (tmp_path / "cohort.csv").unlink()
    code, out, _ = wsipipe("cohort", tmp_path)
    assert code == 0
    assert out.startswith("1 slide: ")
    assert (tmp_path / "cohort.csv").is_file()


def test_folders_and_files_that_are_not_there_are_wrong_usage(wsipipe, slide, tmp_path):
    code, _, err = wsipipe("run", slide, "-o", tmp_path / "out", "--tissue", tmp_path / "mask.png")
    assert code == 2
    assert "--tissue must be auto, none or an existing" in err
    assert not (tmp_path / "out").exists()
    code, _, err = wsipipe("cohort", slide.parent)
    assert code == 2
    assert "no slide folder lies in" in err
    assert not (slide.parent / "cohort.csv").exists()
    code, _, err = wsipipe("verify", tmp_path / "nowhere")
    assert code == 2
    assert "no such folder" in err


def test_a_slide_table_with_other_separators_names_what_was_found(wsipipe, slide, tmp_path):
    table = tmp_path / "slides.csv"
    table.write_text(f"path;mpp\n{slide};0.25\n", encoding="utf-8")
    code, _, err = run(wsipipe, tmp_path / "out", table)
    assert code == 2
    assert "separated by commas; found 'path;mpp'" in err


def test_plan_takes_every_option_that_decides_a_slides_results():
    """Otherwise it would call a folder foreign that a run with the same options goes on with."""
    only_run = set(signature(run_command).parameters) - set(signature(plan_command).parameters)
    assert only_run == {"scheduler", "fail_fast", "metadata", "patient", "group"}
