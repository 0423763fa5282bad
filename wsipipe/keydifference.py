"""In which options two runs differ, in the words of the command line.

A run key holds everything that decides the bytes of the results. Much of it follows from something else in it: another
model has other weights, another tile size and so on. Only what does not follow is told.
"""

from collections.abc import Iterator, Mapping
from typing import Any

# key -> how a person would call it
_OPTIONS = {
    "model": "--model",
    "slide_mpp": "the slide's mpp (--mpp)",
    "tissue": "--tissue",
    "stain": "--stain",
    "stain_norm": "--stain-norm",
    "geojson_detail": "--geojson-detail",
    "format_version": "the version of the output format",
}
# key -> what it means if it differs and nothing does from which it follows; no person can read its values
_OTHER = {
    "slide": "the slide file is another one or was changed",
    "model_sha256": "the model's weights are others",
    "tissue_sha256": "the tissue is another (the mask or areas of --tissue)",
}
_MODEL = ("model", "model_sha256")
# key -> the keys from which it follows
_FOLLOWS = {
    "model_sha256": ("model",),
    "model_parameters": _MODEL,
    "tile": _MODEL,
    "halo": _MODEL,
    "block_tiles": _MODEL,
    "work_mpp": (*_MODEL, "slide", "slide_mpp"),
    "slide_mpp": ("slide",),
    "tissue_sha256": ("slide", "slide_mpp", "tissue"),
}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Name what differs between two run keys: `--stain was qupath, now macenko`.

    Args:
        old: values of a run key, as JSON gives them.
        new: of the other.
    """
    differing = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
    told = sorted(name for name in differing if not differing & set(_FOLLOWS.get(name, ())))
    return "; ".join(text for name in told for text in _texts(name, old.get(name), new.get(name)))


def _texts(name: str, old: Any, new: Any) -> Iterator[str]:
    if name in _OTHER:
        yield _OTHER[name]
    elif isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                yield from _texts(f"{name.removesuffix('s')} {key}", old.get(key), new.get(key))
    else:
        yield f"{_OPTIONS.get(name, name.replace('_', ' '))} was {_plain(old)}, now {_plain(new)}"


def _plain(value: Any) -> str:
    if value == "file":  # of --tissue, the one option whose files count by their content
        return "a file"
    if value is None:
        return "not set"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        texts = list(dict.fromkeys(_plain(item) for item in value))  # x and y are mostly equal
        return " x ".join(texts)
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
