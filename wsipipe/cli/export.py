"""`wsipipe export`: a finished slide in the formats of other tools."""

from pathlib import Path
from typing import Annotated

import typer

from wsipipe.cli.arguments import Verbose
from wsipipe.cli.slidefolders import SlideFolders, list_slide_folders


def export(
    folders: SlideFolders,
    to: Annotated[str, typer.Option("--to", help="Format: see docs/integrations.md.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", help="File or folder to write, for one slide. Else a name inside the slide folder."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export.")] = False,
    verbose: Verbose = False,
) -> None:
    """Write finished slides in formats of other tools.

    Formats: csv, csv-wkt (with the polygons), ome-tiff-labels; with their extras spatialdata, anndata,
    annotation-store.

    Example: wsipipe export results/slide-1 --to csv
    """
    from wsipipe.errors import UsageError
    from wsipipe.integrations.exports import export_slide, load_exporter

    load_exporter(to)  # before any slide is done: all of them need it
    slides = list_slide_folders(folders)
    if out is not None and len(slides) != 1:
        raise UsageError(f"-o names the export of one slide, got {len(slides)} slides; leave it out: {out}")
    for slide in slides:
        typer.echo(str(export_slide(slide, to, out, overwrite=overwrite)))
