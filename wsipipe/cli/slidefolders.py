"""The slide folders that a command line names."""

from pathlib import Path
from typing import Annotated

import typer

SlideFolders = Annotated[
    list[Path], typer.Argument(help="Finished slide folders, or output folders.", metavar="OUT/SLIDE...")
]


def list_slide_folders(folders: list[Path]) -> list[Path]:
    """Expand output folders into their slide folders; `OUT/*/` also names the links of the cohort's dataset.

    Raises:
        UsageError: a folder does not exist.
    """
    return [slide for folder in folders for slide in _inside(folder)]


def _inside(folder: Path) -> list[Path]:
    from wsipipe.dataset import DATASET_NAME
    from wsipipe.errors import UsageError

    if not folder.is_dir():
        raise UsageError(f"no such folder: {folder}")
    if folder.name == DATASET_NAME:
        return []
    if (folder / "failed.csv").is_file():
        return sorted(record.parent for record in folder.glob("*/run.json"))
    return [folder]
