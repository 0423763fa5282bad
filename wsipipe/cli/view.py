"""`wsipipe view`: a finished slide in a viewer."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from wsipipe.cli.arguments import Verbose
from wsipipe.errors import UsageError
from wsipipe.grid import Box


def _parse_region(text: str | None) -> Box | None:
    if text is None:
        return None
    try:
        x, y, width, height = (int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(
            f"--region must be X,Y,WIDTH,HEIGHT in level-0 px, e.g. 4000,3000,800,600, got {text!r}"
        ) from error
    if width < 1 or height < 1:
        raise UsageError(f"--region must have a width and a height of at least 1 px, got {text!r}")
    return Box(x, y, x + width, y + height)


def _require_display() -> None:
    """Qt ends the process without a word of ours where there is no screen."""
    named = {"DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"} & os.environ.keys()
    if sys.platform == "linux" and not named:
        raise UsageError("view --napari needs a screen, DISPLAY is not set; on a server run it under `xvfb-run`")


def view(
    folder: Annotated[Path, typer.Argument(help="Finished slide folder.", metavar="OUT/SLIDE")],
    napari: Annotated[bool, typer.Option("--napari", help="Open napari (needs the extra).")] = False,
    slide: Annotated[
        Path | None, typer.Option("--slide", help="Where the slide lies now, if not where the run found it.")
    ] = None,
    region: Annotated[
        str | None,
        typer.Option("--region", help="X,Y,WIDTH,HEIGHT in level-0 px: look there, outline the nuclei there."),
    ] = None,
    screenshot: Annotated[
        Path | None, typer.Option("--screenshot", help="Write what is seen to this PNG and end.", dir_okay=False)
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Show a finished slide with its nuclei and their measurements.

    Outlines are drawn in the region, or for all nuclei if they are not too many; the labels always show all.

    Example: wsipipe view results/slide-1 --napari --region 4000,3000,800,600
    """
    from wsipipe.api import open_result
    from wsipipe.integrations.exports import require

    if not napari:
        raise UsageError("view needs the name of a viewer: --napari")
    require("napari", ("napari",), "view --napari")
    if not folder.is_dir():
        raise UsageError(f"no such folder: {folder}")
    box, result = _parse_region(region), open_result(folder)
    _require_display()
    from wsipipe.integrations import napariview

    with napariview.open_slide_of(result, slide) as opened:
        napariview.view(result, opened, box, screenshot)
