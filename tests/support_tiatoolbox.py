"""Networks of TIAToolbox with seeded random weights that find something: files as its own weights are."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from wsipipe.integrations.tiatoolboximport import import_from_tiatoolbox


def random_network(name: str, patch: NDArray[np.uint8] | None = None) -> torch.nn.Module:
    """Return a network of the registry with seeded weights.

    Untrained, all of its outputs are nearly constant. So the last layer of each of HoVer-Net's heads is scaled such
    that each output varies over the patch around 0 with deviation 1 (0.5 for the distances, 2 for the nuclei): regions
    of several sizes and types come out.

    Args:
        name: in the registry.
        patch: uint8 (P, P, 3) RGB, of the network's input size; None leaves a network as it is.
    """
    info = import_from_tiatoolbox("tiatoolbox", what="test").rcParam["pretrained_model_info"][name]["architecture"]
    module, _, kind = info["class"].rpartition(".")
    package = import_from_tiatoolbox(f"tiatoolbox.models.architecture.{module}", what="test")
    torch.manual_seed(0)
    network = getattr(package, kind)(**info["kwargs"]).eval()
    if patch is not None:
        _spread_heads(network, patch)
    return network


@torch.inference_mode()
def _spread_heads(network: torch.nn.Module, patch: NDArray[np.uint8]) -> None:
    outputs = network(torch.from_numpy(patch.transpose(2, 0, 1)[None].copy()).float())
    for head, values in outputs.items():
        layer = network.decoder[head].u0.conv
        wanted = {"hv": 0.5, "np": 2.0}.get(head, 1.0)
        gain = wanted / values.std(dim=(0, 2, 3))
        layer.weight.mul_(gain[:, None, None, None])
        layer.bias.sub_(values.mean(dim=(0, 2, 3))).mul_(gain)


def save_weights(network: torch.nn.Module, path: Path) -> Path:
    """Write the state dict."""
    torch.save(network.state_dict(), path)
    return path
