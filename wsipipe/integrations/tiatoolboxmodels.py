"""The nucleus models of TIAToolbox as segmenters: its networks, weights, pre-processing, patches and class names.

`--model tiatoolbox:hovernet_fast-pannuke` takes its own weights, downloading them once; `NAME@FILE` takes a file with a
state dict of the same network. Everything that a model is comes from TIAToolbox's registry when it is loaded; what is
written here is only what can be said without importing it.
"""

from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsipipe.errors import CheckpointError, ModelError
from wsipipe.integrations.tiatoolboximport import import_from_tiatoolbox
from wsipipe.runrecord import file_digest
from wsipipe.segmenter import SegmenterEntry

if TYPE_CHECKING:
    from wsipipe.integrations.tiatoolboxsegmenter import TiaSegmenter

PREFIX = "tiatoolbox:"
WEIGHTS_DIR = Path.home() / ".tiatoolbox" / "models"  # where TIAToolbox keeps what it downloads
LICENCE = "of the training data, as TIAToolbox's documentation states it; non-commercial for most"


@dataclass(frozen=True, slots=True)
class Listed:
    """A model of the registry: its name there, what it finds, and the micrometres per px that it wants."""

    name: str
    about: str
    mpp: float = 0.25


MODELS = (
    Listed("hovernet_fast-pannuke", "HoVer-Net trained on PanNuke, five types of nuclei"),
    Listed("hovernet_fast-monusac", "HoVer-Net trained on MoNuSAC, four types of nuclei"),
    Listed("hovernet_original-consep", "HoVer-Net trained on CoNSeP, four types of nuclei"),
    Listed("hovernet_original-kumar", "HoVer-Net trained on Kumar, nuclei without types"),
    Listed("hovernetplus-oed", "HoVer-Net+ trained on oral dysplasia, two types of nuclei (no layers)", mpp=0.5),
    Listed("micronet-consep", "MicroNet trained on CoNSeP, nuclei without types"),
)


def load_model(name: str, device: str, weights: Path | None) -> "TiaSegmenter":
    """Load a model of the registry.

    Args:
        name: in the registry.
        device: "cpu" or "cuda[:N]".
        weights: file with a state dict; None takes TIAToolbox's, downloaded if they are not there.

    Raises:
        MissingExtraError: TIAToolbox is not installed.
        CheckpointError: the weights file is missing or of another network.
        ModelError: the weights cannot be downloaded.
    """
    what = f"--model {PREFIX}{name}"
    package = import_from_tiatoolbox("tiatoolbox", what=what)
    info = package.rcParam["pretrained_model_info"][name]
    file = weights or _find_weights(name, what)
    network = _build(info["architecture"], file, what)
    from wsipipe.integrations.tiatoolboxsegmenter import TiaSegmenter, read_facts

    digest = file_digest(file).sha256
    facts = read_facts(PREFIX + name, info, file, digest, version=package.__version__, licence=LICENCE)
    return TiaSegmenter(network, facts, device=device)


def _find_weights(name: str, what: str) -> Path:
    """Return TIAToolbox's weights file; TIAToolbox downloads it if it is not there."""
    path = WEIGHTS_DIR / f"{name}.pth"
    if path.is_file():
        return path
    architecture = import_from_tiatoolbox("tiatoolbox.models.architecture", what=what)
    try:
        return Path(architecture.fetch_pretrained_weights(name))
    except Exception as error:  # of whatever kind the download library has
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"weights of {PREFIX}{name} cannot be downloaded ({type(error).__name__}: {reason}); put them at {path}, "
            f"or pass --model {PREFIX}{name}@FILE"
        ) from error


def _build(architecture: dict[str, Any], file: Path, what: str) -> Any:
    """Make the network and load its weights, strictly and without unpickling code."""
    import torch

    module, _, name = architecture["class"].rpartition(".")
    package = import_from_tiatoolbox(f"tiatoolbox.models.architecture.{module}", what=what)
    network = getattr(package, name)(**architecture["kwargs"])
    try:
        network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True), strict=True)
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, KeyError, OSError ...
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"weights file must hold a state dict of TIAToolbox's {name}, got {type(error).__name__} ({reason}): {file}"
        ) from error
    return network.eval()


def _say_where(name: str) -> str:
    if find_spec("tiatoolbox") is None:
        return "needs TIAToolbox, see docs/integrations.md"
    path = WEIGHTS_DIR / f"{name}.pth"
    return str(path) if path.is_file() else f"downloaded by TIAToolbox when first used, to {path}; or NAME@FILE"


def _entry(model: Listed) -> SegmenterEntry:
    return SegmenterEntry(
        name=PREFIX + model.name,
        about=model.about,
        mpp=model.mpp,
        licence=LICENCE,
        weights=partial(_say_where, model.name),
        load=partial(load_model, model.name),
    )


def __getattr__(name: str) -> SegmenterEntry:
    """Return the entry of a model, e.g. HOVERNET_FAST_PANNUKE: what the entry points name."""
    for model in MODELS:
        if model.name.upper().replace("-", "_") == name:
            return _entry(model)
    raise AttributeError(name)
