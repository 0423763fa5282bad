"""SpatialData read back by its library. Needs spatialdata: scripts/test-extras."""

from pathlib import Path

import numpy as np
import pytest
import shapely
import zarr
from support_exports import segment_drawn
from support_nuclei import make_folder, make_sample

from wsipipe.api import open_result
from wsipipe.integrations.exports import export_slide

spatialdata = pytest.importorskip("spatialdata", reason="needs spatialdata: scripts/test-extras")

MPP = 0.125


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return segment_drawn(tmp_path_factory.mktemp("spatialdata"), mpp=MPP)


@pytest.fixture(scope="module")
def data(folder: Path):
    return spatialdata.read_zarr(export_slide(folder, "spatialdata"))


def test_each_nucleus_has_a_shape_and_a_row_with_its_id_and_values(folder: Path, data) -> None:
    table = open_result(folder).table
    shapes, rows = data.shapes["nuclei"], data.tables["table"]
    assert len(shapes) == rows.n_obs == table.num_rows > 20
    assert shapes.index.tolist() == rows.obs["label"].tolist() == table["label"].to_pylist()
    assert rows.obs_names.tolist() == table["uuid"].to_pylist()
    polygons = shapely.from_wkb(table["geometry"].to_numpy())
    assert shapely.equals_exact(shapes.geometry.to_numpy(), polygons, 0).all()
    for name in rows.var_names:
        np.testing.assert_array_equal(rows[:, name].X.ravel(), table[name].to_pandas().to_numpy(np.float32), name)


def test_the_table_annotates_the_shapes(folder: Path, data) -> None:
    assert data.tables["table"].uns["spatialdata_attrs"] == {
        "region": "nuclei",
        "region_key": "region",
        "instance_key": "label",
    }
    values = spatialdata.get_values("area_um2", sdata=data, element_name="nuclei", table_name="table")
    np.testing.assert_array_equal(values["area_um2"], open_result(folder).table["area_um2"])


def test_labels_are_those_of_the_label_image_at_every_level(folder: Path, data) -> None:
    group = zarr.open_group(str(folder / "labels.ome.zarr"), mode="r")
    levels = data.labels["nuclei_labels"]
    assert list(levels.children) == [f"scale{k}" for k in range(len(list(group.array_keys())))]
    for k, name in enumerate(levels.children):
        np.testing.assert_array_equal(levels[name]["image"].to_numpy(), group[str(k)][:])
    ids = np.unique(levels["scale0"]["image"])
    assert ids[ids > 0].tolist() == data.tables["table"].obs["label"].tolist()


def test_both_coordinate_systems_put_labels_and_shapes_on_each_other(folder: Path, data) -> None:
    assert sorted(data.coordinate_systems) == ["global", "micrometers"]
    centroids = open_result(folder).table
    x, y = (centroids[f"centroid_{axis}_l0"].to_numpy() for axis in "xy")
    for system, scale in (("global", 1.0), ("micrometers", MPP)):
        for element, l0_per_px in (("nuclei", 1), ("nuclei_labels", 2)):
            matrix = spatialdata.transformations.get_transformation(data[element], system).to_affine_matrix(
                ("x", "y"), ("x", "y")
            )
            np.testing.assert_allclose(matrix, np.diag([l0_per_px * scale, l0_per_px * scale, 1]))
        shapes = spatialdata.transform(data.shapes["nuclei"], to_coordinate_system=system)
        centres = shapely.points(x * scale, y * scale)
        assert (
            np.mean(shapely.contains(shapes.geometry.to_numpy(), centres)) > 0.9
        )  # of a crescent the centroid lies outside
    labels = data.labels["nuclei_labels"]["scale0"]["image"].to_numpy()
    rows, cols = (np.floor(values / 2).astype(int) for values in (y, x))
    assert np.mean(labels[rows, cols] == centroids["label"].to_numpy()) > 0.9


def test_levels_of_odd_size_keep_their_place(tmp_path: Path) -> None:
    make_folder(tmp_path / "slide", make_sample(40))
    data = spatialdata.read_zarr(export_slide(tmp_path / "slide", "spatialdata"))
    for level in data.labels["nuclei_labels"].children.values():
        step = level["image"]["y"].to_numpy()
        assert step[0] == pytest.approx((step[1] - step[0]) / 2)


def test_a_small_slide_has_one_level(tmp_path: Path) -> None:
    folder = segment_drawn(tmp_path, width=700, height=601)
    data = spatialdata.read_zarr(export_slide(folder, "spatialdata"))
    labels = open_result(folder).label_levels()
    assert len(labels) == 1
    np.testing.assert_array_equal(data.labels["nuclei_labels"].to_numpy(), labels[0].compute())


def test_a_slide_without_nuclei_is_labels_alone(tmp_path: Path) -> None:
    folder = tmp_path / "slide"
    make_folder(folder, make_sample(0))
    data = spatialdata.read_zarr(export_slide(folder, "spatialdata"))
    assert (len(data.labels), len(data.shapes), len(data.tables)) == (1, 0, 0)
