"""Batches: a pure function of (seed, step), domains in their shares, targets and masks in step with the labels."""

import threading
from collections import Counter
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from amasam.data.augment import AugmentConfig, PatchSize
from amasam.data.batch import DomainBatch
from amasam.data.prefetch import PrefetchConfig, PrefetchLoader
from amasam.data.sampler import CropSampler, SamplerConfig, domain_weights
from amasam.data.samples import DataError, DataSet, Sample

CONFIG = SamplerConfig(batch=4, patch=PatchSize(32, 0.25, 8))


def make_set(name: str, count: int, size: int = 64) -> DataSet:
    """Images that are told apart by their grey level."""
    labels = np.zeros((size, size), np.int32)
    labels[4:20, 4:20], labels[30:44, 30:50] = 1, 2
    samples = [
        Sample(np.full((size, size, 3), 10 * k + 5, np.uint8), labels, f"{name}{k}", name, f"{k}", 0.25)
        for k in range(count)
    ]
    return DataSet(name, tuple(samples))


SETS = (make_set("main", 6), make_set("small", 2), make_set("large", 9))


def same(one: DomainBatch, other: DomainBatch) -> bool:
    return all(torch.equal(getattr(one, item.name), getattr(other, item.name)) for item in fields(one))


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    sampler = CropSampler(CONFIG, SETS, 7)
    late = sampler.batch(5)
    sampler.batch(2)
    assert same(late, CropSampler(CONFIG, SETS, 7).batch(5))
    assert not same(late, CropSampler(CONFIG, SETS, 8).batch(5))
    assert not same(late, sampler.batch(6))


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # where this process may use one core
@pytest.mark.parametrize("config", [PrefetchConfig(0), PrefetchConfig(3, ahead=1), PrefetchConfig(2, "processes")])
def test_prefetched_batches_come_in_step_order_and_bit_identical(config: PrefetchConfig) -> None:
    sampler = CropSampler(CONFIG, SETS, 1)
    loader = PrefetchLoader(sampler, config, start=3, stop=10)
    found = list(loader)
    assert len(found) == len(loader) == 7
    assert all(same(batch, sampler.batch(3 + k)) for k, batch in enumerate(found))


def test_a_loader_left_early_ends_its_threads() -> None:
    before = threading.active_count()
    batches = iter(PrefetchLoader(CropSampler(CONFIG, SETS, 1), PrefetchConfig(2), start=0, stop=1000))
    next(batches)
    assert threading.active_count() > before
    batches.close()
    assert threading.active_count() == before


def test_an_error_in_a_worker_reaches_the_training_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: CropSampler, step: int) -> DomainBatch:
        raise DataError("lost")

    monkeypatch.setattr(CropSampler, "batch", fail)
    with pytest.raises(DataError, match="lost"):
        next(iter(PrefetchLoader(CropSampler(CONFIG, SETS, 1), PrefetchConfig(1), start=0, stop=3)))


def test_shapes_and_types_of_a_batch() -> None:
    batch = CropSampler(CONFIG, SETS, 0).batch(0)
    found = {
        item.name: (tuple(getattr(batch, item.name).shape), getattr(batch, item.name).dtype) for item in fields(batch)
    }
    assert found == {
        "images": ((4, 3, 32, 32), torch.uint8),
        "labels": ((4, 32, 32), torch.int32),
        "foreground": ((4, 1, 32, 32), torch.uint8),
        "maps": ((4, 2, 32, 32), torch.float16),
        "valid": ((4, 1, 32, 32), torch.uint8),
        "trusted": ((4, 1, 32, 32), torch.uint8),
        "is_primary": ((4,), torch.bool),
        "domain": ((4,), torch.int64),
        "weights": ((4,), torch.float32),
        "zoom": ((4,), torch.float32),
    }
    assert torch.equal(batch.foreground[:, 0] > 0, batch.labels > 0)
    assert torch.equal(batch.is_primary, batch.domain == 0)


def test_parts_of_a_batch_make_up_the_batch() -> None:
    batch = CropSampler(CONFIG, SETS, 0).batch(0)
    assert len(batch.part(slice(0, 3))) == 3
    assert torch.equal(batch.part(slice(2, 4)).images, batch.images[2:])
    assert same(batch.to("cpu"), batch)


@pytest.mark.parametrize(
    ("sampler", "aux", "shares"),
    [
        ("share", (), (0.5, 0.25, 0.25)),
        ("share", (("large", 3.0),), (0.5, 0.125, 0.375)),
        ("balanced", (), (1 / 3,) * 3),
    ],
)
def test_domains_have_their_shares_in_the_long_run_and_the_primary_in_every_batch(
    sampler: str, aux: tuple[tuple[str, float], ...], shares: tuple[float, ...]
) -> None:
    config = replace(CONFIG, sampler=sampler, aux_shares=aux, augment=AugmentConfig("plain"))
    drawn = CropSampler(config, SETS, 0)
    counts: Counter[int] = Counter()
    for step in range(60):
        batch = drawn.batch(step)
        assert int((batch.domain == 0).sum()) in (1, 2)
        counts.update(batch.domain.tolist())
    assert [counts[k] / 240 for k in range(3)] == pytest.approx(shares, abs=0.06)


def test_shuffle_shows_every_image_once_per_epoch_in_changing_order() -> None:
    sampler = CropSampler(replace(CONFIG, sampler="shuffle", augment=AugmentConfig("plain")), SETS, 0)
    assert (sampler.n_images, sampler.steps_per_epoch) == (17, 5)
    orders = []
    for epoch in range(2):
        batches = [sampler.batch(5 * epoch + k) for k in range(5)]
        assert [len(batch) for batch in batches] == [4, 4, 4, 4, 1]
        orders.append([(int(d), int(i[0, 0, 0])) for b in batches for d, i in zip(b.domain, b.images, strict=True)])
    assert len(set(orders[0])) == 17
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


def test_patches_are_drawn_around_nuclei_when_asked() -> None:
    labels = np.zeros((400, 400), np.int32)
    labels[350:356, 350:356] = 1
    lonely = DataSet("main", (Sample(np.zeros((400, 400, 3), np.uint8), labels, "a", "main", "p", 0.25),))
    for share, seen in ((1.0, 20), (0.0, 2)):
        sampler = CropSampler(
            replace(CONFIG, batch=20, nucleus_share=share, augment=AugmentConfig("plain")), [lonely], 0
        )
        found = int(sampler.batch(0).foreground.amax(dim=(1, 2, 3)).sum())
        assert found == 20 if share else found <= seen


def test_doubtful_labels_count_as_foreground_but_not_for_instance_maps() -> None:
    data = make_set("main", 1)
    data = replace(data, samples=(replace(data.samples[0], doubtful=np.array([2], np.int32)),))
    config = replace(CONFIG, patch=PatchSize(64, 0.25, 0), augment=AugmentConfig("plain"))
    batch = CropSampler(config, [data], 0).batch(0)
    assert torch.equal(batch.trusted[:, 0] == 0, batch.labels == 2)
    assert (batch.labels == 2).any()
    assert batch.foreground[:, 0][batch.labels == 2].all()
    assert batch.valid.all()


def test_padding_is_neither_valid_nor_trusted() -> None:
    data = make_set("main", 1)
    cut = replace(data.samples[0], image=data.samples[0].image[:32], labels=data.samples[0].labels[:32])
    config = replace(CONFIG, augment=AugmentConfig("paper"))
    batch = CropSampler(config, [replace(data, samples=(cut,))], 0).batch(0)
    assert batch.valid.float().mean() == batch.trusted.float().mean() == 0.5


def test_weights_of_the_specs_example() -> None:
    """MoNuSeg 30 + TNBC 40 + CryoNuSeg 24 + cpm17 32 = 126: 2.10 and 0.656 (spec 3.4)."""
    counts = (30, 40, 24, 32)
    assert domain_weights(counts, "two_class") == pytest.approx((2.1, 0.65625, 0.65625, 0.65625))
    assert domain_weights(counts, "per_dataset") == pytest.approx([126 / (4 * n) for n in counts])
    for scheme in ("two_class", "per_dataset", "one"):
        assert np.dot(domain_weights(counts, scheme), counts) == pytest.approx(126)
    assert domain_weights([30], "two_class") == (1.0,)


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="balances domains already"):
        replace(CONFIG, sampler="balanced", weights="two_class")
    with pytest.raises(ValueError, match="sampler must be"):
        replace(CONFIG, sampler="random")
    with pytest.raises(DataError, match="no training images"):
        CropSampler(CONFIG, [make_set("main", 0)], 0)
    with pytest.raises(DataError, match="aux_shares names 'other'"):
        CropSampler(replace(CONFIG, aux_shares=(("other", 1.0),)), SETS, 0)
    with pytest.raises(ValueError, match="kind threads or processes"):
        PrefetchConfig(1, "fibres")


def test_a_single_set_is_its_own_primary() -> None:
    assert CropSampler(CONFIG, SETS[:1], 0).batch(0).is_primary.all()
