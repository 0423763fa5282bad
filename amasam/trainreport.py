"""What a run shows and hands over: validations, weights, curves, pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from amasam import rundir
from amasam.checkpoint import Facts, save_checkpoint
from amasam.curves import draw_curves
from amasam.data.samples import DataSet
from amasam.overlay import TRUTH_RGB, draw_comparison, draw_outlines, side_by_side, stack_rows, write_rgb
from amasam.postprocess import PostConfig
from amasam.recipe import config_from_table
from amasam.segmenter import AmaSamSegmenter, ModelFacts
from amasam.trainlog import TrainLog
from amasam.trainrun import Run
from amasam.validate import Validation, spread_choice, validate

PICTURE_PX = 512  # height of a panel


def report_validation(run: Run, log: TrainLog) -> dict[str, float]:
    """Validate the averaged weights, log the means, and keep the weights if they are the best so far."""
    samples = spread_choice(run.data.validation, run.config.watch.validate_images)
    with run.ema.swapped():
        result = validate(_segmenter(run), samples)
        run.model.train()
    log.write("validation", run.progress.step, result.means | result.by_domain)
    score = result.score(run.config.watch.select)
    if score > run.progress.best:
        run.progress.best, run.progress.best_step = score, run.progress.step
        export_weights(run, run.out / rundir.BEST)
    _draw_validation(run, result)
    if run.progress.step < run.schedule.steps:  # at the end they are drawn anyway
        draw_curves(run.out / rundir.LOG, run.out / "curves.png")
    return result.means


def export_weights(run: Run, path: Path) -> None:
    """Write the averaged weights as a checkpoint with everything known about their training."""
    config, progress = run.config, run.progress
    training = {
        "recipe": config.as_table(),
        "recipe_key": rundir.recipe_key(config),
        "steps": progress.step,
        "best_validation": progress.best,
        "git_commit": rundir.git_commit(),
        "post": config_from_table(PostConfig, config.post, "post").as_table(),
    }
    rows = tuple({"name": name, **about} for name, about in run.described["training"].items())
    facts = Facts(mpp=config.data.mpp, data=rows, training=training, licence=weights_licence(run.data.sets))
    with run.ema.swapped():
        save_checkpoint(path, run.model, facts, whole=run.schedule.trains_all)


def weights_licence(sets: Sequence[DataSet]) -> str:
    """Say in one line what the licences of the training data make of the weights."""
    terms = "; ".join(f"{data.name}: {data.licence}" for data in sets)
    return f"Apache-2.0 for the code; the weights carry the terms of their training data ({terms})"


def write_pictures(run: Run) -> None:
    """Draw the curves, and the first training patches as the network saw them."""
    draw_curves(run.out / rundir.LOG, run.out / "curves.png")
    batch = run.sampler.batch(0)
    rows = []
    for image, labels, maps in zip(batch.images, batch.labels, batch.maps, strict=True):
        rgb = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
        planes = [(plane.float() * 255).to(torch.uint8).numpy() for plane in maps]
        rows.append(side_by_side([rgb, draw_outlines(rgb, labels.numpy(), TRUTH_RGB), *planes]))
    write_rgb(run.out / "patches.png", stack_rows(rows))


def _segmenter(run: Run) -> AmaSamSegmenter:
    """Wrap the model as it is, in eval mode, at the precision that it trains with."""
    post = config_from_table(PostConfig, run.config.post, "post")
    facts = ModelFacts(name="training", mpp=run.config.data.mpp, sha256="", licence="", post=post)
    run.model.eval()
    return AmaSamSegmenter(run.model, facts, device=run.settings.device, precision=run.config.optim.precision)


def _draw_validation(run: Run, result: Validation) -> None:
    samples = spread_choice(run.data.validation, run.config.watch.validate_images)
    rows = [
        draw_comparison(sample.image, sample.labels, labels, height=PICTURE_PX)
        for sample, labels in zip(samples[:4], result.labels[:4], strict=True)
    ]
    write_rgb(run.out / "validation.png", stack_rows(rows))
