"""Whole-slide H&E images to every nucleus in them. Importing this package loads nothing heavy."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsipipe.api import SlideResult, open_nuclei, open_result, segment_slide

__all__ = ["SlideResult", "__version__", "open_nuclei", "open_result", "segment_slide"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Load the public names when they are first used."""
    if name in __all__:
        from wsipipe import api

        return getattr(api, name)
    raise AttributeError(f"module 'wsipipe' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted(__all__)
