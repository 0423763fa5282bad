"""Training on two processes: the smallest model on drawn data."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support_amasam import write_project

from amasam.checkpoint import load_checkpoint
from amasam.trainlog import read_log


@pytest.mark.slow
def test_two_processes_of_torchrun_train_one_model(tmp_path: Path) -> None:
    recipe = write_project(tmp_path)
    out = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "amasam"]
    command += ["train", str(recipe), "--out", str(out), "--data", str(tmp_path), "--device", "cpu", "--threads", "1"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "run.json").read_text())["processes"] == 2
    steps = [line["step"] for line in read_log(out / "log.jsonl") if line["kind"] == "train"]
    assert steps == list(range(1, 7))
    load_checkpoint(out / "last.safetensors")
