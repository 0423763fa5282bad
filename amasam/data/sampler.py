"""Which patch comes when: a pure function of (seed, step), so resumed runs and any number of workers see the same."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from amasam.data.augment import Aim, AugmentConfig, Patch, PatchSize, cut_patch
from amasam.data.batch import DomainBatch, DomainOf, stack
from amasam.data.samples import DataError, DataSet, Sample


@dataclass(frozen=True, slots=True)
class SamplerConfig:
    """How batches are drawn.

    Attributes:
        batch: patches per batch.
        patch: size, mpp and margin.
        sampler: "share" gives `primary_share` of the patches to the primary set and parts the rest by `aux_shares`;
            "balanced" gives every set the same; "shuffle" walks through all images in a new order every epoch, each
            image once [C, spec 6].
        primary_share: of "share".
        aux_shares: (set name, relative share) pairs; sets not named have 1.
        nucleus_share: share of patches drawn around a nucleus of the image, the others lie anywhere.
        weights: of the domain loss: "two_class" | "per_dataset" | "one"; the first two correct for set sizes, so they
            go with "shuffle"; samplers that balance already must not correct twice (spec 3.4) and take "one".
        map_names: instance maps to paint targets for.
        augment: preset and strengths.
    """

    batch: int = 8
    patch: PatchSize = field(default_factory=PatchSize)
    sampler: str = "share"
    primary_share: float = 0.5
    aux_shares: tuple[tuple[str, float], ...] = ()
    nucleus_share: float = 0.25
    weights: str = "one"
    map_names: tuple[str, ...] = ("distance", "boundary")
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        """Refuse unknown names and double corrections."""
        if self.sampler not in ("share", "balanced", "shuffle"):
            raise ValueError(f"sampler must be share, balanced or shuffle, got {self.sampler!r}")
        if self.weights not in ("two_class", "per_dataset", "one"):
            raise ValueError(f"weights must be two_class, per_dataset or one, got {self.weights!r}")
        if self.sampler != "shuffle" and self.weights != "one":
            raise ValueError(f"sampler {self.sampler!r} balances domains already: weights must be 'one'")
        if self.batch < 1 or not 0 <= self.primary_share <= 1:
            raise ValueError(f"batch must be >= 1 and primary_share in 0..1, got {self.batch}, {self.primary_share}")


class CropSampler:
    """Draws batches from data sets; the first set is the primary domain.

    Holds nothing that changes: `batch(step)` gives the same batch whenever and wherever it is called.
    """

    def __init__(self, config: SamplerConfig, sets: Sequence[DataSet], seed: int) -> None:
        """Prepare the draw.

        Args:
            config: how batches are drawn.
            sets: training parts, primary first (`splits.training_sets`).
            seed: of the whole run.
        """
        if empty := [data.name for data in sets if not len(data)]:
            raise DataError(f"data set {empty[0]!r} has no training images")
        self.config = config
        self.sets = tuple(sets)
        self.seed = seed
        self.domain_names = tuple(data.name for data in sets)
        self._domain_share = np.cumsum(_domain_shares(config, self.domain_names))
        self._weights = domain_weights([len(data) for data in sets], config.weights)
        self._flat = [(index, row) for index, data in enumerate(sets) for row in range(len(data))]
        self._centres = [[_centroids(sample) for sample in data.samples] for data in sets]

    @property
    def n_images(self) -> int:
        """Training images of all sets: N of the paper's learning rate."""
        return len(self._flat)

    @property
    def steps_per_epoch(self) -> int:
        """Batches that show as many patches as there are images."""
        return -(-self.n_images // self.config.batch)

    def batch(self, step: int) -> DomainBatch:
        """The batch of a step; of "shuffle", an epoch's last batch may be smaller."""
        drawn = self._draw_epoch(step) if self.config.sampler == "shuffle" else self._draw_shares(step)
        sources = [self.sets[index].samples[row] for index, row in drawn]
        patches = [self._patch(step, place, *row) for place, row in enumerate(drawn)]
        domains = [DomainOf(index, index == 0, self._weights[index]) for index, _ in drawn]
        return stack(patches, sources, domains, self.config.map_names)

    def _patch(self, step: int, place: int, index: int, row: int) -> Patch:
        rng = np.random.default_rng((self.seed, 1, step, place))
        aim: Aim | None = None
        centres = self._centres[index][row]
        u_aim, u_which = rng.random(2)
        if u_aim < self.config.nucleus_share and len(centres):
            x, y = centres[int(u_which * len(centres))]
            aim = (float(x), float(y))
        return cut_patch(self.sets[index].samples[row], rng, self.config.augment, self.config.patch, aim)

    def _draw_shares(self, step: int) -> list[tuple[int, int]]:
        """(set, image) pairs; systematic in the set, so that every batch keeps the shares up to rounding."""
        rng = np.random.default_rng((self.seed, 0, step))
        ticks = (np.arange(self.config.batch) + rng.random()) / self.config.batch
        indices = np.minimum(np.searchsorted(self._domain_share, ticks, side="right"), len(self.sets) - 1)
        return [(int(index), int(rng.integers(len(self.sets[index])))) for index in indices]

    def _draw_epoch(self, step: int) -> list[tuple[int, int]]:
        epoch, place = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng((self.seed, 2, epoch)).permutation(self.n_images)
        chosen = order[place * self.config.batch : (place + 1) * self.config.batch]
        return [self._flat[at] for at in chosen]


def domain_weights(counts: Sequence[int], scheme: str) -> tuple[float, ...]:
    """Weights of the domain loss, inversely proportional to set sizes, mean 1 over an epoch (spec 3.4).

    Args:
        counts: training images per set, primary first.
        scheme: "two_class": primary against all auxiliaries [C]; "per_dataset": every set alike; "one": no correction.

    Returns:
        One weight per set.
    """
    total = sum(counts)
    if scheme == "one" or len(counts) == 1:
        return (1.0,) * len(counts)
    if scheme == "per_dataset":
        return tuple(total / (len(counts) * count) for count in counts)
    auxiliary = total / (2 * (total - counts[0]))
    return (total / (2 * counts[0]), *(auxiliary for _ in counts[1:]))


def _domain_shares(config: SamplerConfig, names: Sequence[str]) -> list[float]:
    """Share of the patches per set, summing to 1."""
    wanted = dict(config.aux_shares)
    if unknown := sorted(set(wanted) - set(names[1:])):
        raise DataError(f"aux_shares names {unknown[0]!r}, which is no auxiliary set of this run: {list(names[1:])}")
    if config.sampler == "balanced" or len(names) == 1:
        return [1 / len(names)] * len(names)
    shares = [wanted.get(name, 1.0) for name in names[1:]]
    return [config.primary_share, *((1 - config.primary_share) * share / sum(shares) for share in shares)]


def _centroids(sample: Sample) -> NDArray[np.float64]:
    """Float (n, 2) x, y of the sample's nuclei, pixel-centre coordinates."""
    flat = sample.labels.ravel()
    count = np.bincount(flat)
    rows, cols = np.indices(sample.labels.shape)
    present = np.flatnonzero(count)
    present = present[present > 0]
    x = np.bincount(flat, cols.ravel())[present] / count[present]
    y = np.bincount(flat, rows.ravel())[present] / count[present]
    return np.stack([x, y], axis=1)
