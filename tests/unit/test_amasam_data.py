"""Data sets from disk: every format on a miniature folder, descriptions, splits, merged labels."""

import logging
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from scipy.io import savemat
from support_drawn import draw_set

from amasam.data.files import estimate_mpp
from amasam.data.load import load_set
from amasam.data.monuseg import TEST_14, TRAIN_30, fill_rings
from amasam.data.noise import label_shapes, merged_labels
from amasam.data.samples import DataError, DataSet, Sample
from amasam.data.spec import SetSpec, read_spec
from amasam.data.splits import split_at_random, split_by_patient, splitter, training_sets
from amasam.rundir import hash_samples

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows" / "data"
SIZE = (12, 16)


def rgb(value: int = 200) -> np.ndarray:
    pixels = np.full((*SIZE, 3), value, np.uint8)
    pixels[..., 0] = 10  # red differs, so a swap of channels shows
    return pixels


def two_nuclei() -> np.ndarray:
    labels = np.zeros(SIZE, np.uint16)
    labels[1:4, 1:5], labels[7:10, 8:12] = 5, 300
    return labels


def save_rgb(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    order = [2, 1, 0, 3] if pixels.shape[2] == 4 else [2, 1, 0]
    assert cv2.imwrite(str(path), pixels[..., order])


def save_labels(path: Path, labels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), labels)


def make_set(name: str = "a", patients: tuple[str, ...] = ("p", "q", "r"), **held_out: frozenset[str]) -> DataSet:
    samples = [
        Sample(rgb(), two_nuclei().astype(np.int32), f"{p}_{k}", name, p, 0.25) for p in patients for k in (1, 2)
    ]
    return DataSet(name, tuple(samples), **held_out)


# --- the generic folder ---------------------------------------------------------------------------------------------


def test_a_folder_is_read_with_mpp_patient_and_organ_of_its_description(tmp_path: Path) -> None:
    for stem in ("image01", "image08"):
        save_rgb(tmp_path / "nuclei/x/images" / f"{stem}.png", rgb())
    save_labels(tmp_path / "nuclei/x/labels/image01.png", two_nuclei())
    np.save(tmp_path / "nuclei/x/labels/image08.npy", two_nuclei().astype(np.int64))
    spec = SetSpec(
        "x",
        "nuclei/x",
        0.25,
        mpp_of=(("^image0[1-7]$", 0.5),),
        patient=r"image(\d+)",
        organ_of=((r"e(\d)", r"organ\1"),),
    )
    data = load_set(spec, tmp_path)
    assert [(s.name, s.mpp, s.patient, s.organ) for s in data.samples] == [
        ("image01", 0.5, "01", "organ0"),
        ("image08", 0.25, "08", "organ0"),
    ]
    for sample in data.samples:
        np.testing.assert_array_equal(sample.image, rgb())
        np.testing.assert_array_equal(sample.labels, two_nuclei())
        assert sample.n_nuclei == 2


def test_an_alpha_channel_is_dropped(tmp_path: Path) -> None:
    save_rgb(tmp_path / "x/images/a.png", np.dstack([rgb(), np.full(SIZE, 255, np.uint8)]))
    save_labels(tmp_path / "x/labels/a.png", two_nuclei())
    np.testing.assert_array_equal(load_set(SetSpec("x", "x", 0.25), tmp_path).samples[0].image, rgb())


def test_what_is_wrong_on_disk_is_named_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder"):
        load_set(SetSpec("x", "missing", 0.25), tmp_path)
    save_rgb(tmp_path / "x/images/a.png", rgb())
    with pytest.raises(DataError, match="'a' has no partner"):
        load_set(SetSpec("x", "x", 0.25), tmp_path)
    save_labels(tmp_path / "x/labels/a.png", two_nuclei())
    with pytest.raises(DataError, match=r"expected 3 images .* found 1"):
        load_set(SetSpec("x", "x", 0.25, images=3), tmp_path)
    (tmp_path / "x/images/a.png").write_bytes(b"not a png")
    with pytest.raises(DataError, match="cannot decode"):
        load_set(SetSpec("x", "x", 0.25), tmp_path)


def test_images_and_labels_of_different_size_are_refused() -> None:
    with pytest.raises(DataError, match="labels must be int32"):
        Sample(rgb(), np.zeros((3, 3), np.int32), "a", "x", "p", 0.25)


def test_an_unknown_mpp_is_estimated_from_the_median_nucleus() -> None:
    labels = np.zeros((64, 64), np.int32)
    labels[10:20, 10:20], labels[30:40, 30:40] = 1, 2  # 100 px: 11.28 px across
    assert estimate_mpp(labels, 5.642) == pytest.approx(0.5, rel=1e-3)
    assert estimate_mpp(labels, 100.0) == 0.6
    assert estimate_mpp(np.zeros((4, 4), np.int32), 5.6) == 0.25


def test_the_hash_sees_a_changed_label() -> None:
    data = make_set()
    changed = data.samples[0].labels.copy()
    changed[0, 0] = 1
    other = replace(data, samples=(replace(data.samples[0], labels=changed), *data.samples[1:]))
    assert hash_samples(data.samples) == hash_samples(make_set().samples) != hash_samples(other.samples)


# --- descriptions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(WORKFLOWS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_description_in_workflows_is_read(path: Path) -> None:
    spec = read_spec(path)
    assert spec.images > 0
    assert spec.mpp > 0 or spec.nucleus_um > 0


def test_cpm15_has_two_resolutions() -> None:
    spec = read_spec(WORKFLOWS / "cpm15.toml")
    assert [spec.mpp_at(f"image{k:02d}") for k in (1, 7, 8, 15)] == [0.5, 0.5, 0.25, 0.25]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "x"\nfolder = "x"\nmpp = 1\ncolour = 3', "unknown key 'colour'"),
        ('name = "x"\nmpp = 1', "missing key 'folder'"),
        ('name = "x"\nfolder = "x"\nmpp = 1\nformat = "zip"', "format must be one of"),
        ('name = "x"\nfolder = "x"\nmpp = 1\npart = "some"', "part must be"),
        ('name = "x"\nfolder = "x"\nmpp = 1\npatient = "("', "not a regular expression"),
        ("name = ", "cannot read"),
    ],
)
def test_a_wrong_description_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(DataError, match=message):
        read_spec(tmp_path / "x.toml")


def test_a_patient_pattern_must_match_and_an_empty_one_makes_the_set_one_patient() -> None:
    with pytest.raises(DataError, match="does not match image 'b'"):
        SetSpec("x", "x", 0.25, patient="^a").patient_of("b")
    assert SetSpec("x", "x", 0.25, patient="").patient_of("b") == "x"


# --- splits ---------------------------------------------------------------------------------------------------------


def patients_of(data: DataSet) -> set[str]:
    return {sample.patient for sample in data.samples}


def test_split_parts_share_no_patient_and_lose_no_image() -> None:
    data = make_set(validation=frozenset("q"), test=frozenset("r"))
    split = split_by_patient(data)
    parts = [split.train, split.validation, split.test]
    assert [len(part) for part in parts] == [2, 2, 2]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not patients_of(parts[one]) & patients_of(parts[other])
    assert sorted(s.name for part in parts for s in part.samples) == [s.name for s in data.samples]


def test_a_held_out_patient_must_exist_in_one_part_only() -> None:
    with pytest.raises(DataError, match="'z' is not in the set"):
        split_by_patient(make_set(validation=frozenset("z")))
    with pytest.raises(DataError, match="in validation and in test"):
        split_by_patient(make_set(validation=frozenset("q"), test=frozenset("q")))


def test_the_primary_set_comes_first_and_never_gives_its_held_out_patients() -> None:
    sets = [make_set("aux", test=frozenset("p")), make_set("main", validation=frozenset("q"))]
    for aux_all, of_aux in ((False, 4), (True, 6)):
        chosen = training_sets(sets, primary="main", aux_all=aux_all)
        assert [(data.name, len(data)) for data in chosen] == [("main", 4), ("aux", of_aux)]
        assert "q" not in {sample.patient for sample in chosen[0].samples}


def test_the_six_validation_patients_are_held_out_in_both_descriptions_of_monuseg() -> None:
    six = {"TCGA-E2-A14V", "TCGA-B0-5698", "TCGA-50-5931", "TCGA-CH-5767", "TCGA-DK-A2I6", "TCGA-KB-A93J"}
    for name in ("monuseg_train", "monuseg_official"):
        spec = read_spec(WORKFLOWS / f"{name}.toml")
        patients = [spec.patient_of(stem) for stem in TRAIN_30]
        assert set(spec.validation) == six <= set(patients)
        assert all(spec.organ_at(stem) for stem in TRAIN_30)
    test = read_spec(WORKFLOWS / "monuseg_test.toml")
    assert all(test.organ_at(stem) for stem in TEST_14)
    assert not set(patients) & {test.patient_of(stem) for stem in TEST_14}


@pytest.mark.parametrize(("images", "parts"), [(44, [35, 4, 5]), (50, [40, 5, 5]), (30, [24, 3, 3]), (64, [51, 6, 7])])
def test_the_random_split_has_unsams_counts_and_loses_no_image(images: int, parts: list[int]) -> None:
    data = make_set(patients=tuple(f"{k:02d}" for k in range(images // 2)))
    split = split_at_random(data, seed=3)
    names = [[sample.name for sample in part.samples] for part in (split.train, split.validation, split.test)]
    assert [len(part) for part in names] == parts
    assert sorted(name for part in names for name in part) == [sample.name for sample in data.samples]
    assert splitter("random", 3)(data).test.samples == split.test.samples
    assert splitter("random", 4)(data).test.samples != split.test.samples


# --- MoNuSeg --------------------------------------------------------------------------------------------------------


def xml(*rings: list[tuple[float, float]]) -> str:
    """One annotation layer per ring, as Aperio writes them."""
    layers = []
    for k, ring in enumerate(rings):
        vertices = "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in ring)
        layers.append(
            f'<Annotation><Regions><Region Id="{k}"><Vertices>{vertices}</Vertices></Region></Regions></Annotation>'
        )
    return f'<Annotations MicronsPerPixel="0.252000">{"".join(layers)}</Annotations>'


def square(x: float, y: float, side: float) -> list[tuple[float, float]]:
    return [(x, y), (x + side, y), (x + side, y + side), (x, y + side)]


@pytest.fixture
def monuseg(tmp_path: Path) -> Path:
    """The training download of 37 images, and the 14 test images."""
    train = tmp_path / "MoNuSeg" / "MoNuSeg 2018 Training Data"
    test = tmp_path / "MoNuSeg" / "MoNuSegTestData"
    for folder in (train / "Tissue Images", train / "Annotations", test):
        folder.mkdir(parents=True)
    content = xml(square(2.5, 3.5, 4), [(0, 0), (1, 1)], square(12.5, 6.5, 40))
    for stem in (*TRAIN_30, *(f"TCGA-XX-{k:04d}-01Z-00-DX1" for k in range(7))):
        tifffile.imwrite(train / "Tissue Images" / f"{stem}.tif", rgb())
        (train / "Annotations" / f"{stem}.xml").write_text(content)
    for stem in TEST_14:
        tifffile.imwrite(test / f"{stem}.tif", rgb())
        (test / f"{stem}.xml").write_text(content)
    return tmp_path


def test_of_37_monuseg_images_the_30_are_read_and_the_others_listed(
    monuseg: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        data = load_set(WORKFLOWS / "monuseg_official.toml", monuseg)
    assert tuple(sample.name for sample in data.samples) == TRAIN_30
    assert "7 images are not of the challenge" in caplog.text
    assert "TCGA-XX-0003" in caplog.text
    assert [len(part) for part in (split_by_patient(data).train, split_by_patient(data).validation)] == [24, 6]


def test_the_14_monuseg_test_images_are_read(monuseg: Path) -> None:
    assert len(load_set(WORKFLOWS / "monuseg_test.toml", monuseg)) == 14


def test_monuseg_outlines_start_at_id_1_lie_one_pixel_up_left_and_are_cut_at_the_image(monuseg: Path) -> None:
    sample = load_set(WORKFLOWS / "monuseg_test.toml", monuseg).samples[0]
    expected = np.zeros(SIZE, np.int32)
    expected[3:7, 2:6] = 1  # vertices 2.5..6.5 minus 1 hold the pixel centres 2..5
    expected[6:, 12:] = 2  # the ring of two vertices is none
    np.testing.assert_array_equal(sample.labels, expected)


def test_a_small_nucleus_inside_a_large_outline_stays_visible() -> None:
    rings = [np.array(square(x, y, side)) for x, y, side in ((3.5, 3.5, 2), (1.5, 1.5, 8))]
    assert np.bincount(fill_rings(rings, SIZE).ravel()).tolist() == [12 * 16 - 64, 4, 60]


def test_a_missing_monuseg_image_is_named(monuseg: Path) -> None:
    (monuseg / "MoNuSeg/MoNuSeg 2018 Training Data/Annotations" / f"{TRAIN_30[3]}.xml").unlink()
    with pytest.raises(DataError, match=TRAIN_30[3]):
        load_set(WORKFLOWS / "monuseg_official.toml", monuseg)


# --- TNBC, CryoNuSeg, cpm17 -----------------------------------------------------------------------------------------


def test_tnbc_pairs_slides_with_masks_and_labels_components(tmp_path: Path) -> None:
    root = tmp_path / "TNBC_NucleiSegmentation"
    mask = np.dstack([(two_nuclei() > 0) * np.uint8(255)] * 3)
    mask[4, 5] = 255  # touches the first nucleus at a corner
    for stem in ("01_1", "01_2", "11_1"):
        save_rgb(root / f"Slide_{stem[:2]}/{stem}.png", np.dstack([rgb(), np.full(SIZE, 255, np.uint8)]))
        save_rgb(root / f"GT_{stem[:2]}/{stem}.png", mask)
    save_rgb(root / "__MACOSX/Slide_01/01_1.png", rgb())
    save_rgb(root / "Slide_01/._01_1.png", rgb())
    spec = replace(read_spec(WORKFLOWS / "tnbc_official.toml"), images=3, validation=(), test=("11",))
    data = load_set(spec, tmp_path)
    assert [(s.name, s.patient, s.n_nuclei) for s in data.samples] == [
        ("01_1", "01", 2),
        ("01_2", "01", 2),
        ("11_1", "11", 2),
    ]
    assert np.count_nonzero(data.samples[0].labels == 1) == 13
    (root / "GT_11/11_1.png").unlink()
    with pytest.raises(DataError, match="'11_1' is not in both"):
        load_set(spec, tmp_path)


@pytest.mark.parametrize("annotator", ["Annotator 1 (biologist)", "Annotator 2 (bioinformatician)"])
def test_cryonuseg_reads_the_corrected_masks_even_of_a_doubled_folder(tmp_path: Path, annotator: str) -> None:
    root = tmp_path / "CryoNuSeg"
    doubled = root / "Annotator 2 (bioinformatician)" / "Annotator 2 (bioinformatician)"
    for stem in ("Human_Thymus_01", "Human_ThyroidGland_02", "Human_Skin_03"):
        save_rgb(root / "tissue images" / f"{stem}.tif", rgb())
        for folder in (root / "Annotator 1 (biologist)", doubled):
            save_labels(folder / "label masks modify" / f"{stem}.tif", two_nuclei())
            save_labels(folder / "label masks" / f"{stem}.tif", two_nuclei() + 7)
    spec = replace(read_spec(WORKFLOWS / "cryonuseg.toml"), images=3, annotator=annotator)
    data = load_set(spec, tmp_path)
    np.testing.assert_array_equal(data.samples[0].labels, two_nuclei())
    split = split_by_patient(data)
    assert [part.samples[0].organ for part in (split.train, split.validation, split.test)] == [
        "Skin",
        "Thymus",
        "ThyroidGland",
    ]
    with pytest.raises(DataError, match="Annotator 3"):
        load_set(replace(spec, annotator="Annotator 3"), tmp_path)


def test_cpm17_reads_the_instance_map_of_matlab_files(tmp_path: Path) -> None:
    for part in ("train", "test"):
        save_rgb(tmp_path / "cpm17" / part / "Images" / "image_00.png", rgb())
        (tmp_path / "cpm17" / part / "Labels").mkdir()
        savemat(tmp_path / "cpm17" / part / "Labels/image_00.mat", {"inst_map": two_nuclei().astype(np.float64)})
    spec = replace(read_spec(WORKFLOWS / "cpm17.toml"), images=1)
    data = load_set(spec, tmp_path)
    assert data.samples[0].labels.dtype == np.int32
    np.testing.assert_array_equal(data.samples[0].labels, two_nuclei())
    assert len(load_set(replace(spec, part="all", images=2), tmp_path)) == 2
    savemat(tmp_path / "cpm17/train/Labels/image_00.mat", {"other": np.zeros(3)})
    with pytest.raises(DataError, match="inst_map"):
        load_set(spec, tmp_path)
    (tmp_path / "cpm17/train/Labels/image_00.mat").write_bytes(b"?" * 200)
    with pytest.raises(DataError, match="MATLAB"):
        load_set(spec, tmp_path)


# --- merged labels --------------------------------------------------------------------------------------------------


def disks(*centres: tuple[int, int], radius: int = 8, size: int = 96) -> np.ndarray:
    rows, cols = np.indices((size, size))
    labels = np.zeros((size, size), np.int32)
    for label, (row, col) in enumerate(centres, start=1):
        labels[(rows - row) ** 2 + (cols - col) ** 2 <= radius**2] = label
    return labels


def test_solidity_is_one_for_convex_shapes_and_falls_with_notches() -> None:
    labels = np.zeros((20, 20), np.int32)
    labels[2:8, 3:12] = 4
    labels[10:18, 2:4] = labels[16:18, 2:10] = 9  # an L: 16 + 12 px of a hull of 44 or so
    ids, area, solidity = label_shapes(labels)
    assert ids.tolist() == [4, 9]
    assert area.tolist() == [54, 28]
    assert solidity[0] == 1
    assert solidity[1] < 0.7


def test_two_disks_under_one_id_are_found_and_single_ones_are_not() -> None:
    labels = disks((20, 20), (20, 70), (70, 20), (70, 62), (70, 76))
    merged = np.where(labels == 5, 4, labels).astype(np.int32)
    sample = Sample(np.zeros((96, 96, 3), np.uint8), merged, "a", "x", "p", 0.25)
    blank = replace(sample, labels=np.zeros((96, 96), np.int32))
    assert [ids.tolist() for ids in merged_labels([sample, blank])] == [[4], []]


def test_a_large_convex_nucleus_is_no_merged_label() -> None:
    labels = disks((20, 20), (20, 70), (70, 20))
    labels[disks((70, 70), radius=16) > 0] = 4
    sample = Sample(np.zeros((96, 96, 3), np.uint8), labels, "a", "x", "p", 0.25)
    assert merged_labels([sample])[0].tolist() == []


# --- drawn sets -----------------------------------------------------------------------------------------------------


def test_drawn_sets_are_repeatable_and_their_nuclei_are_darker_than_the_ground() -> None:
    one, again, other = (draw_set(name, count=2, size=96, n_nuclei=12) for name in ("a", "a", "b"))
    assert hash_samples(one.samples) == hash_samples(again.samples) != hash_samples(other.samples)
    for sample in one.samples:
        assert 1 < sample.n_nuclei <= 12
        assert sample.image[sample.labels > 0].mean() < sample.image[sample.labels == 0].mean() - 30
    assert one.samples[0].patient != one.samples[1].patient
