"""The Python interface: names, laziness, results, errors."""

import subprocess
import sys
from pathlib import Path

import geopandas
import numpy as np
import pytest
from support_cohort import Invented, invent_slide

import wsipipe
from wsipipe import runner
from wsipipe.demo import draw_slide
from wsipipe.drawnslide import DemoSpec
from wsipipe.errors import MissingExtraError, OutputError, SlideError, UsageError
from wsipipe.testing import ToySegmenter

LAZY = """
import sys, time
start = time.perf_counter()
import wsipipe
seconds = time.perf_counter() - start
wsipipe.segment_slide, wsipipe.open_result, wsipipe.open_nuclei, wsipipe.SlideResult
heavy = "torch dask distributed numba matplotlib pandas pyarrow scipy cv2 zarr numpy".split()
print([name for name in heavy if name in sys.modules], seconds < 0.5)
"""


def test_public_names() -> None:
    assert sorted(wsipipe.__all__) == ["SlideResult", "__version__", "open_nuclei", "open_result", "segment_slide"]
    assert dir(wsipipe) == sorted(wsipipe.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        wsipipe.nothing  # noqa: B018


def test_importing_loads_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", LAZY], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] True"


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> wsipipe.SlideResult:
    """A drawn slide segmented from Python."""
    where = tmp_path_factory.mktemp("api")
    draw_slide(where / "s.svs", where / "truth.zarr", DemoSpec(width=700, height=600))
    with pytest.MonkeyPatch.context() as patch:
        run = runner.run_slides
        patch.setattr(
            runner, "run_slides", lambda slides, options, emit: run(slides, options, emit, segmenter=ToySegmenter())
        )
        return wsipipe.segment_slide(where / "s.svs", where / "out", workers=0)


def test_a_slide_becomes_nuclei_labels_and_a_record(result: wsipipe.SlideResult) -> None:
    assert result.record.status == "done"
    assert result.flags == result.record.flags
    nuclei, table, labels = result.nuclei, result.table, result.labels
    assert isinstance(nuclei, geopandas.GeoDataFrame)
    assert len(nuclei) == table.num_rows == result.record.nuclei > 0
    assert labels.shape == (result.record.frame.height, result.record.frame.width)
    counts = np.bincount(labels.compute().ravel())[1:]
    frame = result.record.frame
    np.testing.assert_allclose(counts * frame.mpp_x * frame.mpp_y, nuclei["area_um2"], rtol=1e-6)
    assert [level.shape[0] for level in result.label_levels()] == [labels.shape[0]]


def test_open_result_finds_what_segment_slide_left(result: wsipipe.SlideResult) -> None:
    assert wsipipe.open_result(str(result.folder)) == result
    assert wsipipe.open_nuclei(result.folder.parent).count_rows() == result.record.nuclei


def test_a_printed_result_is_one_short_line_with_what_matters(result: wsipipe.SlideResult) -> None:
    text = repr(result)
    assert len(text) < 300 + len(str(result.folder))
    assert f"{result.folder}: {result.record.nuclei:,} nuclei on " in text
    assert all(flag in text for flag in result.flags)


def test_plots_show_density_or_a_column(result: wsipipe.SlideResult, tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    axes = result.plot()
    axes.figure.savefig(tmp_path / "map.png")
    assert (tmp_path / "map.png").stat().st_size > 1000
    mine = Figure().add_subplot()
    assert result.plot("area_um2", ax=mine) is mine
    assert mine.get_ylim()[0] > mine.get_ylim()[1]
    for wrong in ("nothing", "uuid"):
        with pytest.raises(UsageError, match="column must be one of label, "):
            result.plot(wrong)


def test_errors_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutputError, match="run record is missing"):
        wsipipe.open_result(tmp_path)
    with pytest.raises(OutputError, match="not finished"):
        wsipipe.open_result(invent_slide(tmp_path, "s", Invented(n=3), status="running"))
    with pytest.raises(SlideError, match="does not exist"):
        wsipipe.segment_slide(tmp_path / "no.svs", tmp_path / "out")
    result = wsipipe.open_result(invent_slide(tmp_path, "done", Invented(n=3)))
    assert result.plot("neighbour_distance_um") is not None
    monkeypatch.setitem(sys.modules, "geopandas", None)
    with pytest.raises(MissingExtraError, match="pip install geopandas"):
        result.nuclei  # noqa: B018


def test_a_slide_that_cannot_be_done_raises_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken.svs"
    broken.write_bytes(b"no slide")
    run = runner.run_slides
    monkeypatch.setattr(
        runner, "run_slides", lambda slides, options, emit: run(slides, options, emit, segmenter=ToySegmenter())
    )
    with pytest.raises(SlideError, match=r"broken\.svs"):
        wsipipe.segment_slide(broken, tmp_path / "out", workers=0)
