"""From a template to one self-contained HTML file: no network, everything that comes from outside escaped."""

import base64
import functools
import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from wsipipe import __version__
from wsipipe.atomic import write_text


@functools.cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("wsipipe"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def write_page(path: Path, template: str, values: dict[str, Any], *, script: str | None = None) -> None:
    """Fill a template and write the page, whole or not at all.

    A Content-Security-Policy in the page forbids every request and every script but the page's own, by its hash.

    Args:
        path: target.
        template: name in wsipipe/templates.
        values: what the template needs; text is escaped, only `Markup` is not.
        script: name of the page's script in wsipipe/templates.
    """
    code = _resource(script) if script else ""
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    shared = {
        "version": __version__,
        "style": Markup(_resource("style.css")),
        "script": Markup(code),
        "script_hash": f"sha256-{digest}",
    }
    write_text(path, _environment().get_template(template).render(shared | values))


@functools.cache
def _resource(name: str) -> str:
    """Return a file of wsipipe/templates that goes into pages as it is."""
    return files("wsipipe").joinpath("templates", name).read_text(encoding="utf-8")


def data_url(data: bytes, kind: str) -> str:
    """Return bytes as a data URL of a media type."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def link_to(*parts: str) -> str:
    """Return a relative link to a file below the page's folder; every part is one name."""
    return "/".join(quote(part, safe="") for part in parts)
