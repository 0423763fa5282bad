"""HoVer-Net and MicroNet of TIAToolbox through our pipeline. Needs TIAToolbox: scripts/test-tiatoolbox."""

import gzip
import json
import pickle

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from support_hover import hover_targets
from support_nuclei import draw_labels
from support_slides import write_slide

pytest.importorskip("tiatoolbox", reason="needs TIAToolbox: scripts/test-tiatoolbox")

import torch
from support_tiatoolbox import random_network, save_weights

from wsipipe.cli.main import app
from wsipipe.drawnslide import DemoSpec, Painter
from wsipipe.errors import CheckpointError, ModelError
from wsipipe.geojson import COLOURS
from wsipipe.grid import ALL_SIDES, Box
from wsipipe.integrations import tiatoolboxmodels
from wsipipe.integrations.tiatoolboxhover import HoverRules, hover_instances
from wsipipe.integrations.tiatoolboximport import import_from_tiatoolbox
from wsipipe.integrations.tiatoolboxmodels import MODELS, load_model
from wsipipe.integrations.tiatoolboxsegmenter import TiaSegmenter, read_facts
from wsipipe.runrecord import file_digest
from wsipipe.score import match
from wsipipe.verify import verify_folder

NAME = "hovernet_fast-pannuke"
WIDTH, HEIGHT = 280, 118  # px of the slide: two patches of HoVer-Net show it, their seam goes through it


def drawn(width: int, height: int | None = None) -> np.ndarray:
    box = Box(0, 0, width, height or width)
    return Painter(DemoSpec(box.width, box.height, mpp=0.25, tissue=1)).paint(box).rgb


@pytest.fixture(scope="module")
def network():
    return random_network(NAME, drawn(256))


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory):
    return save_weights(network, tmp_path_factory.mktemp("weights") / "random.pth")


@pytest.fixture(scope="module")
def segmenter(weights):
    return load_model(NAME, "cpu", weights)


@pytest.fixture(scope="module")
def run(weights, tmp_path_factory):
    """A slide done through the command line: its image and its folder."""
    place = tmp_path_factory.mktemp("run")
    image = drawn(WIDTH, HEIGHT)
    slide = write_slide(place / "drawn.tiff", image, mpp=0.25, factors=(1,), tile=128)
    arguments = ["run", str(slide), "-o", str(place / "out"), "--model", f"tiatoolbox:{NAME}@{weights}"]
    with pytest.raises(SystemExit) as exit_:
        app([*arguments, "--tissue", "none", "--workers", "0", "--device", "cpu"])
    assert exit_.value.code == 0
    return slide, place / "out" / "drawn"


def registry(name: str) -> dict:
    return import_from_tiatoolbox("tiatoolbox", what="test").rcParam["pretrained_model_info"][name]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_what_is_listed_agrees_with_the_registry(model, tmp_path):
    info = registry(model.name)
    facts = read_facts(model.name, info, tmp_path, "0", version="1", licence="x")
    assert facts.mpp == model.mpp
    io = info["ioconfig"]["kwargs"]
    assert facts.patch == io["patch_input_shape"][0]
    assert facts.core <= io["patch_output_shape"][0]
    assert facts.core == io["stride_shape"][0]
    assert facts.is_hover == model.name.startswith("hovernet")
    assert (len(facts.type_names) == 0) == ("without types" in model.about)


def test_every_nucleus_instance_model_of_the_registry_is_listed():
    info = import_from_tiatoolbox("tiatoolbox", what="test").rcParam["pretrained_model_info"]
    known = {"hovernet", "hovernetplus", "micronet"}
    fitting = {name for name, one in info.items() if one["architecture"]["class"].partition(".")[0] in known}
    assert {model.name for model in MODELS} == fitting


def test_it_says_what_it_is(segmenter):
    assert segmenter.name == f"tiatoolbox:{NAME}"
    assert (segmenter.mpp, segmenter.halo, segmenter.tile) == (0.25, 46, 6 * 164 + 92)
    assert segmenter.class_names[1:] == tuple(registry(NAME)["architecture"]["kwargs"]["nuc_type_dict"].values())[1:]
    assert json.loads(json.dumps(dict(segmenter.parameters)))["tiatoolbox"] == "2.1.3"
    assert len(segmenter.sha256) == 64


def test_maps_are_tiatoolboxs_own_on_the_same_patches(segmenter, network):
    """The tile holds one patch of tissue, the rest is white; `infer_batch` gets the same patch from us by hand."""
    image = np.full((1, 3, segmenter.tile, segmenter.tile), 255, np.uint8)
    y, x = 2 * 164, 3 * 164
    image[0, :, y + 92 : y + 164, x + 92 : x + 164] = drawn(72).transpose(2, 0, 1)  # what only this patch sees
    maps = segmenter.maps(image)[0]
    patch = np.ascontiguousarray(image[0, :, y : y + 256, x : x + 256].transpose(1, 2, 0))
    probability, distances, types = type(network).infer_batch(network, torch.from_numpy(patch[None]), device="cpu")
    ours = maps[:, y + 46 : y + 46 + 164, x + 46 : x + 46 + 164]
    assert np.abs(ours[0] / 255 - probability[0, ..., 0]).max() <= 0.5 / 255 + 1e-6
    assert ((ours[0] >= 128) == (probability[0, ..., 0] >= 0.5)).all()
    expected = np.clip(distances[0], -1, 1).transpose(2, 0, 1)
    assert np.abs(ours[1:3] / 127.5 - 1 - expected).max() <= 0.5 / 127.5 + 1e-6
    assert (ours[3] == types[0, ..., 0]).all()
    assert not maps[:, :46].any(), "nobody owns the halo"


@pytest.mark.filterwarnings("ignore:Implicit dimension choice for softmax")  # MicroNet's own code
@pytest.mark.parametrize("name", ["hovernet_original-kumar", "hovernetplus-oed", "micronet-consep"])
def test_the_other_networks_give_tiatoolboxs_maps_too(name, tmp_path):
    info = registry(name)
    side = info["ioconfig"]["kwargs"]["patch_input_shape"][0]
    patch = drawn(side)
    net = random_network(name)
    facts = read_facts(name, info, tmp_path, "0", version="1", licence="x")
    maps = TiaSegmenter(net, facts, device="cpu").patch_maps(patch.transpose(2, 0, 1)[None])[0]
    seen = torch.from_numpy(np.ascontiguousarray(net.preproc_func(patch))[None])
    outputs = type(net).infer_batch(net, seen, device="cpu")
    margin = (outputs[0].shape[1] - facts.core) // 2
    part = slice(margin, margin + facts.core)
    assert maps.shape[1:] == (facts.core, facts.core)
    assert np.abs(maps[0] / 255 - outputs[0][0, part, part, -1]).max() <= 0.5 / 255 + 1e-6
    if facts.is_hover:
        assert np.abs(maps[1] / 127.5 - 1 - np.clip(outputs[1][0, part, part, 0], -1, 1)).max() <= 0.5 / 127.5 + 1e-6


def both_ways(truth: np.ndarray, blur: float = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return TIAToolbox's labels of the float maps of known nuclei, and ours of the same maps as uint8."""
    planes = [(truth > 0).astype(np.float32), *hover_targets(truth)]
    if blur:
        planes = [cv2.GaussianBlur(plane, (0, 0), blur) for plane in planes]
    hover = import_from_tiatoolbox("tiatoolbox.models.architecture.hovernet", what="test").HoVerNet
    theirs = hover._proc_np_hv(planes[0][..., None], np.stack(planes[1:], axis=-1))
    scaled = [planes[0], (planes[1] + 1) / 2, (planes[2] + 1) / 2]
    maps = np.stack([np.rint(np.clip(plane, 0, 1) * 255) for plane in scaled]).astype(np.uint8)
    return theirs.astype(np.int32), hover_instances(maps, HoverRules.at_scale(1, 0), ALL_SIDES).labels


def test_nuclei_are_those_that_tiatoolbox_finds_on_the_same_maps():
    theirs, ours = both_ways(draw_labels(500, 500, 250, seed=2))
    ids = np.unique(theirs)[1:]
    same = sum(np.array_equal(ours == ours[theirs == label][0], theirs == label) for label in ids)
    assert same >= 0.97 * len(ids)


@pytest.mark.realdata
def test_on_crowded_nuclei_both_post_processings_agree_and_are_equally_good(data_root):
    """Two of MoNuSeg's training images; maps blurred as a network's are."""
    results = []
    for path in sorted((data_root / "nuclei" / "monuseg_train" / "labels").glob("*.png"))[::15]:
        truth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.int32)[:600, :600]
        theirs, ours = both_ways(truth, blur=1.5)
        results.append([match(theirs, ours).pq, match(truth, theirs).pq, match(truth, ours).pq])
    agreement, theirs_pq, ours_pq = np.mean(results, axis=0)
    assert agreement > 0.98
    assert ours_pq > theirs_pq - 0.01


def test_a_run_fills_types_and_keeps_every_promise(run):
    _, folder = run
    verify_folder(folder)
    table = pq.read_table(folder / "nuclei.parquet")
    types = tuple(registry(NAME)["architecture"]["kwargs"]["nuc_type_dict"].values())[1:]
    names = table["class_name"].to_pylist()
    assert len(names) > 5
    assert set(names) <= {"Nucleus", *types}
    assert len(set(names) & set(types)) > 1
    for name, probability in zip(names, table["class_prob"].to_pylist(), strict=True):
        assert (probability is None) == (name == "Nucleus")
        assert probability is None or 0 < probability <= 1


def test_qupath_gets_the_types_with_their_colours(run, segmenter):
    _, folder = run
    features = json.loads(gzip.decompress((folder / "nuclei.geojson.gz").read_bytes()))["features"]
    for feature in features:
        given = feature["properties"]["classification"]
        assert given["color"] == list(COLOURS[segmenter.class_names.index(given["name"])])


def test_run_json_names_network_weights_and_version(run, weights):
    _, folder = run
    record = json.loads((folder / "run.json").read_text())
    assert record["model"] == f"tiatoolbox:{NAME}"
    assert record["model_sha256"] == record["run_key"]["model_sha256"] == file_digest(weights).sha256
    assert record["parameters"]["tiatoolbox"] == "2.1.3"


def test_the_report_counts_nuclei_by_type(run):
    _, folder = run
    names = pq.read_table(folder / "nuclei.parquet")["class_name"].to_pylist()
    text = (folder / "report.html").read_text(encoding="utf-8")
    for name in set(names):
        assert name in text


def test_it_travels_to_other_processes_as_a_file(segmenter):
    _module, arguments = segmenter.__reduce__()
    assert arguments == (NAME, "cpu", segmenter.facts.weights)
    assert len(pickle.dumps(segmenter)) < 2000
    copy = pickle.loads(pickle.dumps(segmenter))
    assert (copy.name, copy.sha256, dict(copy.parameters)) == (
        segmenter.name,
        segmenter.sha256,
        dict(segmenter.parameters),
    )


def test_weights_of_another_network_are_refused_in_one_line(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"layer": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="weights file must hold a state dict of TIAToolbox's HoVerNet") as error:
        load_model(NAME, "cpu", path)
    assert "\n" not in str(error.value)


def test_weights_that_cannot_be_downloaded_say_where_to_put_them(tmp_path, monkeypatch):
    architecture = import_from_tiatoolbox("tiatoolbox.models.architecture", what="test")

    def refuse(name):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(architecture, "fetch_pretrained_weights", refuse)
    monkeypatch.setattr(tiatoolboxmodels, "WEIGHTS_DIR", tmp_path)
    with pytest.raises(ModelError, match=r"no route to host.*put them at .*hovernet_fast-pannuke.pth, or pass --model"):
        load_model(NAME, "cpu", None)


def test_weights_that_are_there_are_not_downloaded(tmp_path, monkeypatch, network):
    monkeypatch.setattr(tiatoolboxmodels, "WEIGHTS_DIR", tmp_path)
    path = save_weights(network, tmp_path / f"{NAME}.pth")
    assert load_model(NAME, "cpu", None).facts.weights == path
