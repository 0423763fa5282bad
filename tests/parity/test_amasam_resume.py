"""A run that was interrupted and continued ends with the same bits as one that never stopped."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support_amasam import changed, options_for, run_recipe, write_project

from amasam.recipe import load_recipe
from amasam.train import train
from amasam.trainlog import read_log
from amasam.trainrun import prepare_run
from wsipipe.errors import CheckpointError

CLOCKS = {"seconds", "images_per_s"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    write_project(folder)
    return folder


@pytest.fixture(scope="module")
def whole(project: Path) -> Path:
    run_recipe(load_recipe(project / "recipe.toml"), project, project / "whole")
    return project / "whole"


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, averages, optimiser, log: all the same bits, apart from clocks."""
    states = [torch.load(run / "state.pt", weights_only=True) for run in (one, other)]
    for part in ("model", "optimiser", "ema"):
        assert_same(states[0][part], states[1][part])
    assert states[0]["progress"][:3] == states[1]["progress"][:3]
    logs = [read_log(run / "log.jsonl") for run in (one, other)]
    assert [without_clocks(line) for line in logs[0]] == [without_clocks(line) for line in logs[1]]
    for name in ("best.safetensors", "last.safetensors"):
        assert_same(*(load_file(run / name) for run in (one, other)))


def assert_same(one: object, other: object) -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    else:
        assert one == other


def without_clocks(line: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in line.items() if key not in CLOCKS}


def test_stopped_twice_equals_never_stopped(project: Path, whole: Path) -> None:
    config, options = load_recipe(project / "recipe.toml"), options_for(project)
    for step in (1, 5, 6):
        run = prepare_run(config, project / "steps", options)
        is_finished = train(run, options, should_stop=lambda run=run, step=step: run.progress.step == step)
        assert is_finished == (step == 6)
    assert_same_run(whole, project / "steps")


def test_work_since_the_last_save_is_repeated_exactly(project: Path, whole: Path) -> None:
    class KilledError(Exception):
        pass

    def die(status: object) -> None:
        if status.step == 5:  # one step after the save at 4, one before that at 6
            raise KilledError

    config = load_recipe(project / "recipe.toml")
    with pytest.raises(KilledError):
        run_recipe(config, project, project / "killed", on_step=die)
    assert [line["step"] for line in read_log(project / "killed" / "log.jsonl")][-1] == 5
    run_recipe(config, project, project / "killed")
    assert_same_run(whole, project / "killed")


def test_data_threads_change_nothing(project: Path, whole: Path) -> None:
    config = changed(load_recipe(project / "recipe.toml"), {"data": {"workers": 2}})
    run_recipe(config, project, project / "threads")
    assert_same_run(whole, project / "threads")


def test_a_killed_process_continues(project: Path, whole: Path) -> None:
    out = project / "process"
    command = [sys.executable, "-m", "amasam", "train", str(project / "recipe.toml"), "--out", str(out)]
    command += ["--data", str(project), "--threads", "1", "--device", "cpu"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not (out / "state.pt").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode != 0
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, timeout=240)
    assert_same_run(whole, out)


def test_half_a_resume_point_is_refused_in_one_line(project: Path, whole: Path, tmp_path: Path) -> None:
    (tmp_path / "state.pt").write_bytes((whole / "state.pt").read_bytes()[:2000])
    with pytest.raises(CheckpointError, match="cannot read resume point") as caught:
        prepare_run(load_recipe(project / "recipe.toml"), tmp_path, options_for(project))
    assert "\n" not in str(caught.value)
