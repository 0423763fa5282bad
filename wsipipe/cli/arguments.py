"""Options that several commands share, and the config file that may hold them."""

import logging
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from wsipipe.errors import UsageError
from wsipipe.options import GeoJsonDetail, StainChoice
from wsipipe.scale import parse_mpp

SLIDES_HELP = (
    "Slides: files, quoted globs, folders, or a CSV with columns path[,mpp][,id]. "
    "Everything that OpenSlide reads: svs, tiff, ndpi, mrxs, scn, bif, dcm, czi ..."
)


def read_config(ctx: typer.Context, path: Path | None) -> Path | None:
    """Take option values from a TOML file; what the command line names wins.

    Every command takes the file of a run and passes over what only `run` knows.

    Raises:
        UsageError: the file cannot be read, or holds a key that is no option of this command or of `run`.
    """
    if path is None:
        return None
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"--config must be a readable TOML file ({error}): {path}") from error
    ctx.default_map = {**(ctx.default_map or {}), **_checked(_parameters(ctx), values, path)}
    if ctx.default_map.get("verbose") is True:
        logging.getLogger().setLevel(logging.DEBUG)
    return path


def _parameters(ctx: typer.Context) -> list[Any]:
    siblings = getattr(ctx.parent.command, "commands", {}) if ctx.parent else {}
    return [*ctx.command.params, *(siblings["run"].params if "run" in siblings else [])]


def _checked(params: Sequence[Any], values: dict[str, Any], path: Path) -> dict[str, Any]:
    known = {p.name for p in params} - {"config"}
    named = {key.replace("-", "_"): value for key, value in values.items()}
    unknown = sorted(named.keys() - known)
    if unknown:
        options = ", ".join(sorted(name.replace("_", "-") for name in known if name))
        raise UsageError(f"--config has unknown keys {', '.join(unknown)}; known are {options}: {path}")
    return named


def _mpp(text: str | None) -> float | None:
    return None if text is None else parse_mpp(text, "--mpp")


Slides = Annotated[list[str], typer.Argument(help=SLIDES_HELP, metavar="SLIDE...", show_default=False)]
Config = Annotated[
    Path | None,
    typer.Option("--config", help="TOML file with any of these options.", callback=read_config, is_eager=True),
]
Out = Annotated[Path, typer.Option("-o", "--out", help="Output folder: one folder per slide, and the cohort's tables.")]
Model = Annotated[str, typer.Option("--model", help="A name from `wsipipe models`, or a weights file.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda[:N].")]
Mpp = Annotated[
    float | None,
    typer.Option(
        "--mpp",
        help="Micrometres per pixel of level 0, for slides without it or with a wrong one.",
        parser=str,
        callback=_mpp,
        metavar="NUMBER",
    ),
]
Tissue = Annotated[str, typer.Option("--tissue", help="auto, none (everything), MASK.png or ROI.geojson from QuPath.")]
AllowUpsampling = Annotated[
    bool, typer.Option("--allow-upsampling", help="Accept slides more than 2.5 times coarser than the model.")
]
BatchSize = Annotated[str, typer.Option("--batch-size", help="Tiles per model call: auto or a number.")]
Memory = Annotated[str | None, typer.Option("--memory", help="Memory that the run may use, e.g. 16GB.")]
Workers = Annotated[
    int | None, typer.Option("--workers", help="CPU tasks at once on this machine; 0 = one after another.", min=0)
]
Detail = Annotated[
    GeoJsonDetail,
    typer.Option("--geojson-detail", help="shape: six shape measurements; full: all; none: no GeoJSON."),
]
Stain = Annotated[
    StainChoice, typer.Option("--stain", help="Stain vectors: QuPath's H&E defaults, or estimated per slide.")
]
StainNorm = Annotated[
    str,
    typer.Option(
        "--stain-norm",
        help="Bring the colours that the model sees to a target: macenko, reinhard, vahadane, TARGET.png or "
        "METHOD@TARGET.png. Needs TIAToolbox.",
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Make these slides anew; earlier results stay until the new ones are complete."),
]
Metadata = Annotated[
    Path | None,
    typer.Option(
        "--metadata",
        help="CSV with a column `slide` (the slide's id), one that names the patient, and others to group by.",
        dir_okay=False,
    ),
]
Patient = Annotated[
    str | None, typer.Option("--patient", help="Column of --metadata that names patients; else patient or case.")
]
Group = Annotated[
    list[str] | None,
    typer.Option("--group", help="Column of --metadata to group by; repeatable. Else all with 2 to 8 values."),
]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Details and tracebacks on stderr.")]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable JSON lines on stdout.")]
