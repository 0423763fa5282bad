"""The official weights that AMA-SAM can start from: where they are, and fetching them once into a cache."""

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amasam.build import file_sha256
from wsipipe.errors import CheckpointError, UsageError

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 30
Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all (0 when the server does not say)."""


@dataclass(frozen=True, slots=True)
class BaseWeights:
    """A published file: its name, where it is, and the SHA-256 that it must have."""

    file: str
    url: str
    sha256: str


_META = "https://dl.fbaipublicfiles.com/segment_anything/"

BASE_WEIGHTS = {
    "vit_b": BaseWeights(
        "sam_vit_b_01ec64.pth",
        _META + "sam_vit_b_01ec64.pth",
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    "vit_l": BaseWeights(
        "sam_vit_l_0b3195.pth",
        _META + "sam_vit_l_0b3195.pth",
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    ),
    "vit_h": BaseWeights(
        "sam_vit_h_4b8939.pth",
        _META + "sam_vit_h_4b8939.pth",
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
    "tiny_vit": BaseWeights(
        "mobile_sam.pt",
        "https://github.com/ChaoningZhang/MobileSAM/raw/master/weights/mobile_sam.pt",
        "6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
    ),
}


def default_cache() -> Path:
    """Return the folder for downloaded weights, below the user's home."""
    return Path.home() / ".cache" / "amasam"


def find_base(encoder: str, checkpoint: Path, *, cache: Path | None = None) -> Path:
    """Return where SAM's file for a checkpoint lies: in the cache, else beside the checkpoint; uses no network.

    Args:
        encoder: of the checkpoint.
        checkpoint: that was trained on top of SAM's file.
        cache: folder; `default_cache()` if None.

    Raises:
        CheckpointError: it lies in neither place.
    """
    if encoder not in BASE_WEIGHTS:
        raise CheckpointError(f"these weights need the SAM file that they were trained on: {checkpoint}")
    weights = BASE_WEIGHTS[encoder]
    places = ((cache or default_cache()) / weights.file, checkpoint.with_name(weights.file))
    for place in places:
        if place.is_file():
            return place
    raise CheckpointError(
        f"these weights need SAM's {weights.file}; run `amasam fetch-base {encoder}`, or put {weights.url} "
        f"at {places[0]} or {places[1]}: {checkpoint}"
    )


def fetch_base(encoder: str, *, cache: Path | None = None, progress: Progress | None = None) -> Path:
    """Return the path of an encoder's official weights, downloading them on first use.

    Args:
        encoder: "vit_b", "vit_l", "vit_h" or "tiny_vit".
        cache: folder; `default_cache()` if None.
        progress: told about every chunk.

    Raises:
        UsageError: there are no official weights for this encoder.
        CheckpointError: the download failed, or the file in place is not the official one.
    """
    if encoder not in BASE_WEIGHTS:
        raise UsageError(f"official weights exist for {', '.join(BASE_WEIGHTS)}, got {encoder!r}")
    weights = BASE_WEIGHTS[encoder]
    place = (cache or default_cache()) / weights.file
    if not place.is_file():
        _download(weights, place, progress)
    elif (found := file_sha256(place)) != weights.sha256:
        raise CheckpointError(
            f"SHA-256 must be {weights.sha256}, got {found}; delete this file to fetch it anew: {place}"
        )
    return place


def _download(weights: BaseWeights, place: Path, progress: Progress | None) -> None:
    """Write the file beside its place, check it, then move it there."""
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_name(f"{place.name}.{os.getpid()}.partial")  # other processes may fetch it, too
    try:
        with urllib.request.urlopen(weights.url, timeout=TIMEOUT_S) as response, partial.open("wb") as target:
            found = _copy(response, target, progress)
    except (urllib.error.URLError, OSError) as error:
        partial.unlink(missing_ok=True)
        raise CheckpointError(
            f"cannot download {weights.url} ({error}); fetch it elsewhere and put it at {place}"
        ) from error
    if found != weights.sha256:
        partial.unlink()
        raise CheckpointError(f"SHA-256 of the download must be {weights.sha256}, got {found}: {weights.url}")
    partial.replace(place)


def _copy(response: Any, target: Any, progress: Progress | None) -> str:
    """Copy a response into a file; return the SHA-256 of what went through."""
    digest, done = hashlib.sha256(), 0
    total = int(response.headers.get("Content-Length") or 0)
    while chunk := response.read(CHUNK_BYTES):
        target.write(chunk)
        digest.update(chunk)
        done += len(chunk)
        if progress is not None:
            progress(done, total)
    return digest.hexdigest()
