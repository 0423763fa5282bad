"""`wsipipe doctor`: what this machine has, and what would run here."""

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import orjson
import psutil
import typer

from wsipipe import __version__
from wsipipe.cli.arguments import Json

PACKAGES = (
    "torch",
    "openslide-python",
    "openslide-bin",
    "tifffile",
    "imagecodecs",
    "numpy",
    "numba",
    "opencv-python-headless",
    "zarr",
    "pyarrow",
    "dask",
)


def doctor(json: Json = False) -> None:
    """Show what this machine has and what would run here.

    Example: wsipipe doctor
    """
    import torch

    from wsipipe.segmenter import list_segmenters

    memory = psutil.virtual_memory()
    gpus = [
        f"cuda:{i} {torch.cuda.get_device_name(i)}, {torch.cuda.get_device_properties(i).total_memory / 2**30:.0f} GiB"
        for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    ]
    facts = {
        "wsipipe": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpu cores": os.cpu_count(),
        "memory": f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free",
        "disk here": f"{shutil.disk_usage(Path.cwd()).free / 2**30:.0f} GiB free",
        "bf16 on the cpu": _cpu_has_bf16(),
        "gpus": gpus or "none that PyTorch can use: models run on the CPU",
        "packages": {name: _version(name) for name in PACKAGES},
        "models": {entry.name: entry.weights() for entry in list_segmenters()},
        "a plain run here": _plain_run(),
    }
    if json:
        typer.echo(orjson.dumps(facts).decode())
        return
    for name, value in facts.items():
        rows = [f"{k} {v}" for k, v in value.items()] if isinstance(value, dict) else value
        typer.echo(f"{name}: {value if not isinstance(rows, list) else ''}".rstrip())
        if isinstance(rows, list):
            typer.echo("\n".join(f"    {row}" for row in rows))


def _plain_run() -> dict[str, str]:
    """Say what `wsipipe run` would use without any option."""
    from wsipipe.cluster import LocalProcesses, choose_workers
    from wsipipe.machine import available_memory_bytes
    from wsipipe.memory import DEFAULT_SHARE
    from wsipipe.options import DEFAULT_MODEL, RunOptions, resolve_device

    device = resolve_device("auto")
    options = RunOptions(device="cuda" if device.startswith("cuda") else device)
    workers = choose_workers(options.scheduler, workers=options.workers, devices=options.devices)
    pool = "a Dask cluster"
    if isinstance(workers, LocalProcesses):
        threads = f"{workers.threads} threads"
        pool = f"{threads} in one process" if workers.processes == 1 else f"{workers.processes} processes of {threads}"
    share = DEFAULT_SHARE * available_memory_bytes()
    return {
        "device": ", ".join(options.devices),
        "scheduler": f"{options.scheduler}, {pool}",
        "memory": f"up to {share / 2**30:.1f} GiB, {DEFAULT_SHARE:.0%} of what is free",
        "model": DEFAULT_MODEL,
        "precision": _precision(DEFAULT_MODEL, device),
    }


def _precision(model: str, device: str) -> str:
    from wsipipe.errors import WsipipeError
    from wsipipe.segmenter import load_segmenter

    try:
        return str(load_segmenter(model, device=device).parameters.get("precision", "fp32"))
    except WsipipeError as error:
        return f"unknown, the model cannot be loaded: {error}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware (avx512_bf16 or amx_bf16)."""
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    flags = torch.cpu
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return "AVX512" in capability and any(bool(getattr(flags, name, lambda: False)()) for name in names)
