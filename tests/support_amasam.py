"""A drawn data set on disk, a recipe that trains on it in seconds, and a trained run."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from support_drawn import draw_set

from amasam.recipe import config_from_table
from amasam.train import train
from amasam.trainconfig import TrainConfig
from amasam.trainrun import Run, RunOptions, prepare_run

RECIPE = """
stage = "pretrain"
trainable = "all"
preset = "test"
positions = true
model = { adapters = false }
post = { min_area_um2 = 4.0 }
data = { primary = "drawn", auxiliary = ["other"], patch = 64, workers = 0 }
optim = { lr = 3e-3, steps = 6, batch = 2, ema = 0.9 }
loss = { fine = "bce_dice", maps = 2.0 }
prompt = { self_weight = 0.4, truth = 0.2, subset = 0.3, none = 0.1 }
align = { align = "none" }
watch = { log_every = 1, save_every = 2, validate_every = 3, gradients_every = 2 }
"""


def write_project(folder: Path) -> Path:
    """Write images/, labels/ and descriptions of two sets, and recipe.toml; return the recipe's path."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for name, held_out in (("drawn", '["drawn_00"]'), ("other", "[]")):
        for sample in draw_set(name, count=3, size=96, n_nuclei=10).samples:
            for kind, pixels in (("images", sample.image[..., ::-1]), ("labels", sample.labels.astype(np.uint16))):
                (folder / name / kind).mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(folder / name / kind / f"{sample.name}.png"), pixels)
        text = f'name = "{name}"\nfolder = "{name}"\nmpp = 0.25\npatient = ".*"\nvalidation = {held_out}\n'
        (folder / "data" / f"{name}.toml").write_text(text)
    recipe = folder / "recipe.toml"
    recipe.write_text(RECIPE)
    return recipe


def options_for(folder: Path, **changes: object) -> RunOptions:
    """Return options for a project of `write_project`."""
    return replace(RunOptions(data_root=folder, descriptions=folder / "data", threads=1), **changes)


def run_recipe(config: TrainConfig, folder: Path, out: Path, **stop: object) -> Run:
    """Train a recipe, possibly only until `should_stop`."""
    options = options_for(folder)
    run = prepare_run(config, out, options)
    train(run, options, **stop)
    return run


def changed(config: TrainConfig, table: dict[str, object]) -> TrainConfig:
    """Return a recipe with values replaced; tables of a section are merged into it."""
    whole = config.as_table()
    for key, value in table.items():
        whole[key] = {**whole[key], **value} if isinstance(value, dict) else value
    return config_from_table(TrainConfig, whole, "test")
