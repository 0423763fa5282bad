"""One tiny lossless slide -> frozen GeoJSON and table. `pytest --update-golden` rewrites them; review the diff."""

import gzip
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from support_golden import compare_golden
from support_he import he_picture
from support_slides import write_slide

from wsipipe.options import RunOptions
from wsipipe.runner import run_slides
from wsipipe.slidelist import list_slides

HERE = Path(__file__).parent
TOLERANCE = 1e-4  # relative; other builds of numba and OpenCV may round the last bit otherwise


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("golden")
    slide = write_slide(root / "tiny.tiff", he_picture(220, 180, n=14, seed=3)[0], mpp=0.25, compression=None)
    options = RunOptions(out=root / "out", model="classical", workers=0, geojson_detail="full")
    assert run_slides(list_slides([str(slide)], mpp=None), options, lambda event: None).exit_code == 0
    return root / "out" / "tiny"


@pytest.fixture
def golden(request):
    """Compare with a frozen JSON file, or rewrite it."""

    def compare(name, value):
        update = request.config.getoption("--update-golden")
        compare_golden(HERE / name, value, update=update, tolerance=TOLERANCE)

    return compare


def test_geojson_of_the_tiny_slide_is_as_frozen(folder, golden):
    features = json.loads(gzip.decompress((folder / "nuclei.geojson.gz").read_bytes()))["features"]
    assert len(features) > 5
    golden("tiny.geojson.json", features)


def test_table_of_the_tiny_slide_is_as_frozen(folder, golden):
    table = pq.read_table(folder / "nuclei.parquet").drop_columns(["geometry"])
    assert table.num_rows > 5
    golden("tiny.table.json", table.to_pydict())
