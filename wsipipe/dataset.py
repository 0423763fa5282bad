"""All nuclei of a cohort as one dataset, partitioned by slide, without a second copy.

`nuclei.dataset/slide=<id>/nuclei.parquet` are links to the tables in the slide folders, in the layout (hive) that
pyarrow, pandas, polars, DuckDB, dask and geopandas know. Links are relative, so the output folder can be moved as a
whole.
"""

import logging
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from wsipipe.errors import OutputError

DATASET_NAME = "nuclei.dataset"
TABLE_NAME = "nuclei.parquet"

log = logging.getLogger(__name__)


def link_dataset(out: Path, slides: Iterable[str]) -> Path:
    """Make the dataset anew from slide folders of out.

    Args:
        out: the output folder.
        slides: ids of finished slides, the names of their folders.

    Returns:
        The dataset's folder.

    Raises:
        OutputError: a slide is named like the dataset.
    """
    target = out / DATASET_NAME
    if (target / "run.json").exists():
        raise OutputError(f"a slide's folder has the dataset's name; give the slide another id: {target}")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for slide in slides:
        folder = target / f"slide={quote(slide, safe=' ')}"
        folder.mkdir()
        _link(out / slide / TABLE_NAME, folder / TABLE_NAME)
    return target


def _link(table: Path, link: Path) -> None:
    """Link symbolically; on a file system without symbolic links hard, and else not at all."""
    try:
        link.symlink_to(os.path.relpath(table, link.parent))
    except OSError:
        try:
            os.link(table, link)
        except OSError as error:
            log.warning("nuclei.dataset lacks a slide, links are not possible here (%s): %s", error.strerror, table)
