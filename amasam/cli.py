"""`python -m amasam`: train, predict, evaluate, tune, export, info; heavy imports only inside the commands."""

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from amasam.shipped import find_recipe, workflows_folder
from wsipipe.errors import UsageError, WsipipeError

if TYPE_CHECKING:
    from amasam.segmenter import Precision

app = typer.Typer(
    name="amasam",
    help="AMA-SAM: train, evaluate and use nuclei segmentation models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

DATA_VARIABLE = "WSIPIPE_DATA"
DataOption = Annotated[
    Path | None,
    typer.Option("--data", help=f"Folder that the data sets lie in; default: the variable {DATA_VARIABLE}."),
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu or cuda[:N].")]
DescriptionsOption = Annotated[
    Path | None, typer.Option(help="Folder of the TOML files that describe data sets; default: those that are shipped.")
]
PrecisionOption = Annotated[str, typer.Option(help="auto, fp32 or bf16.")]
ThreadsOption = Annotated[int, typer.Option(help="CPU threads; 0 = as many as there are cores.")]
VerboseOption = Annotated[bool, typer.Option("-v", "--verbose", help="Log more, and whole tracebacks.")]


@app.command()
def train(
    recipe: Annotated[
        Path, typer.Argument(help="TOML file, or name of a shipped recipe; keys: amasam/trainconfig.py.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder of the run.")],
    data: DataOption = None,
    resume: Annotated[str, typer.Option(help="auto continues the run in --out; never refuses to.")] = "auto",
    threads: ThreadsOption = 0,
    max_minutes: Annotated[float, typer.Option(help="Stop cleanly after this time; 0 = never.")] = 0.0,
    device: DeviceOption = "auto",
    seed: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    steps: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    init: Annotated[str | None, typer.Option(help="Checkpoint to start from, instead of the recipe's.")] = None,
    verbose: VerboseOption = False,
) -> None:
    """Train a recipe; interrupted at any moment, the same command continues it."""
    from dataclasses import replace

    from amasam.progressbar import Stopper, show_download, show_training
    from amasam.recipe import load_recipe
    from amasam.train import train as run_training
    from amasam.trainrun import RunOptions, leave_processes, prepare_run

    if resume not in ("auto", "never"):
        raise UsageError(f"--resume must be auto or never, got {resume!r}")
    recipe = find_recipe(recipe)
    config = load_recipe(recipe)
    config = replace(
        config,
        seed=config.seed if seed is None else seed,
        init=config.init if init is None else init,
        optim=config.optim if steps is None else replace(config.optim, steps=steps),
    )
    options = RunOptions(
        data_root=_data_root(data),
        descriptions=recipe.resolve().parent / "data",
        resume="auto" if resume == "auto" else "never",
        threads=threads,
        max_minutes=max_minutes,
        device=_device(device),
    )
    with show_download("SAM's weights") as show_bytes:
        run = prepare_run(config, out, options, on_download=show_bytes)
    with show_training(run.progress.step, run.schedule.steps, is_shown=run.process.is_first) as show, Stopper() as stop:
        is_finished = run_training(run, options, on_step=show, should_stop=stop)
    leave_processes()
    if run.process.is_first:
        where = "finished" if is_finished else "stopped; the same command continues"
        typer.echo(f"{out}: {run.progress.step} of {run.schedule.steps} steps, {where}", err=True)


@app.command()
def fetch_base(
    encoder: Annotated[str, typer.Argument(help="vit_b, vit_l, vit_h or tiny_vit.")],
    verbose: VerboseOption = False,
) -> None:
    """Download SAM's official weights of an encoder into the cache, unless they are there; print their path."""
    from amasam.download import fetch_base
    from amasam.progressbar import show_download

    with show_download("SAM's weights") as show:
        typer.echo(fetch_base(encoder, progress=show))


@app.command()
def predict(
    model: Annotated[str, typer.Option("--model", help="Name of a model, or the path of its weights.")],
    images: Annotated[Path, typer.Option("--images", help="Folder of images of any size.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for <stem>.png, instance ids at the image's own size.")],
    mpp: Annotated[
        float | None, typer.Option(help="Micrometres per pixel of the images; default: the model's.")
    ] = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 0,
    verbose: VerboseOption = False,
) -> None:
    """Write the nuclei of every image of a folder; exit code 1 when some image failed."""
    from amasam.entries import find_segmenter
    from amasam.predict import predict_folder
    from amasam.progressbar import show_images

    _set_threads(threads)
    segmenter = find_segmenter(model, device=_device(device))
    with show_images(images) as show:
        failures = predict_folder(segmenter, images, out, mpp=mpp, on_image=show)
    for failure in failures:
        typer.echo(f"amasam: {failure.path.name}: {failure.reason}", err=True)
    if failures:
        typer.echo(f"amasam: {len(failures)} images failed", err=True)
        raise typer.Exit(1)


@app.command()
def evaluate(
    model: Annotated[list[str], typer.Option("--model", help="Name or weights file; repeat to compare models.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for tables and overlays.")],
    sets: Annotated[list[str], typer.Option("--set", help="Data set; repeat for several.")] = ["monuseg_train"],  # noqa: B006
    part: Annotated[str, typer.Option(help="validation, test, train or all: which patients.")] = "validation",
    data: DataOption = None,
    descriptions: DescriptionsOption = None,
    mpp_scale: Annotated[float, typer.Option(help="Evaluate images made coarser by this factor.")] = 1.0,
    ablate: Annotated[list[str], typer.Option(help="Also without: zero_prompt, zero_f_mask, freeze_tokens.")] = [],  # noqa: B006
    precision: PrecisionOption = "auto",
    device: DeviceOption = "auto",
    threads: ThreadsOption = 0,
    verbose: VerboseOption = False,
) -> None:
    """Score models on annotated images: tables with intervals, paired tests, the paper's numbers, overlays."""
    from amasam.evalrun import EvaluationRequest, run_evaluation
    from amasam.progressbar import show_count

    _set_threads(threads)
    request = EvaluationRequest(
        models=tuple(model),
        sets=tuple(sets),
        part=part,
        descriptions=descriptions_folder(descriptions),
        data_root=_data_root(data),
        mpp_scale=mpp_scale,
        ablations=tuple(ablate),
        precision=_precision(precision),
        device=_device(device),
    )
    with show_count("images") as show:
        report = run_evaluation(request, out, on_image=show)
    typer.echo(report)


@app.command()
def tune(
    model: Annotated[Path, typer.Option("--model", help="Weights file.")],
    out: Annotated[Path, typer.Option("--out", help="JSON file for the best post-processing and all that were tried.")],
    sets: Annotated[list[str], typer.Option("--set", help="Data set; repeat for several.")] = ["monuseg_train"],  # noqa: B006
    data: DataOption = None,
    descriptions: DescriptionsOption = None,
    precision: PrecisionOption = "auto",
    device: DeviceOption = "auto",
    threads: ThreadsOption = 0,
    verbose: VerboseOption = False,
) -> None:
    """Tune the post-processing on the validation patients of sets."""
    from amasam.evalrun import TuningRequest, run_tuning
    from amasam.progressbar import show_count

    _set_threads(threads)
    request = TuningRequest(
        model=model,
        sets=tuple(sets),
        descriptions=descriptions_folder(descriptions),
        data_root=_data_root(data),
        precision=_precision(precision),
        device=_device(device),
    )
    with show_count("settings") as show:
        best = run_tuning(request, out, on_try=lambda tried: show(f"AJI {tried.aji:.4f} PQ {tried.pq:.4f}"))
    typer.echo(f"AJI {best.aji:.4f}  PQ {best.pq:.4f}  {best.post}")


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="Checkpoint of a training run.")],
    out: Annotated[Path, typer.Option("--out", help="The file to ship.")],
    post: Annotated[Path | None, typer.Option(help="JSON file of `amasam tune`; its best setting is stored.")] = None,
) -> None:
    """Write a checkpoint to ship: float16, without the parts that only training needs, with tuned post-processing."""
    from amasam.loading import export_checkpoint

    sha256 = export_checkpoint(model, out, post)
    typer.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB, SHA-256 {sha256}")


@app.command()
def info(
    checkpoint: Annotated[Path, typer.Argument(help="Weights file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
) -> None:
    """Print what a checkpoint holds."""
    from amasam.loading import describe_checkpoint

    typer.echo(describe_checkpoint(checkpoint, as_json=as_json))


def descriptions_folder(chosen: Path | None) -> Path:
    """Return the folder of the data sets' descriptions; None = the shipped ones."""
    return chosen or workflows_folder() / "data"


def _set_threads(threads: int) -> None:
    if threads:
        import torch

        torch.set_num_threads(threads)


def _precision(precision: str) -> "Precision | None":
    if precision not in ("auto", "fp32", "bf16"):
        raise UsageError(f"--precision must be auto, fp32 or bf16, got {precision!r}")
    return None if precision == "auto" else "fp32" if precision == "fp32" else "bf16"


def _device(device: str) -> str:
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"--device {device} asked for, but torch sees no CUDA device")
    return device


def _data_root(data: Path | None) -> Path:
    root = data or (Path(os.environ[DATA_VARIABLE]) if DATA_VARIABLE in os.environ else None)
    if root is None:
        raise UsageError(f"no data folder; pass --data or set {DATA_VARIABLE}")
    if not root.is_dir():
        raise UsageError(f"data folder does not exist: {root}")
    return root


def main() -> None:
    """Run the command line; errors become one line and an exit code: 1 failed, 2 wrong usage."""
    verbose = "-v" in sys.argv or "--verbose" in sys.argv
    level = logging.DEBUG if verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s")
    for noisy in ("numba", "matplotlib", "PIL"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        app()
    except WsipipeError as error:
        if verbose:
            raise
        print(f"amasam: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except KeyboardInterrupt:
        print("amasam: stopped", file=sys.stderr)
        sys.exit(130)
