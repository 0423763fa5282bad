"""`wsipipe verify`: does a finished folder keep its promises."""

from pathlib import Path
from typing import Annotated

import typer


def verify(
    folders: Annotated[
        list[Path], typer.Argument(help="Finished slide folders, or output folders.", metavar="OUT/SLIDE...")
    ],
) -> None:
    """Check finished slide folders against what wsipipe promises about them.

    The same nuclei in GeoJSON, table and label image; valid polygons of the right area; unique ids; valid metadata;
    files as they were written. Exit code 1 if anything is wrong.

    Example: wsipipe verify results/slide-1
    """
    from wsipipe.verify import verify_folder

    bad = 0
    for folder in (slide for given in folders for slide in _slide_folders(given)):
        problems = verify_folder(folder)
        bad += bool(problems)
        typer.echo(f"{'FAILED' if problems else 'ok'} {folder}")
        for problem in problems:
            typer.echo(f"  {problem}")
    raise typer.Exit(1 if bad else 0)


def _slide_folders(folder: Path) -> list[Path]:
    """Expand an output folder into its slide folders; `OUT/*/` also names the links of the cohort's dataset."""
    from wsipipe.dataset import DATASET_NAME
    from wsipipe.errors import UsageError

    if not folder.is_dir():
        raise UsageError(f"no such folder: {folder}")
    if folder.name == DATASET_NAME:
        return []
    if (folder / "failed.csv").is_file():
        return sorted(record.parent for record in folder.glob("*/run.json"))
    return [folder]
