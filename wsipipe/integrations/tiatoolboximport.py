"""TIAToolbox is imported here only, when something of it was asked for, and leaves this process as it was.

Three traps. Its import sends the log of the whole process to stdout where no handler is set, and all warnings to the
log. Most of its modules import torchvision, and a torchvision built for CUDA, which is what PyPI has for Linux, cannot
load its operators beside a CPU build of PyTorch: its import then fails because two of them are not declared. Declaring
them is enough for the parts in Python, and nothing that wsipipe calls runs an operator.
"""

import contextlib
import importlib
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from wsipipe.errors import MissingExtraError

INSTALL = (
    'pip install -c constraints-tiatoolbox.txt ".[tiatoolbox]" && '
    "pip install --no-deps tiatoolbox==2.1.3 torchvision==0.28.0"
)
OPERATORS = ("nms", "qnms")  # what torchvision 0.28 declares without looking whether its library is there
_UNDECLARED = "operator torchvision::"
_LOCK = threading.Lock()
_DECLARED: list[Any] = []  # a declaration lasts as long as its object


def import_from_tiatoolbox(name: str, *, what: str) -> ModuleType:
    """Import a module of TIAToolbox.

    Args:
        name: e.g. "tiatoolbox.tools.stainnorm".
        what: what needs it, as the user asked for it.

    Raises:
        MissingExtraError: TIAToolbox, or a package that it needs, is not installed.
    """
    check_installed(what)
    try:
        with _LOCK, _quiet():
            _import_torchvision()
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{what} needs {error.name}, which TIAToolbox imports; run: {INSTALL}") from error


def check_installed(what: str) -> None:
    """Make sure that TIAToolbox is there, without importing it.

    Raises:
        MissingExtraError: it is not; the text says what to install.
    """
    if find_spec("tiatoolbox") is None:
        raise MissingExtraError(f"{what} needs TIAToolbox, not installed here; see docs/integrations.md: {INSTALL}")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the log and the warnings of this process where they go."""
    root, shield = logging.getLogger(), logging.NullHandler()
    show = warnings.showwarning
    level = root.level
    root.addHandler(shield)  # with a handler there, TIAToolbox adds none
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those of its many imports say nothing to our user
            yield
    finally:
        logging.captureWarnings(False)
        warnings.showwarning = show
        root.removeHandler(shield)
        root.setLevel(level)


def _import_torchvision() -> None:
    if find_spec("torchvision") is None:  # only some parts need it; their own import says so
        return
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if _UNDECLARED not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]  # the half that was imported
        _declare_operators()
        importlib.import_module("torchvision")


def _declare_operators() -> None:
    torch: Any = importlib.import_module("torch")
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in OPERATORS:
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _DECLARED.append(library)
