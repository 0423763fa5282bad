"""`wsipipe verify`: does a finished folder keep its promises."""

import typer

from wsipipe.cli.slidefolders import SlideFolders, list_slide_folders


def verify(folders: SlideFolders) -> None:
    """Check finished slide folders against what wsipipe promises about them.

    The same nuclei in GeoJSON, table and label image; valid polygons of the right area; unique ids; valid metadata;
    files as they were written. Exit code 1 if anything is wrong.

    Example: wsipipe verify results/slide-1
    """
    from wsipipe.verify import verify_folder

    bad = 0
    for folder in list_slide_folders(folders):
        problems = verify_folder(folder)
        bad += bool(problems)
        typer.echo(f"{'FAILED' if problems else 'ok'} {folder}")
        for problem in problems:
            typer.echo(f"  {problem}")
    raise typer.Exit(1 if bad else 0)
