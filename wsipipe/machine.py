"""What the machine is, and how much of it was used."""

import resource
import sys


def peak_rss_bytes() -> int:
    """Return the largest resident memory of this process so far."""
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
