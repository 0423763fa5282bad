"""Four training steps of the smallest model on drawn data -> frozen losses. `pytest --update-golden` rewrites them."""

from pathlib import Path

import torch
from support_amasam import changed, run_recipe, write_project
from support_golden import compare_golden

from amasam.recipe import load_recipe
from amasam.trainlog import read_log

TERMS = ("loss", "fine", "coarse", "dense", "distance", "boundary", "domain")
TOLERANCE = 1e-3  # relative; other builds of torch add in another order


def test_losses_of_the_first_steps_are_as_frozen(tmp_path, request):
    table = {
        "stage": "ama",
        "model": {"adapters": True},
        "align": {"align": "cgrl"},
        "optim": {"steps": 4},
        "watch": {"validate_every": 0},
    }
    config = changed(load_recipe(write_project(tmp_path)), table)
    threads = torch.get_num_threads()
    try:
        run_recipe(config, tmp_path, tmp_path / "run")
    finally:
        torch.set_num_threads(threads)
    lines = [line for line in read_log(tmp_path / "run" / "log.jsonl") if line["kind"] == "train"]
    losses = [{name: line[name] for name in TERMS} for line in lines]
    path = Path(__file__).with_name("amasam.losses.json")
    compare_golden(path, losses, update=request.config.getoption("--update-golden"), tolerance=TOLERANCE)
