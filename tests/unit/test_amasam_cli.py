"""The command line: options, exit codes, one-line errors."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from support_amasam import write_project

from amasam import cli
from wsipipe.testing import ToySegmenter


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run `amasam ARGUMENTS`; return the exit code."""
    monkeypatch.setattr("sys.argv", ["amasam", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amasam.entries.find_segmenter", lambda *args, **options: ToySegmenter(tile=128))
    monkeypatch.setattr("amasam.evalrun.find_segmenter", lambda *args, **options: ToySegmenter(tile=128))


def test_train_then_info_export_and_tune(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_project(tmp_path)
    out = tmp_path / "run"
    assert run(monkeypatch, "train", recipe, "--out", out, "--data", tmp_path, "--steps", 2, "--threads", 1) == 0
    assert "2 of 2 steps, finished" in capsys.readouterr().err
    assert run(monkeypatch, "info", out / "last.safetensors") == 0
    assert "foreground, distance, boundary" in capsys.readouterr().out
    target = tmp_path / "ship.safetensors"
    assert run(monkeypatch, "export", out / "last.safetensors", "--out", target) == 0
    assert "SHA-256" in capsys.readouterr().out
    assert run(monkeypatch, "info", target, "--json") == 0
    assert json.loads(capsys.readouterr().out)["has_training_parts"] is False


def test_predict_writes_labels_and_names_what_failed(
    toy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "good.png"), np.full((20, 30, 3), 240, np.uint8))
    (tmp_path / "in" / "bad.png").write_text("no image")
    code = run(monkeypatch, "predict", "--model", "toy", "--images", tmp_path / "in", "--out", tmp_path / "out")
    assert code == 1
    assert "bad.png: not an image" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.png"]
    (tmp_path / "in" / "bad.png").unlink()
    arguments = ("--images", tmp_path / "in", "--out", tmp_path / "out", "--mpp", 0.5)
    assert run(monkeypatch, "predict", "--model", "toy", *arguments) == 0


def test_evaluate_prints_the_table(
    toy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_project(tmp_path)
    monkeypatch.setenv("WSIPIPE_DATA", str(tmp_path))
    arguments = ["--set", "drawn", "--descriptions", tmp_path / "data", "--mpp-scale", 2]
    assert run(monkeypatch, "evaluate", "--model", "toy", "--out", tmp_path / "out", *arguments) == 0
    assert "| toy |" in capsys.readouterr().out
    assert (tmp_path / "out" / "evaluation.json").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train", "none.toml", "--out", "x", "--data", "."], 2, "cannot read recipe"),
        (["train", "none.toml", "--out", "x", "--data", ".", "--resume", "maybe"], 2, "--resume must be"),
        (["predict", "--model", "no-such-model", "--images", ".", "--out", "x"], 2, "model must be one of"),
        (["predict", "--model", "x.safetensors", "--images", ".", "--out", "x"], 2, "no such weights file"),
        (["info", "none.safetensors"], 1, "no such weights file"),
        (["evaluate", "--model", "x", "--out", "y", "--data", "/nowhere"], 2, "data folder does not exist"),
        (["tune", "--model", "x", "--out", "y"], 2, "no data folder"),
        (["tune", "--model", "x", "--out", "y", "--data", ".", "--precision", "fp8"], 2, "--precision must be"),
        (["train"], 2, "Missing argument"),
    ],
)
def test_errors_are_one_line_with_the_right_code(
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WSIPIPE_DATA", raising=False)
    assert run(monkeypatch, *arguments) == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_gpu_that_is_not_there_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    arguments = ["--images", tmp_path, "--out", tmp_path, "--device", "cuda"]
    assert run(monkeypatch, "predict", "--model", "classical", *arguments) == 2
    assert "torch sees no CUDA device" in capsys.readouterr().err
