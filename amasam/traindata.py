"""From the data part of a recipe to a sampler and the validation images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from amasam.data.augment import AugmentConfig, PatchSize
from amasam.data.load import load_set
from amasam.data.prefetch import PrefetchConfig, PrefetchLoader
from amasam.data.sampler import CropSampler, SamplerConfig
from amasam.data.samples import DataSet, Sample
from amasam.data.splits import splitter, training_sets
from amasam.trainconfig import DataConfig, TrainConfig
from wsipipe.errors import UsageError


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What a run trains on and is validated with.

    Attributes:
        sets: training parts, the primary set first.
        validation: whole images of the primary set's validation patients, then of the auxiliary sets'.
    """

    sets: tuple[DataSet, ...]
    validation: tuple[Sample, ...]


def load_training_data(config: DataConfig, descriptions: Path, root: Path, *, seed: int) -> TrainingData:
    """Read the sets of a recipe.

    Args:
        config: data part of the recipe.
        descriptions: folder of the sets' TOML files, NAME.toml.
        root: folder that the sets' image folders are relative to.
        seed: of the random split, where the recipe asks for it.

    Raises:
        DataError: a set is missing or not as described.
    """
    sets = [load_set(find_description(descriptions, name), root) for name in (config.primary, *config.auxiliary)]
    split = splitter(config.split, seed)
    training = training_sets(sets, primary=sets[0].name, aux_all=config.aux_all, split=split)
    if config.final:
        first = split(sets[0])
        training[0] = sets[0].keep(lambda sample: sample not in first.test.samples)
    validation = [sample for data in sets for sample in split(data).validation.samples]
    return TrainingData(tuple(training), tuple(validation))


def find_description(folder: Path, name: str) -> Path:
    """Return the TOML of a data set.

    Raises:
        UsageError: there is none.
    """
    path = folder / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.toml"))) or "none"
        raise UsageError(f"no description of data set {name!r} in {folder} (there are: {known})")
    return path


def make_sampler(config: TrainConfig, sets: Sequence[DataSet], map_names: Sequence[str]) -> CropSampler:
    """Build the sampler that a recipe describes."""
    data = config.data
    settings = SamplerConfig(
        batch=config.optim.batch,
        patch=PatchSize(size=data.patch, mpp=data.mpp),
        sampler=data.sampler,
        primary_share=data.primary_share,
        aux_shares=data.aux_shares,
        nucleus_share=data.nucleus_share,
        weights=config.align.weights,
        map_names=tuple(map_names),
        augment=AugmentConfig(preset=data.augment, geometry=data.geometry, colour=data.colour),
    )
    return CropSampler(settings, sets, config.seed)


def make_loader(sampler: CropSampler, workers: int, device: str, *, start: int, stop: int) -> PrefetchLoader:
    """Cut patches ahead of the training step: threads beside a CPU, processes with pinned memory for a GPU."""
    on_gpu = device != "cpu"
    config = PrefetchConfig(workers=workers, kind="processes" if on_gpu and workers else "threads", pin=on_gpu)
    return PrefetchLoader(sampler, config, start=start, stop=stop)
