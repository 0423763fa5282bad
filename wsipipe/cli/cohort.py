"""`wsipipe cohort`: the cohort's tables from finished slide folders."""

from pathlib import Path
from typing import Annotated

import typer


def cohort(out: Annotated[Path, typer.Argument(help="Output folder of earlier runs.", metavar="OUT")]) -> None:
    """Rebuild cohort.parquet and cohort.csv from the finished slide folders in OUT.

    Example: wsipipe cohort results
    """
    from wsipipe.cohort import rebuild_cohort
    from wsipipe.journal import locked

    with locked(out):
        n_slides = rebuild_cohort(out)
    typer.echo(f"{n_slides} slides: {out / 'cohort.csv'}")
