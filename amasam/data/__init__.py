"""Annotated nuclei: data sets, splits, augmentation, sampling."""
