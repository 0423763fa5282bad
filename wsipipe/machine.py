"""What the machine is, and how much of it was used."""

import os
import resource
import sys
from pathlib import Path

import psutil

_STATUS = Path("/proc/self/status")
_CGROUP = Path("/sys/fs/cgroup")


def cpu_count() -> int:
    """Return the cores that this process may use: its affinity, cut by the container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _read(_CGROUP / "cpu.max").partition(" ")
    if quota.isdigit() and period.strip().isdigit():
        cores = min(cores, round(int(quota) / int(period)))
    return max(1, cores)


def available_memory_bytes() -> int:
    """Return the memory that is free for new work, cut by the container's limit."""
    free = psutil.virtual_memory().available
    limit, used = _read(_CGROUP / "memory.max").strip(), _read(_CGROUP / "memory.current").strip()
    if limit.isdigit() and used.isdigit():
        free = min(free, max(0, int(limit) - int(used)))
    return int(free)


def rss_bytes() -> int:
    """Return the resident memory of this process."""
    return int(psutil.Process().memory_info().rss)


def peak_rss_bytes() -> int:
    """Return the largest resident memory of this process so far.

    Linux hands `ru_maxrss` on from the process that started this one; the kernel's own high-water mark starts anew.
    """
    for line in _read(_STATUS).splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024  # KiB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts KiB


def peak_vram_bytes(device: str) -> int | None:
    """Return the most GPU memory that PyTorch held at once; None on a CPU."""
    if not device.startswith("cuda"):
        return None
    import torch

    return int(torch.cuda.max_memory_reserved(device))


def device_name(device: str) -> str:
    """Return a device as a person would name it: "cpu", "cuda:0 NVIDIA A100 ..."."""
    if not device.startswith("cuda"):
        return device
    import torch

    return f"{device} {torch.cuda.get_device_name(device)}"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
