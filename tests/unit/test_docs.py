"""The documentation is true: its commands and examples run, its links lead somewhere, its messages are in the code."""

import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from wsipipe.cli.main import app
from wsipipe.demo import draw_slide
from wsipipe.drawnslide import DemoSpec
from wsipipe.options import RunOptions
from wsipipe.plausibility import TYPICAL_DIAMETER_UM
from wsipipe.runner import run_slides
from wsipipe.runrecord import RunRecord
from wsipipe.slidelist import list_slides
from wsipipe.summary import QUALITY, SHARES, SUMMARY_SCHEMA

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RUN_PAGES = ("getting-started", "cohort", "python", "integrations")
BLOCK = re.compile(r"(?P<why><!-- not run: [^\n]+ -->\n)? *```(?P<kind>\w+)\n(?P<text>.*?)\n *```", re.DOTALL)
PLACE_KINDS = ("sh", "python", "groovy")


@dataclass(frozen=True)
class Block:
    """A fenced block: kind sh or python, whether a comment says why it is not run."""

    kind: str
    text: str
    not_run: bool


def blocks(page: Path) -> list[Block]:
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Block(m["kind"], m["text"], m["why"] is not None) for m in found]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder as the pages assume it: slides/, results/ with both slides done, study.csv."""
    place = tmp_path_factory.mktemp("docs")
    (place / "slides").mkdir()
    for k in (1, 2):
        spec = DemoSpec(width=520, height=480, seed=k)
        draw_slide(place / "slides" / f"slide-{k}.svs", place / f"truth-{k}.zarr", spec)
    (place / "study.csv").write_text("slide,patient,group\nslide-1,P01,treated\nslide-2,P02,control\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        options = RunOptions(out=Path("results"), model="classical", workers=0)
        assert run_slides(list_slides(["slides"], mpp=None), options, lambda event: None).failures == ()
        yield place


def options_of_the_workplace(words: list[str]) -> list[str]:
    """Keep the model and one thread, whatever the defaults are: what is finished must not be done again."""
    extra = {"run": ["--model", "classical", "--workers", "0"], "plan": ["--model", "classical"]}
    return [*words, *extra.get(words[0], ["--model", "classical"] if words[0] == "demo" else [])]


@pytest.mark.parametrize("name", RUN_PAGES)
def test_commands_and_examples_run(name: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(sys, "argv", ["wsipipe"])
    monkeypatch.setattr("wsipipe.options.DEFAULT_MODEL", "classical")
    names: dict[str, object] = {"__name__": "docs"}
    for block in blocks(ROOT / "docs" / f"{name}.md"):
        if block.not_run:
            continue
        if block.kind == "python":
            exec(compile(block.text, f"docs/{name}.md", "exec"), names)
        if block.kind == "sh":
            for line in block.text.splitlines():
                program, *words = shlex.split(line)
                assert program == "wsipipe", line
                done = CliRunner().invoke(app, options_of_the_workplace(words))
                assert done.exit_code == 0, f"{line}\n{done.output}\n{done.exception!r}"
    if name == "python":
        assert names["inside"].num_rows > 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("page", [p for p in PAGES if p.parent.name == "docs"], ids=lambda p: p.stem)
def test_blocks_are_run_or_say_why_not(page: Path) -> None:
    if page.stem in (*RUN_PAGES, "amasam", "classical", "performance", "scale"):
        return  # run above, or pages of benchmarks and models that other tests and people keep
    left = [block.text for block in blocks(page) if block.kind in PLACE_KINDS and not block.not_run]
    assert left == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target
    for target, anchor in re.findall(r"\]\(([\w./-]*\.md)#([^)]+)\)", text):
        headings = re.findall(r"^#+ (.+)$", (page.parent / target).read_text(encoding="utf-8"), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w -]", "", h).strip().lower().replace(" ", "-") for h in headings}, anchor


def test_messages_of_the_troubleshooting_page_are_those_of_the_code() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "wsipipe").rglob("*.py")))
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = re.findall(r"^\| (?:the flag )?`([^`]+)`", page, re.MULTILINE)
    assert len(quoted) > 20
    for message in quoted:
        assert message in code, message


def test_the_typical_size_of_nuclei_is_one_range_everywhere() -> None:
    low, high = TYPICAL_DIAMETER_UM
    for page in ("troubleshooting", "outputs"):
        assert f"{low:g}-{high:g} µm" in (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")


def test_columns_of_the_cohort_and_keys_of_the_record_are_documented() -> None:
    cohort = (ROOT / "docs" / "cohort.md").read_text(encoding="utf-8")
    plain = [name for name in SUMMARY_SCHEMA.names if not re.search(r"_(count|mean|sd|q\d\d|outliers)$", name)]
    for name in (*plain, *QUALITY, *(f"{share}_share" for share in SHARES)):
        assert f"`{name}`" in cohort, name
    outputs = (ROOT / "docs" / "outputs.md").read_text(encoding="utf-8")
    for key in ("status", "run_key", "quality", "flags", "files", "stain", "command", "seconds"):
        assert key in RunRecord.__slots__
        assert f"`{key}`" in outputs


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    others = {"performance.md", "scale.md"}  # linked where they exist
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name in {"README.md"} | others or f"]({page.name})" in index, page.name
