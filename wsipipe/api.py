"""wsipipe from Python: segment a slide, open what a run left.

    import wsipipe

    result = wsipipe.segment_slide("slide.svs", "results")
    result.nuclei["area_um2"].median()

Heavy packages load when they are needed, not when this module is imported.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsipipe.errors import MissingExtraError, OutputError, SlideError, UsageError

if TYPE_CHECKING:
    import dask.array as da
    import geopandas as gpd
    import pyarrow as pa
    import pyarrow.dataset as pads
    from matplotlib.axes import Axes

    from wsipipe.runrecord import RunRecord


@dataclass(frozen=True)
class SlideResult:
    """A finished slide folder; everything is read when asked for.

    Attributes:
        folder: with nuclei.parquet, labels.ome.zarr and the other files of docs/outputs.md.
        record: run.json: what was run on what, with which model, how long it took, what to look at.
    """

    folder: Path
    record: "RunRecord"

    def __repr__(self) -> str:
        """Name the folder and what is in it; everything else is in `record`."""
        flags = "; ".join(self.flags) or "none"
        return (
            f"<SlideResult {self.folder}: {self.record.nuclei:,} nuclei on {self.record.tissue_mm2:.2f} mm² of tissue, "
            f"model {self.record.model}, flags: {flags}>"
        )

    @property
    def table(self) -> "pa.Table":
        """All nuclei as a pyarrow table; the columns are those of docs/columns.md."""
        from wsipipe.table import read_nuclei

        return read_nuclei(self.folder / "nuclei.parquet")

    @property
    def nuclei(self) -> "gpd.GeoDataFrame":
        """All nuclei with their polygons (level-0 px), for geopandas.

        Raises:
            MissingExtraError: geopandas is not installed.
        """
        try:
            import geopandas
        except ImportError as error:
            raise MissingExtraError(
                "SlideResult.nuclei needs geopandas; run `pip install geopandas`, or use SlideResult.table"
            ) from error
        return geopandas.read_parquet(self.folder / "nuclei.parquet")

    @property
    def labels(self) -> "da.Array":
        """The nuclei as pixels at the work grid, (height, width) uint32, lazily: 0 is background, else `label`."""
        return self.label_levels()[0]

    def label_levels(self) -> "list[da.Array]":
        """Return the label pyramid, finest first; napari takes the list as a multiscale layer."""
        import dask.array as da
        import zarr

        group = zarr.open_group(self.folder / "labels.ome.zarr", mode="r")
        levels = sorted(group.array_keys(), key=int)
        return [da.from_zarr(self.folder / "labels.ome.zarr" / level) for level in levels]

    @property
    def flags(self) -> tuple[str, ...]:
        """What to look at before the numbers are used; empty if nothing was odd."""
        return self.record.flags

    def plot(self, column: str | None = None, *, ax: "Axes | None" = None) -> "Axes":
        """Draw the nuclei of the slide as a map.

        Args:
            column: of docs/columns.md, whose mean is shown by colour; None shows nuclei per mm2.
            ax: matplotlib axes to draw in; None makes a figure.

        Returns:
            The axes, in millimetres, y downwards as on the slide; `.figure.savefig("map.png")` writes them.
        """
        from wsipipe.slideplot import draw_map

        return draw_map(self.folder / "nuclei.parquet", self.record, column, ax)


def open_result(folder: str | Path) -> SlideResult:
    """Open a finished slide folder.

    Raises:
        OutputError: it is missing or not finished.
    """
    from wsipipe.runrecord import read_record

    path = Path(folder)
    record = read_record(path / "run.json")
    if record.status != "done":
        raise OutputError(f"slide is not finished (status {record.status}); run its command again: {path}")
    return SlideResult(path, record)


def open_nuclei(out: str | Path) -> "pads.Dataset":
    """Open the nuclei of all slides of an output folder as one pyarrow dataset, with a text column `slide`.

    Nothing is read yet: filter and choose columns, then `.to_table()`. `wsipipe run` and `wsipipe cohort` make the
    dataset.

    Raises:
        OutputError: there is no dataset in the folder.
    """
    import pyarrow as pa
    import pyarrow.dataset as pads

    from wsipipe.dataset import DATASET_NAME

    path = Path(out) / DATASET_NAME
    if not path.is_dir():
        raise OutputError(f"folder holds no {DATASET_NAME}; run `wsipipe cohort {out}` first: {path}")
    return pads.dataset(
        path, format="parquet", partitioning=pads.partitioning(pa.schema([("slide", pa.string())]), flavor="hive")
    )


def segment_slide(
    path: str | Path,
    out: str | Path,
    *,
    model: str = "",
    device: str = "auto",
    mpp: float | None = None,
    tissue: str = "auto",
    workers: int | None = None,
    overwrite: bool = False,
) -> SlideResult:
    """Find every nucleus of one slide: what `wsipipe run` does with its default options, from Python.

    A slide that an earlier call finished with the same parameters is opened, not computed again; an interrupted one is
    continued.

    Args:
        path: the slide.
        out: output folder; the slide gets a folder of its own inside.
        model: a name from `wsipipe models`, or a weights file; empty takes the default.
        device: auto, cpu or cuda[:N].
        mpp: micrometres per pixel of level 0, for slides without it or with a wrong one.
        tissue: auto, none, or a mask PNG or a GeoJSON of areas.
        workers: CPU tasks at once; 0 runs everything in one thread; None takes the machine's cores.
        overwrite: make it anew; an earlier result stays until the new one is complete.

    Raises:
        SlideError: the slide cannot be done; the text says why and what to do.
        WsipipeError: the model or the output folder cannot be used.
    """
    from wsipipe.options import DEFAULT_MODEL, RunOptions, resolve_device
    from wsipipe.runner import run_slides
    from wsipipe.slidelist import list_slides

    options = RunOptions(
        out=Path(out),
        model=model or DEFAULT_MODEL,
        device=resolve_device(device),
        tissue=tissue,
        workers=workers,
        overwrite=overwrite,
    )
    if mpp is not None and not (isinstance(mpp, int | float) and mpp > 0):
        raise UsageError(f"mpp must be a positive number of micrometres per pixel, got {mpp!r}")
    if not Path(path).is_file():
        raise SlideError(f"slide file does not exist; check the path: {path}")
    summary = run_slides(list_slides([str(path)], mpp=mpp), options, _ignore)
    if not summary.results:
        raise SlideError(f"{'; '.join(failure.reason for failure in summary.failures)}: {path}")
    return open_result(summary.results[0].folder)


def _ignore(event: Any) -> None:
    """Take an event of the run and do nothing."""
