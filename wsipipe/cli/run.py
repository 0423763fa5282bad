"""`wsipipe run`: the main job."""

import sys
from typing import Annotated

import typer

from wsipipe.cli.arguments import (
    AllowUpsampling,
    Config,
    Device,
    Group,
    Json,
    Metadata,
    Model,
    Mpp,
    Out,
    Patient,
    Slides,
    Tissue,
    Verbose,
)
from wsipipe.errors import UsageError
from wsipipe.options import (
    DEFAULT_MODEL,
    DEFAULT_OUT,
    GeoJsonDetail,
    RunOptions,
    StainChoice,
    parse_memory,
    resolve_device,
)


def run(
    slides: Slides,
    out: Out = DEFAULT_OUT,
    model: Model = DEFAULT_MODEL,
    device: Device = "auto",
    mpp: Mpp = None,
    tissue: Tissue = "auto",
    batch_size: Annotated[str, typer.Option("--batch-size", help="Tiles per model call: auto or a number.")] = "auto",
    memory: Annotated[str | None, typer.Option("--memory", help="Memory that the run may use, e.g. 16GB.")] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", help="CPU tasks at once on this machine; 0 = one after another.", min=0)
    ] = None,
    scheduler: Annotated[
        str,
        typer.Option(
            "--scheduler", help="local, the address of a Dask scheduler, or a TOML file that names a cluster."
        ),
    ] = "local",
    geojson_detail: Annotated[
        GeoJsonDetail,
        typer.Option("--geojson-detail", help="shape: six shape measurements; full: all; none: no GeoJSON."),
    ] = "shape",
    stain: Annotated[
        StainChoice, typer.Option("--stain", help="Stain vectors: QuPath's H&E defaults, or estimated per slide.")
    ] = "qupath",
    allow_upsampling: AllowUpsampling = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace earlier results of these slides.")] = False,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first slide that fails.")] = False,
    metadata: Metadata = None,
    patient: Patient = None,
    group: Group = None,
    json: Json = False,
    config: Config = None,
    verbose: Verbose = False,
) -> None:
    """Find every nucleus of every slide.

    Example: wsipipe run slides/*.svs -o results

    Example: wsipipe run slides/ -o results --metadata study.csv

    Each slide becomes a folder with report.html, nuclei.geojson.gz (drag it into QuPath), nuclei.parquet,
    labels.ome.zarr, overview.png, quality.parquet and run.json; cohort.html sums them up. A run that was stopped is
    continued by the same command. Exit code 0: all slides done; 1: some failed (listed in failed.csv); 2: wrong usage.
    """
    from wsipipe.cli.progress import open_sink
    from wsipipe.cli.stopping import stoppable
    from wsipipe.metadata import read_metadata
    from wsipipe.runner import run_slides
    from wsipipe.slidelist import list_slides

    options = RunOptions(
        out=out,
        model=model,
        device=_device(device, scheduler),
        tissue=tissue,
        batch_size=_parse_batch(batch_size),
        memory=parse_memory(memory) if memory else None,
        workers=workers,
        scheduler=scheduler,
        geojson_detail=geojson_detail,
        stain=stain,
        allow_upsampling=allow_upsampling,
        overwrite=overwrite,
        fail_fast=fail_fast,
        metadata=metadata,
        patient=patient,
        groups=tuple(group or ()),
        command=tuple(sys.argv),
    )
    if metadata is not None:
        read_metadata(metadata, patient=patient, groups=options.groups)  # a mistake shows before hours of work
    found = list_slides(slides, mpp=mpp)
    sink = open_sink(json=json)
    with stoppable():
        try:
            summary = run_slides(found, options, sink)
        finally:
            sink.close()
    raise typer.Exit(summary.exit_code if found.jobs else 2)


def _device(text: str, scheduler: str) -> str:
    """Check the device where this machine does the work; plain "cuda" stands for all of its devices."""
    if scheduler != "local":
        return text
    resolved = resolve_device(text)
    return "cuda" if resolved.startswith("cuda") and text in ("auto", "cuda") else resolved


def _parse_batch(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdigit():
        raise UsageError(f"--batch-size must be auto or a number >= 1, got {text!r}")
    return int(text)
