"""`wsipipe plan`: what a run would do, without doing it."""

import dataclasses
from typing import TYPE_CHECKING

import orjson
import typer

from wsipipe.cli.arguments import (
    AllowUpsampling,
    BatchSize,
    Config,
    Detail,
    Device,
    Json,
    Memory,
    Model,
    Mpp,
    Out,
    Overwrite,
    Slides,
    Stain,
    StainNorm,
    Tissue,
    Verbose,
    Workers,
)
from wsipipe.options import DEFAULT_MODEL, DEFAULT_OUT, RunOptions, parse_batch, parse_memory, resolve_device
from wsipipe.wording import between, counted

if TYPE_CHECKING:
    from wsipipe.forecast import Forecast


def plan(
    slides: Slides,
    out: Out = DEFAULT_OUT,
    model: Model = DEFAULT_MODEL,
    device: Device = "auto",
    mpp: Mpp = None,
    tissue: Tissue = "auto",
    batch_size: BatchSize = "auto",
    memory: Memory = None,
    workers: Workers = None,
    geojson_detail: Detail = "shape",
    stain: Stain = "qupath",
    stain_norm: StainNorm = "none",
    allow_upsampling: AllowUpsampling = False,
    overwrite: Overwrite = False,
    json: Json = False,
    config: Config = None,
    verbose: Verbose = False,
) -> None:
    """Look at every slide and say what a run with the same options would take; nothing is written.

    Per slide: readable or not, format, mpp and where it came from, tissue, tiles, expected time, memory, and disk while
    it runs.
    Exit code 1 if any slide would fail.

    Example: wsipipe plan slides/*.svs
    """
    from wsipipe.forecast import forecast_slides
    from wsipipe.segmenter import load_segmenter
    from wsipipe.slidelist import list_slides

    options = RunOptions(
        out=out,
        model=model,
        device=resolve_device(device),
        tissue=tissue,
        batch_size=parse_batch(batch_size),
        memory=parse_memory(memory) if memory else None,
        workers=workers,
        geojson_detail=geojson_detail,
        stain=stain,
        stain_norm=stain_norm,
        allow_upsampling=allow_upsampling,
        overwrite=overwrite,
    )
    segmenter = load_segmenter(options.model, device=options.device)
    listed = list_slides(slides, mpp=mpp)
    for note in listed.notes:
        typer.echo(f"note: {note}", err=True)
    found = forecast_slides(listed, segmenter, options)
    for slide in found:
        typer.echo(orjson.dumps(dataclasses.asdict(slide)).decode() if json else _line(slide))
    if not json:
        typer.echo(_total(found, segmenter.name, options.device))
        if basis := _basis(found):
            typer.echo(basis)
    raise typer.Exit(1 if any(slide.problem for slide in found) else 0)


def _line(slide: "Forecast") -> str:
    if slide.problem:
        return f"FAILS {slide.path}: {slide.problem}"
    time = "done already" if slide.is_done else between(slide.seconds_low, slide.seconds_high)
    return (
        f"ok {slide.path}: {slide.vendor}, {slide.width} x {slide.height} px, "
        f"mpp {slide.mpp:.4g} ({slide.mpp_source}), "
        f"tissue {slide.tissue_mm2:.2f} mm2, {counted(slide.tiles, 'tile')}, {time}, "
        f"{slide.memory / 2**30:.1f} GiB memory, {slide.disk / 2**20:.0f} MiB disk"
    )


def _total(found: "list[Forecast]", model: str, device: str) -> str:
    fine = [slide for slide in found if not slide.problem]
    new = [slide for slide in fine if not slide.is_done]
    time = between(sum(slide.seconds_low for slide in new), sum(slide.seconds_high for slide in new))
    return (
        f"total: {counted(len(fine), 'slide')} can run, {len(found) - len(fine)} would fail; "
        f"model {model} on {device}, {counted(sum(slide.tiles for slide in fine), 'tile')}, "
        f"{time if new else 'nothing to do'}, "
        f"{max((slide.memory for slide in found), default=0) / 2**30:.1f} GiB memory, "
        f"{sum(slide.disk for slide in found) / 2**20:.0f} MiB disk"
    )


def _basis(found: "list[Forecast]") -> str:
    from wsipipe.outlines import is_compiled

    basis = next((slide.basis for slide in found if not slide.problem and not slide.is_done), "")
    first = "" if is_compiled() else "; the first run here compiles its kernels, which takes a minute more, once"
    return f"times are wall time, from {basis}{first}" if basis else ""
