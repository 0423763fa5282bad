"""Training on the real annotated nuclei: the smallest model learns in minutes, every ablation recipe starts."""

from dataclasses import replace
from pathlib import Path

import pytest
from support_amasam import changed

from amasam.evalrun import EvaluationRequest, run_evaluation
from amasam.recipe import load_recipe
from amasam.train import train
from amasam.trainlog import read_log
from amasam.trainrun import RunOptions, prepare_run

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
SMALL = {
    "preset": "test",
    "optim": {"steps": 1, "batch": 2, "precision": "fp32"},
    "data": {"patch": 64, "workers": 0},
    "watch": {"validate_images": 1, "log_every": 1},
}

pytestmark = pytest.mark.realdata


def options_for(data_root: Path) -> RunOptions:
    return RunOptions(data_root=data_root, descriptions=WORKFLOWS / "data", threads=1)


@pytest.mark.slow
def test_the_quick_recipe_learns_resumes_and_is_evaluated(data_root: Path, tmp_path: Path) -> None:
    config = changed(load_recipe(WORKFLOWS / "test-quick.toml"), {"optim": {"steps": 120}})
    options = options_for(data_root)
    out = tmp_path / "run"
    for last in (70, 120):
        run = prepare_run(config, out, options)
        train(run, options, should_stop=lambda run=run, last=last: run.progress.step == last)
    lines = read_log(out / "log.jsonl")
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    assert losses[-1] < 0.8 * losses[0]
    assert [line["step"] for line in lines if line["kind"] == "train"] == [20, 40, 60, 80, 100, 120]
    request = EvaluationRequest(
        models=(str(out / "best.safetensors"),),
        sets=("monuseg_train",),
        part="validation",
        descriptions=WORKFLOWS / "data",
        data_root=data_root,
    )
    seen: list[str] = []
    table = run_evaluation(request, tmp_path / "evaluation", on_image=seen.append)
    assert len(seen) == 6
    assert "paper: AMA-SAM +" in table
    assert len(list((tmp_path / "evaluation").glob("*.png"))) == 3


@pytest.mark.parametrize("path", sorted(WORKFLOWS.glob("ablation-*.toml")), ids=lambda path: path.stem)
def test_every_ablation_recipe_takes_a_step(path: Path, data_root: Path, tmp_path: Path) -> None:
    config = load_recipe(path)
    if len(config.data.auxiliary) > 1:  # one auxiliary set shows as much, and reads faster
        config = replace(config, data=replace(config.data, auxiliary=config.data.auxiliary[:1]))
    options = options_for(data_root)
    run = prepare_run(changed(config, SMALL), tmp_path / "run", options)
    assert train(run, options)
    line = read_log(tmp_path / "run" / "log.jsonl")[0]
    watches = bool(config.data.auxiliary) and (config.align.align != "none" or config.align.probe)
    assert ("accuracy_primary" in line) == watches
