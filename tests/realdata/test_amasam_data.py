"""The annotated sets as they are: counts, splits, sizes, the rule for merged labels, whole batches."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from amasam.data.augment import AugmentConfig, PatchSize
from amasam.data.load import load_set
from amasam.data.noise import merged_labels
from amasam.data.sampler import CropSampler, SamplerConfig
from amasam.data.samples import DataSet, Sample
from amasam.data.splits import split_by_patient, training_sets

pytestmark = pytest.mark.realdata

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows" / "data"
NUCLEI = {"monuseg_train": 16958, "tnbc": 3157, "cpm15": 2905, "gbm40": 4976, "dsb2018_he": 4550}
SIX = {"TCGA-E2-A14V", "TCGA-B0-5698", "TCGA-50-5931", "TCGA-CH-5767", "TCGA-DK-A2I6", "TCGA-KB-A93J"}


@pytest.fixture(scope="module")
def sets(data_root: Path) -> dict[str, DataSet]:
    return {name: load_set(WORKFLOWS / f"{name}.toml", data_root) for name in NUCLEI}


def median_um(sample: Sample) -> float:
    area = np.bincount(sample.labels.ravel())[1:]
    return float(2 * np.sqrt(np.median(area[area > 0]) / np.pi) * sample.mpp)


def test_every_set_has_its_published_number_of_nuclei(sets: dict[str, DataSet]) -> None:
    assert {name: sum(sample.n_nuclei for sample in data.samples) for name, data in sets.items()} == NUCLEI


def test_the_six_validation_patients_are_never_trained_on(sets: dict[str, DataSet]) -> None:
    split = split_by_patient(sets["monuseg_train"])
    assert {sample.patient for sample in split.validation.samples} == SIX
    trained = [s for data in training_sets(list(sets.values()), primary="monuseg_train") for s in data.samples]
    assert not SIX & {sample.patient for sample in trained if sample.domain == "monuseg_train"}
    assert not any(patient in sample.name for sample in trained for patient in SIX)
    assert len(trained) == 24 + 37 + 15 + 40 + 107


def test_nuclei_have_plausible_sizes_at_the_mpp_of_each_set(sets: dict[str, DataSet]) -> None:
    """A wrong mpp would show as a factor of two."""
    for data in sets.values():
        assert 4.5 < np.median([median_um(sample) for sample in data.samples]) < 7, data.name


def test_labels_merged_on_purpose_are_found_with_the_stated_precision(sets: dict[str, DataSet]) -> None:
    merged, truth = [], []
    for sample in sets["monuseg_train"].samples:
        components = cv2.connectedComponents((sample.labels > 0).astype(np.uint8), connectivity=8)[1].astype(np.int32)
        pair, count = np.unique(components.astype(np.int64) << 32 | sample.labels, return_counts=True)
        area = np.bincount(components.ravel())
        part = (pair >> 32).astype(np.intp)[(pair >> 32 > 0) & (count >= 0.12 * area[pair >> 32])]
        merged.append(replace(sample, labels=components))
        truth.append(set(np.flatnonzero(np.bincount(part) > 1)))  # several nuclei of more than an eighth each
    found = [set(ids.tolist()) for ids in merged_labels(merged)]
    hits = sum(len(a & b) for a, b in zip(found, truth, strict=True))
    assert hits / sum(map(len, found)) == pytest.approx(0.89, abs=0.02)
    assert hits / sum(map(len, truth)) == pytest.approx(0.71, abs=0.02)


def test_few_labels_of_tnbc_are_doubtful_and_none_of_sets_with_true_instances(sets: dict[str, DataSet]) -> None:
    doubtful = {name: sum(len(s.doubtful) for s in data.samples) for name, data in sets.items()}
    assert 0.02 < doubtful.pop("tnbc") / NUCLEI["tnbc"] < 0.05
    assert set(doubtful.values()) == {0}


def test_a_batch_of_all_sets_holds_nuclei_of_one_size_range(sets: dict[str, DataSet]) -> None:
    config = SamplerConfig(batch=16, patch=PatchSize(192), augment=AugmentConfig("plain"))
    sampler = CropSampler(config, training_sets(list(sets.values()), primary="monuseg_train"), 0)
    batch = sampler.batch(0)
    assert batch.domain.bincount().tolist() == [8, 2, 2, 2, 2]
    assert batch.foreground.float().mean() > 0.08
    assert (batch.maps[:, 0].amax(dim=(1, 2)) <= 1).all()
    for labels in batch.labels.numpy():
        area = np.bincount(labels.ravel())[1:]
        if np.count_nonzero(area) > 8:
            assert 8 < 2 * np.sqrt(np.median(area[area > 0]) / np.pi) < 45
