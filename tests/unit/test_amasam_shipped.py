"""Recipes and descriptions are found by name from anywhere."""

from pathlib import Path

import pytest

from amasam import shipped
from amasam.checkpoint import read_info
from amasam.cli import descriptions_folder
from amasam.entries import TINY_WEIGHTS, VIT_B
from amasam.recipe import load_recipe
from amasam.shipped import find_recipe, workflows_folder


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_default_descriptions_are_found_from_another_folder(elsewhere: Path) -> None:
    assert (descriptions_folder(None) / "monuseg_train.toml").is_file()
    assert descriptions_folder(elsewhere) == elsewhere


def test_a_shipped_recipe_is_found_by_its_name_but_a_file_goes_first(elsewhere: Path) -> None:
    for name in ("test-quick", "test-quick.toml"):
        assert load_recipe(find_recipe(Path(name))).preset
    (elsewhere / "test-quick.toml").touch()
    assert find_recipe(Path("test-quick.toml")) == Path("test-quick.toml")
    assert find_recipe(Path("no/test-quick.toml")) == Path("no/test-quick.toml")
    assert find_recipe(Path("nothing")) == Path("nothing")


def test_an_installed_package_has_its_own_copy(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (elsewhere / "amasam" / "workflows").mkdir(parents=True)
    monkeypatch.setattr(shipped, "__file__", str(elsewhere / "amasam" / "shipped.py"))
    assert workflows_folder() == elsewhere / "amasam" / "workflows"


def test_a_model_without_weights_names_a_recipe_that_exists() -> None:
    words = VIT_B.weights().replace(",", " ").replace(";", " ").split()
    named = [Path(word) for word in words if word.endswith(".toml")]
    assert named
    assert all(path.is_file() for path in named)


def test_the_shipped_weights_are_those_of_the_card_and_name_no_absolute_path() -> None:
    info = read_info(TINY_WEIGHTS)
    assert info.sha256 in TINY_WEIGHTS.with_name("MODEL_CARD.md").read_text(encoding="utf-8")
    assert not Path(info.facts.training["recipe"]["init"]).is_absolute()
