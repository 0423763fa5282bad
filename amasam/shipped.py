"""Where the recipes and descriptions that ship with this package lie; imports nothing heavy."""

from pathlib import Path


def workflows_folder() -> Path:
    """Return the folder of the recipes, with the data sets' descriptions in data/: in the package, or its checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "workflows"
    return installed if installed.is_dir() else package.parent / "workflows"


def find_recipe(recipe: Path) -> Path:
    """Return the file, or else the shipped recipe of this name, e.g. "tiny-ama"."""
    shipped = workflows_folder() / f"{recipe.name.removesuffix('.toml')}.toml"
    is_name = recipe.parent == Path() and not recipe.is_file()
    return shipped if is_name and shipped.is_file() else recipe
