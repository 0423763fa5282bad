"""Formats that a finished slide can be exported to: their names, the extras they need, and where the files go."""

import importlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from wsipipe.api import open_result
from wsipipe.atomic import PARTIAL
from wsipipe.errors import MissingExtraError, OutputError, UsageError


@dataclass(frozen=True, slots=True)
class Exporter:
    """One format.

    Attributes:
        function: "module:name" of `export(folder, out) -> None`: reads a finished slide folder, writes out, a file or
            a folder that does not exist yet. Imported when asked for. `export_slide` sees to it that out appears whole.
        file_name: of the export, inside the slide folder unless the user names another place.
        extra: of wsipipe that must be installed; None where the base install is enough.
        packages: what the extra must have installed, names of imports.
    """

    function: str
    file_name: str
    extra: str | None = None
    packages: tuple[str, ...] = ()


EXPORTERS = {
    "csv": Exporter("wsipipe.integrations.csvtable:export", "nuclei.csv.gz"),
    "csv-wkt": Exporter("wsipipe.integrations.csvtable:export_with_geometry", "nuclei.wkt.csv.gz"),
    "anndata": Exporter("wsipipe.integrations.h5ad:export", "nuclei.h5ad", "anndata", ("anndata",)),
    "spatialdata": Exporter(
        "wsipipe.integrations.spatialdatazarr:export", "nuclei.spatialdata.zarr", "spatialdata", ("spatialdata",)
    ),
    "annotation-store": Exporter("wsipipe.integrations.tiatoolboxstore:export", "nuclei.db"),  # says what it needs
    "ome-tiff-labels": Exporter("wsipipe.integrations.ometifflabels:export", "labels.ome.tiff"),
}


def export_slide(folder: Path, name: str, out: Path | None = None, *, overwrite: bool = False) -> Path:
    """Export one finished slide; the file or folder appears whole or not at all.

    Args:
        folder: a finished slide folder.
        name: a key of EXPORTERS.
        out: where to; None takes the format's file name inside the slide folder.
        overwrite: replace what is there.

    Returns:
        Where the export lies.

    Raises:
        UsageError: no such format.
        MissingExtraError: the format needs packages that are not installed.
        OutputError: the slide is not finished, or out is there and overwrite is off.
    """
    function = load_exporter(name)
    open_result(folder)
    target = out or folder / EXPORTERS[name].file_name
    if target.exists() and not overwrite:
        raise OutputError(f"export is there already; pass --overwrite or another -o: {target}")
    if not target.parent.is_dir():
        raise OutputError(f"export needs a folder to lie in; make it first: {target.parent}")
    with _replacing(target) as partial:
        function(folder, partial)
    return target


def load_exporter(name: str) -> Callable[[Path, Path], None]:
    """Import the function of a format.

    Raises:
        UsageError: no such format.
        MissingExtraError: the format needs packages that are not installed.
    """
    if name not in EXPORTERS:
        raise UsageError(f"--to must be one of {', '.join(EXPORTERS)}, got {name!r}")
    exporter = EXPORTERS[name]
    if exporter.extra is not None:
        require(exporter.extra, exporter.packages, f"--to {name}")
    module, function = exporter.function.split(":")
    loaded: Callable[[Path, Path], None] = getattr(importlib.import_module(module), function)
    return loaded


def require(extra: str, packages: tuple[str, ...], what: str) -> None:
    """Make sure that the packages of an extra are installed, without importing them.

    Args:
        extra: name of the extra.
        packages: names of imports.
        what: what needs them, as the user asked for it.

    Raises:
        MissingExtraError: one of them is not installed; the text says what to install.
    """
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise MissingExtraError(
            f'{what} needs {", ".join(missing)}, not installed here; run: pip install "wsipipe[{extra}]"'
        )


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """Yield a path of target's name in a folder beside it; what is written there becomes target if all goes well.

    A library may tell the format by the name, and may leave files of its own beside its output: those are removed.
    """
    place = target.with_name(f".{target.name}.{os.getpid()}{PARTIAL}")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    try:
        yield place / target.name
        if target.is_dir():  # a folder cannot be renamed over another one
            os.replace(target, place / "earlier")
        os.replace(place / target.name, target)
    finally:
        shutil.rmtree(place)
