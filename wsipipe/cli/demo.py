"""`wsipipe demo`: the main job on a drawn slide whose nuclei are known."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from wsipipe.cli.arguments import Device, Model
from wsipipe.options import DEFAULT_MODEL, RunOptions, resolve_device


def demo(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the slide and the results.")] = Path(
        "wsipipe-demo"
    ),
    model: Model = DEFAULT_MODEL,
    device: Device = "auto",
    size: Annotated[int, typer.Option("--size", help="Side of the drawn slide in px.", min=256)] = 3000,
    seed: Annotated[int, typer.Option("--seed", help="Another seed draws another slide.")] = 0,
) -> None:
    """Draw an H&E-like slide with known nuclei, run the main job on it and print the score against the truth.

    Example: wsipipe demo
    """
    from wsipipe.cli.progress import open_sink
    from wsipipe.demo import draw_slide, score_demo
    from wsipipe.drawnslide import DemoSpec
    from wsipipe.runner import run_slides
    from wsipipe.slidelist import list_slides

    out.mkdir(parents=True, exist_ok=True)
    name = f"drawn-{size}-{seed}"
    slide, truth = out / f"{name}.svs", out / f"{name}-truth.zarr"
    if not (slide.exists() and truth.exists()):
        drawn = draw_slide(slide, truth, DemoSpec(width=size, height=size, seed=seed))
        typer.echo(f"drew {slide}: {size} x {size} px, {drawn.n_nuclei} nuclei", err=True)
    options = RunOptions(
        out=out / "results", model=model, device=resolve_device(device), overwrite=True, command=tuple(sys.argv)
    )
    sink = open_sink(json=False)
    try:
        summary = run_slides(list_slides([str(slide)], mpp=None), options, sink)
    finally:
        sink.close()
    if summary.exit_code == 0:
        folder = summary.results[0].folder
        scores = score_demo(truth, folder / "labels.ome.zarr")
        typer.echo(
            f"score against the truth: F1 {scores.f1:.3f} at IoU 0.5, PQ {scores.pq:.3f}, AJI {scores.aji:.3f}, "
            f"{scores.n_found} nuclei found of {scores.n_truth} ({100 * scores.count_error:+.1f} %)"
        )
        typer.echo(f"look at {folder / 'report.html'}; drag {slide} and {folder / 'nuclei.geojson.gz'} into QuPath")
    raise typer.Exit(summary.exit_code)
