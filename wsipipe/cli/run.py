"""`wsipipe run`: the main job."""

import sys
from typing import Annotated

import typer

from wsipipe.cli.arguments import (
    AllowUpsampling,
    BatchSize,
    Config,
    Detail,
    Device,
    Group,
    Json,
    Memory,
    Metadata,
    Model,
    Mpp,
    Out,
    Overwrite,
    Patient,
    Slides,
    Stain,
    StainNorm,
    Tissue,
    Verbose,
    Workers,
)
from wsipipe.options import (
    DEFAULT_MODEL,
    DEFAULT_OUT,
    RunOptions,
    parse_batch,
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
    batch_size: BatchSize = "auto",
    memory: Memory = None,
    workers: Workers = None,
    scheduler: Annotated[
        str,
        typer.Option(
            "--scheduler", help="local, the address of a Dask scheduler, or a TOML file that names a cluster."
        ),
    ] = "local",
    geojson_detail: Detail = "shape",
    stain: Stain = "qupath",
    stain_norm: StainNorm = "none",
    allow_upsampling: AllowUpsampling = False,
    overwrite: Overwrite = False,
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
    continued by the same command. Exit code 0: all slides done; 1: some failed (listed in failed.csv); 2: wrong usage,
    such as no slide among the inputs; nothing is written then.
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
        batch_size=parse_batch(batch_size),
        memory=parse_memory(memory) if memory else None,
        workers=workers,
        scheduler=scheduler,
        geojson_detail=geojson_detail,
        stain=stain,
        stain_norm=stain_norm,
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
    raise typer.Exit(summary.exit_code)


def _device(text: str, scheduler: str) -> str:
    """Check the device where this machine does the work; plain "cuda" stands for all of its devices."""
    if scheduler != "local":
        return text
    resolved = resolve_device(text)
    return "cuda" if resolved.startswith("cuda") and text in ("auto", "cuda") else resolved
