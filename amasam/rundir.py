"""The folder of a training run: what it was started from, so that anyone can tell later what made the weights."""

import hashlib
import json
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from amasam.data.samples import DataSet, Sample
from amasam.trainconfig import TrainConfig, WatchConfig
from wsipipe.atomic import write_text

STATE, LOG, RECORD = "state.pt", "log.jsonl", "run.json"
BEST, LAST = "best.safetensors", "last.safetensors"


def recipe_key(config: TrainConfig) -> str:
    """Hash everything in a recipe that changes the weights: not how often it logs, nor who cuts its patches.

    Only what differs from the defaults counts, so that a new option does not orphan the runs of older versions.
    """
    fixed = replace(config, watch=WatchConfig(), data=replace(config.data, workers=1))
    changes = _changes(fixed.as_table(), TrainConfig().as_table())
    return hashlib.sha256(json.dumps(changes, sort_keys=True).encode()).hexdigest()


def _changes(table: dict[str, Any], default: dict[str, Any]) -> dict[str, Any]:
    """Return what differs from the defaults, nested tables alike."""
    found = {}
    for key, value in table.items():
        usual = default.get(key)
        if isinstance(value, dict) and isinstance(usual, dict):
            value = _changes(value, usual)
            usual = {}
        if value != usual:
            found[key] = value
    return found


def hash_samples(samples: Sequence[Sample]) -> str:
    """Hash names, pixels and labels of samples in their order."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(f"{sample.domain}/{sample.name} {sample.mpp} {sample.labels.shape}".encode())
        digest.update(np.ascontiguousarray(sample.image).data)
        digest.update(np.ascontiguousarray(sample.labels).data)
    return digest.hexdigest()


def describe_data(sets: Sequence[DataSet], validation: Sequence[Sample]) -> dict[str, Any]:
    """Name every training and validation image with hashes of their content; the provenance of the weights."""
    return {
        "training": {
            data.name: {
                "images": len(data),
                "patients": sorted({sample.patient for sample in data.samples}),
                "licence": data.licence,
                "sha256": hash_samples(data.samples),
            }
            for data in sets
        },
        "validation": {
            "images": [f"{sample.domain}/{sample.name}" for sample in validation],
            "patients": sorted({sample.patient for sample in validation}),
            "sha256": hash_samples(validation),
        },
    }


def write_record(out: Path, config: TrainConfig, data: dict[str, Any], facts: dict[str, Any]) -> None:
    """Write run.json: recipe, data hashes, code, machine, and facts such as steps and parameter counts."""
    record = {
        "recipe_key": recipe_key(config),
        "config": config.as_table(),
        "data": data,
        "git_commit": git_commit(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        **facts,
    }
    write_text(out / RECORD, json.dumps(record, indent=1, default=_jsonable) + "\n")


def git_commit() -> str:
    """Return the commit of the code's checkout, marked when it was changed; "unknown" for an installed package."""
    here = Path(__file__).resolve().parent
    commands = (["git", "rev-parse", "HEAD"], ["git", "status", "--porcelain", "--untracked-files=no"])
    try:
        commit, changes = (
            subprocess.run(command, cwd=here, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
            for command in commands
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return commit + ("-changed" if changes else "")


def _jsonable(value: Any) -> Any:
    return asdict(value) if hasattr(value, "__dataclass_fields__") else str(value)
