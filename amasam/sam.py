"""Meta's segment-anything modules, loaded without its predictor and so without torchvision."""

import importlib
import sys
from importlib.machinery import PathFinder
from types import ModuleType

from wsipipe.errors import ModelError

PACKAGE = "segment_anything"


def sam_module(name: str) -> ModuleType:
    """Import one submodule of segment-anything, e.g. "modeling" or "build_sam".

    The package's `__init__` imports the predictor and, through it, torchvision, for which a CPU build of torch has no
    match. A bare package object with the right path stands in while the submodule is imported and is taken away
    again, so that a later plain `import segment_anything` still means the whole package, with the same classes.

    Raises:
        ModelError: segment-anything is not installed.
    """
    full_name = f"{PACKAGE}.{name}"
    if PACKAGE in sys.modules:
        return importlib.import_module(full_name)
    sys.modules[PACKAGE] = _bare_package()
    try:
        return importlib.import_module(full_name)
    finally:
        del sys.modules[PACKAGE]


def _bare_package() -> ModuleType:
    spec = PathFinder.find_spec(PACKAGE)
    if spec is None or spec.submodule_search_locations is None:
        raise ModelError("segment-anything is not installed; run `pip install --no-deps segment-anything==1.0`")
    package = ModuleType(PACKAGE)
    package.__path__ = list(spec.submodule_search_locations)
    package.__spec__ = spec
    return package
