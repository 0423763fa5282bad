"""AnnData read back by its library. Needs anndata: scripts/test-extras."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from support_exports import segment_drawn
from support_nuclei import make_folder, make_sample

from wsipipe.api import open_result
from wsipipe.integrations.exports import export_slide

anndata = pytest.importorskip("anndata", reason="needs anndata: scripts/test-extras")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return segment_drawn(tmp_path_factory.mktemp("anndata"))


def test_it_holds_the_ids_and_values_of_the_table(folder: Path, tmp_path: Path) -> None:
    data = anndata.read_h5ad(export_slide(folder, "anndata", tmp_path / "n.h5ad"))
    table = open_result(folder).table
    assert data.n_obs == table.num_rows > 20
    assert data.obs_names.tolist() == table["uuid"].to_pylist()
    assert data.obs["label"].tolist() == table["label"].to_pylist()
    assert data.obs["class_name"].astype(str).tolist() == table["class_name"].to_pylist()
    for name in ("touches_edge", "is_outlier", "in_artefact"):
        assert data.obs[name].tolist() == table[name].to_pylist()
    assert {"area_um2", "hematoxylin_od_mean", "neighbours_50um"} <= {*data.var_names}
    for name in data.var_names:
        np.testing.assert_array_equal(data[:, name].X.ravel(), table[name].to_pandas().to_numpy(np.float32), name)


def test_no_column_is_left_out(folder: Path, tmp_path: Path) -> None:
    data = anndata.read_h5ad(export_slide(folder, "anndata", tmp_path / "n.h5ad"))
    elsewhere = {"uuid", "centroid_x_l0", "centroid_y_l0", "geometry"}
    assert {*data.var_names} | {*data.obs.columns} | elsewhere == {*open_result(folder).table.column_names}


def test_centroids_are_in_level_0_px_and_in_micrometres(folder: Path, tmp_path: Path) -> None:
    data = anndata.read_h5ad(export_slide(folder, "anndata", tmp_path / "n.h5ad"))
    table = open_result(folder).table
    np.testing.assert_array_equal(data.obsm["spatial"][:, 0], table["centroid_x_l0"])
    np.testing.assert_array_equal(data.obsm["spatial"][:, 1], table["centroid_y_l0"])
    np.testing.assert_allclose(data.obsm["spatial_um"], data.obsm["spatial"] * 0.125)


def test_it_says_where_the_nuclei_come_from(folder: Path, tmp_path: Path) -> None:
    data = anndata.read_h5ad(export_slide(folder, "anndata", tmp_path / "n.h5ad"))
    origin, record = data.uns["wsipipe"], open_result(folder).record
    assert (origin["slide"], origin["slide_key"]) == ("slide-1.svs", record.slide_key)
    assert (origin["model"], origin["model_sha256"]) == (record.model, record.model_sha256)
    assert json.loads(origin["run_json"])["nuclei"] == data.n_obs


def test_nulls_are_nan(tmp_path: Path) -> None:
    make_folder(tmp_path / "slide", make_sample(20))
    data = anndata.read_h5ad(export_slide(tmp_path / "slide", "anndata"))
    nulls = open_result(tmp_path / "slide").table["neighbour_distance_um"].is_null()
    assert pa.compute.sum(nulls).as_py() == 1
    assert np.isnan(data[:, "neighbour_distance_um"].X.ravel()).tolist() == nulls.to_pylist()
    assert data.obs["class_prob"].isna().all()
