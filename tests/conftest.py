"""Shared fixtures: Hypothesis profiles and the place of the real data."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("default"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder with `slides/` and `nuclei/`; tests that use it carry the mark `realdata`."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    root = Path(os.environ.get("WSIPIPE_DATA", default))
    if not root.is_dir():
        pytest.skip(f"no real data at {root}; set WSIPIPE_DATA")
    return root


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--update-golden` rewrites the frozen files of tests/golden."""
    parser.addoption("--update-golden", action="store_true", help="rewrite the golden files; review the diff")
