"""`wsipipe cohort`: the cohort's tables and page from finished slide folders."""

from pathlib import Path
from typing import Annotated

import typer

from wsipipe.cli.arguments import Group, Metadata, Patient


def cohort(
    out: Annotated[Path, typer.Argument(help="Output folder of earlier runs.", metavar="OUT")],
    metadata: Metadata = None,
    patient: Patient = None,
    group: Group = None,
) -> None:
    """Make cohort.html, cohort.csv, cohort.parquet and nuclei.dataset anew from the finished slide folders in OUT.

    With --metadata, groups of patients are summarised (cohort-groups.csv) and compared (cohort-effects.csv).

    Example: wsipipe cohort results

    Example: wsipipe cohort results --metadata study.csv --patient case --group stage
    """
    from wsipipe.cohort import rebuild_cohort
    from wsipipe.errors import UsageError
    from wsipipe.journal import locked
    from wsipipe.metadata import read_metadata
    from wsipipe.wording import counted

    if not out.is_dir():
        raise UsageError(f"OUT must be the output folder of earlier runs, there is no such folder: {out}")
    if not any(out.glob("*/run.json")):
        raise UsageError(f"OUT must be the output folder of earlier runs, no slide folder lies in: {out}")
    study = read_metadata(metadata, patient=patient, groups=tuple(group or ())) if metadata else None
    with locked(out):
        made = rebuild_cohort(out, study)
    for note in made.notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(f"{counted(len(made.rows), 'slide')}: {out / 'cohort.html'}")
