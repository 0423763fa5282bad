"""Whole-slide H&E images to every nucleus in them. Importing this package loads nothing heavy."""

__all__ = ["__version__"]

__version__ = "0.1.0"
