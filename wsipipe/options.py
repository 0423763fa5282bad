"""What a user may choose about a run."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wsipipe.errors import UsageError
from wsipipe.machine import cpu_count
from wsipipe.stainnorm import NONE, parse_stain_norm

GeoJsonDetail = Literal["shape", "full", "none"]
StainChoice = Literal["qupath", "macenko"]
DEFAULT_MODEL = "amasam-tiny"
DEFAULT_OUT = Path("wsipipe-out")


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Choices of `wsipipe run`; the values are checked when the object is made.

    Attributes:
        out: output folder.
        model: name or weights file.
        device: "cpu" or "cuda[:N]", already resolved from "auto" where this machine does the work.
        tissue: "auto", "none", or a mask PNG or ROI GeoJSON.
        batch_size: tiles per model call; None chooses.
        memory: bytes that the run may use; None takes a share of what is free.
        workers: CPU tasks at once on this machine; 0 runs everything in one thread; None takes the machine's cores.
        scheduler: "local", the address of a Dask scheduler, or a TOML file that names a cluster.
        geojson_detail: measurements in the GeoJSON; "none" writes no GeoJSON.
        stain: stain vectors: QuPath's defaults, or estimated for each slide.
        stain_norm: colours in front of the model: none, or as `stainnorm.parse_stain_norm` takes it.
        allow_upsampling: accept slides much coarser than the model.
        overwrite: make the slides anew; earlier results stay until the new ones are complete.
        fail_fast: stop at the first slide that fails.
        metadata: CSV with the slides' patients and groups, for the cohort's tables.
        patient: its column that names patients; None takes the usual names.
        groups: its columns to compare groups by; empty takes those with few different values.
        command: the command line, for the record.
    """

    out: Path = DEFAULT_OUT
    model: str = DEFAULT_MODEL
    device: str = "cpu"
    tissue: str = "auto"
    batch_size: int | None = None
    memory: int | None = None
    workers: int | None = None
    scheduler: str = "local"
    geojson_detail: GeoJsonDetail = "shape"
    stain: StainChoice = "qupath"
    stain_norm: str = NONE
    allow_upsampling: bool = False
    overwrite: bool = False
    fail_fast: bool = False
    metadata: Path | None = None
    patient: str | None = None
    groups: tuple[str, ...] = ()
    command: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        if self.out.exists() and not self.out.is_dir():
            raise UsageError(f"-o must be a folder, this is a file; choose another -o: {self.out}")
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"--batch-size must be auto or >= 1, got {self.batch_size}")
        if self.workers is not None and self.workers < 0:
            raise UsageError(f"--workers must be >= 0, got {self.workers}")
        if self.geojson_detail not in ("shape", "full", "none"):
            raise UsageError(f"--geojson-detail must be shape, full or none, got {self.geojson_detail!r}")
        if self.stain not in ("qupath", "macenko"):
            raise UsageError(f"--stain must be qupath or macenko, got {self.stain!r}")
        parse_stain_norm(self.stain_norm)
        if self.tissue not in ("auto", "none") and not Path(self.tissue).is_file():
            raise UsageError(f"--tissue must be auto, none or an existing mask PNG or GeoJSON, got {self.tissue!r}")

    @property
    def threads(self) -> int:
        """Threads for the CPU stages; at least 1."""
        return max(1, cpu_count() if self.workers is None else self.workers)

    @property
    def devices(self) -> tuple[str, ...]:
        """What models run on: the device, or for plain "cuda" all of this machine's."""
        if self.device != "cuda":
            return (self.device,)
        import torch

        return tuple(f"cuda:{k}" for k in range(torch.cuda.device_count())) or ("cuda:0",)


def parse_batch(text: str) -> int | None:
    """Turn `auto` into None and a number into itself.

    Raises:
        UsageError: it is neither.
    """
    if text == "auto":
        return None
    if not text.isdigit():
        raise UsageError(f"--batch-size must be auto or a number >= 1, got {text!r}")
    return int(text)


def parse_memory(text: str) -> int:
    """Turn `16GB`, `800MB` or a plain number of bytes into bytes (1 GB = 2^30).

    Raises:
        UsageError: it is something else, or less than 1 GB.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([KMGT]?)I?B?\s*", text.upper())
    if match is None:
        raise UsageError(f"--memory must look like 16GB, got {text!r}")
    value = int(float(match[1]) * 2 ** {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[match[2]])
    if value < 2**30:
        raise UsageError(f"--memory must be at least 1GB, got {text!r}")
    return value


def resolve_device(text: str) -> str:
    """Turn auto|cpu|cuda[:N] into the device that is used.

    Raises:
        UsageError: the device is not there.
    """
    if text == "cpu":
        return text
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if text == "auto":
        return "cuda:0" if count else "cpu"
    match = re.fullmatch(r"cuda(?::(\d+))?", text)
    if match is None:
        raise UsageError(f"--device must be auto, cpu or cuda[:N], got {text!r}")
    index = int(match[1] or 0)
    if index >= count:
        raise UsageError(
            f"--device {text}: this machine has {count} CUDA devices that PyTorch can use; pass --device cpu"
        )
    return f"cuda:{index}"
