"""Exports: what needs no extra, whole files or none, refusals in one line."""

import gzip
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import requires
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import shapely
import tifffile
import zarr
from support_nuclei import FRAME, OUTPUTS, make_folder, make_record, make_sample

from wsipipe import table as table_module
from wsipipe.cli import main
from wsipipe.errors import MissingExtraError, OutputError
from wsipipe.integrations import exports
from wsipipe.integrations.exports import EXPORTERS, export_slide
from wsipipe.table import read_nuclei

Cli = Callable[..., tuple[int, str, str]]
OPTIONAL = ("anndata", "spatialdata", "napari", "tiatoolbox")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished slide whose work grid is half of level 0 and whose table has several row groups."""
    folder = tmp_path_factory.mktemp("exports") / "slide"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(table_module, "ROW_GROUP", 16)
        make_folder(folder, make_sample(50))
    return folder


@pytest.fixture
def wsipipe(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run the command line in this process; returns exit code, stdout and stderr."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["wsipipe", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main.main()
        return int(end.value.code or 0), *capsys.readouterr()

    return call


def test_csv_holds_every_value_of_every_column_but_the_polygons(wsipipe: Cli, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "nuclei.csv"
    assert wsipipe("export", folder, "--to", "csv", "-o", out)[:2] == (0, f"{out}\n")
    table = read_nuclei(folder / "nuclei.parquet")
    read = pd.read_csv(out)
    assert list(read.columns) == table.column_names[:-1]
    assert len(read) == table.num_rows > 32
    for name in read.columns:
        kind = table[name].type
        expected = table[name].to_pandas()
        if pa.types.is_floating(kind):
            np.testing.assert_array_equal(read[name].to_numpy(kind.to_pandas_dtype()), expected)
        else:
            assert read[name].tolist() == expected.tolist()
    assert read["neighbour_distance_um"].isna().sum() == 1


def test_csv_is_packed_if_its_name_says_so_and_the_same_every_time(folder: Path, tmp_path: Path) -> None:
    plain = export_slide(folder, "csv", tmp_path / "a.csv").read_bytes()
    packed = [export_slide(folder, "csv", tmp_path / name).read_bytes() for name in ("a.csv.gz", "b.csv.gz")]
    assert gzip.decompress(packed[0]) == plain
    assert packed[0] == packed[1]


def test_csv_with_polygons_has_those_of_the_table(folder: Path, tmp_path: Path) -> None:
    read = pd.read_csv(export_slide(folder, "csv-wkt", tmp_path / "n.csv"))
    polygons = shapely.from_wkb(read_nuclei(folder / "nuclei.parquet")["geometry"].to_numpy())
    assert shapely.equals_exact(shapely.from_wkt(read["geometry"].to_numpy()), polygons, 1e-9).all()


def test_ome_tiff_is_the_label_image_at_every_level(folder: Path, tmp_path: Path) -> None:
    out = export_slide(folder, "ome-tiff-labels", tmp_path / "labels.ome.tiff")
    group = zarr.open_group(str(folder / "labels.ome.zarr"), mode="r")
    with tifffile.TiffFile(out) as tiff:
        levels = tiff.series[0].levels
        assert len(levels) == len(list(group.array_keys())) > 2
        for k, level in enumerate(levels):
            np.testing.assert_array_equal(level.asarray(), group[str(k)][:])
            assert level.dtype == np.uint32
            assert level.pages[0].is_tiled
            per_cm, unit = level.pages[0].tags["XResolution"].value, 1e4
            assert unit * per_cm[1] / per_cm[0] == pytest.approx(FRAME.mpp_x * 2**k, rel=1e-5)
        pixels = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]["Pixels"]
    assert (pixels["PhysicalSizeX"], pixels["PhysicalSizeY"]) == (FRAME.mpp_x, FRAME.mpp_y)
    assert (pixels["SizeX"], pixels["SizeY"], pixels["Type"]) == (FRAME.width, FRAME.height, "uint32")


def test_an_export_without_a_name_lies_in_the_slide_folder_and_verify_stays_content(
    wsipipe: Cli, tmp_path: Path
) -> None:
    make_folder(tmp_path / "slide", make_sample(10))
    assert wsipipe("export", tmp_path / "slide", "--to", "csv")[0] == 0
    assert (tmp_path / "slide" / "nuclei.csv.gz").is_file()
    assert wsipipe("verify", tmp_path / "slide")[0] == 0


def test_what_is_there_is_replaced_only_if_asked(wsipipe: Cli, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "n.csv"
    out.write_text("mine")
    code, _, err = wsipipe("export", folder, "--to", "csv", "-o", out)
    assert (code, err) == (1, f"wsipipe: export is there already; pass --overwrite or another -o: {out}\n")
    assert out.read_text() == "mine"
    assert wsipipe("export", folder, "--to", "csv", "-o", out, "--overwrite")[0] == 0
    assert out.read_text().startswith('"label"')


def write_folder(folder: Path, out: Path) -> None:
    out.mkdir()
    (out / "new").touch()


def fail_halfway(folder: Path, out: Path) -> None:
    out.write_text("half")
    raise OutputError("disk is full")


def test_an_exported_folder_replaces_an_earlier_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "load_exporter", lambda name: write_folder)
    out = tmp_path / "out.zarr"
    out.mkdir()
    (out / "old").touch()
    export_slide(folder, "csv", out, overwrite=True)
    assert [path.name for path in out.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [out]


def test_an_export_that_fails_leaves_nothing_and_the_earlier_one_as_it_was(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "load_exporter", lambda name: fail_halfway)
    out = tmp_path / "n.csv"
    for earlier in (None, "earlier"):
        if earlier:
            out.write_text(earlier)
        with pytest.raises(OutputError, match="disk is full"):
            export_slide(folder, "csv", out, overwrite=True)
        assert [path.read_text() for path in tmp_path.iterdir()] == ([earlier] if earlier else [])


def test_refusals_are_one_line(wsipipe: Cli, folder: Path, tmp_path: Path) -> None:
    code, _, err = wsipipe("export", folder, "--to", "xlsx")
    assert code == 2
    assert err.startswith("wsipipe: --to must be one of csv, ")
    code, _, err = wsipipe("export", tmp_path / "nowhere", "--to", "csv")
    assert (code, err) == (2, f"wsipipe: no such folder: {tmp_path / 'nowhere'}\n")
    code, _, err = wsipipe("export", tmp_path, "--to", "csv")
    assert code == 1
    assert err.startswith("wsipipe: run record is missing, so the run is unfinished")
    code, _, err = wsipipe("export", folder, folder, "--to", "csv", "-o", tmp_path / "n.csv")
    assert code == 2
    assert err.startswith("wsipipe: -o names the export of one slide, got 2 slides")
    code, _, err = wsipipe("export", folder, "--to", "csv", "-o", tmp_path / "no" / "n.csv")
    assert code == 1
    assert err.startswith("wsipipe: export needs a folder to lie in")
    assert list(tmp_path.iterdir()) == []


def test_an_unfinished_slide_is_not_exported(wsipipe: Cli, tmp_path: Path) -> None:
    make_folder(tmp_path / "slide", make_sample(10))
    make_record(tmp_path / "slide", 10, OUTPUTS, status="running").write(tmp_path / "slide" / "run.json")
    code, _, err = wsipipe("export", tmp_path / "slide", "--to", "csv")
    assert code == 1
    assert "slide is not finished" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (("export", "{}", "--to", "anndata"), "anndata"),
        (("export", "{}", "--to", "spatialdata"), "spatialdata"),
        (("view", "{}", "--napari"), "napari"),
    ],
)
def test_a_missing_extra_is_one_line_that_says_what_to_install(
    words: tuple[str, ...], extra: str, wsipipe: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "find_spec", lambda name: None if name in OPTIONAL else importlib.util.find_spec(name))
    before = sorted(folder.iterdir())
    code, out, err = wsipipe(*(word.format(folder) for word in words))
    assert (code, out) == (1, "")
    what = "--to " + extra if words[0] == "export" else "view --napari"
    assert err == f'wsipipe: {what} needs {extra}, not installed here; run: pip install "wsipipe[{extra}]"\n'
    assert sorted(folder.iterdir()) == before


def test_packages_that_are_there_are_not_missed() -> None:
    exports.require("none", ("json", "csv"), "x")
    with pytest.raises(MissingExtraError, match=r"needs no_such_package, not"):
        exports.require("none", ("json", "no_such_package"), "x")


def test_the_base_install_asks_for_no_extra_and_imports_none() -> None:
    base = [line for line in requires("wsipipe") or [] if "extra ==" not in line]
    assert base
    assert not [line for line in base if line.startswith(OPTIONAL)]
    code = (
        "import sys, wsipipe.cli.main, wsipipe.integrations.exports; print(sorted(set(sys.argv[1:]) & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code, *OPTIONAL], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_format_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {line.split("extra == ")[1].strip("'\"") for line in requires("wsipipe") or [] if "extra == " in line}
    for exporter in EXPORTERS.values():
        assert exporter.extra is None or exporter.extra in names
