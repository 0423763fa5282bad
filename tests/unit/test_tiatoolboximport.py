import subprocess
import sys
from importlib.util import find_spec

import pytest
import support_runs

from wsipipe.errors import MissingExtraError, UsageError
from wsipipe.integrations import tiatoolboximport
from wsipipe.integrations.exports import export_slide
from wsipipe.integrations.tiatoolboximport import import_from_tiatoolbox
from wsipipe.segmenter import find_segmenter, list_segmenters, load_segmenter

absent = pytest.mark.skipif(find_spec("tiatoolbox") is not None, reason="TIAToolbox is installed here")
MODEL = "tiatoolbox:hovernet_fast-pannuke"
INSTALL = r"pip install -c constraints-tiatoolbox.txt .* && pip install --no-deps tiatoolbox==2.1.3"


@absent
def test_a_model_says_what_to_install():
    with pytest.raises(
        MissingExtraError, match=f"--model {MODEL} needs TIAToolbox, not installed here.*{INSTALL}"
    ) as got:
        load_segmenter(MODEL, device="cpu")
    assert "\n" not in str(got.value)


@absent
def test_stain_norm_says_what_to_install_before_anything_is_written(tmp_path):
    slide = support_runs.draw_discs(tmp_path / "slide.tiff", 300, 300)
    with pytest.raises(MissingExtraError, match=f"--stain-norm reinhard needs TIAToolbox.*{INSTALL}") as got:
        support_runs.run([slide], tmp_path / "out", workers=0, stain_norm="reinhard")
    assert "\n" not in str(got.value)
    assert not (tmp_path / "out").exists()


@absent
def test_the_annotation_store_says_what_to_install_and_leaves_nothing(tmp_path):
    slide = support_runs.draw_discs(tmp_path / "slide.tiff", 300, 300)
    support_runs.run([slide], tmp_path / "out", workers=0)
    with pytest.raises(MissingExtraError, match=f"--to annotation-store needs TIAToolbox.*{INSTALL}") as got:
        export_slide(tmp_path / "out" / "slide", "annotation-store")
    assert "\n" not in str(got.value)
    assert not list((tmp_path / "out" / "slide").glob("*.db"))


def test_its_models_are_listed_with_or_without_it():
    names = [entry.name for entry in list_segmenters() if entry.name.startswith("tiatoolbox:")]
    assert len(names) == 6
    for entry in list_segmenters():
        assert "\n" not in entry.weights()


def test_weights_of_ones_own_are_named_behind_the_model(tmp_path):
    path = tmp_path / "mine@home.pth"
    path.write_bytes(b"")
    entry, weights = find_segmenter(f"{MODEL}@{path}")
    assert (entry.name, weights) == (MODEL, path)
    with pytest.raises(UsageError, match=f"--model {MODEL}@FILE must name a weights file, which does not exist"):
        find_segmenter(f"{MODEL}@missing.pth")


def test_nothing_of_it_is_imported_unless_it_is_asked_for(tmp_path):
    """Listing models and formats, and a run with another model."""
    code = f"""
import sys
import support_runs
from pathlib import Path
from wsipipe.cli import main
from wsipipe.integrations import exports
from wsipipe.segmenter import list_segmenters
[entry.weights() for entry in list_segmenters()]
place = Path({str(tmp_path)!r})
support_runs.run([support_runs.draw_discs(place / "slide.tiff", 300, 300)], place / "out", workers=0)
exports.export_slide(place / "out" / "slide", "csv")
loaded = {{name.partition(".")[0] for name in sys.modules}}
print(sorted(loaded & {{"tiatoolbox", "torchvision", "timm", "transformers"}}))
"""
    paths = {"PYTHONPATH": str(support_runs.Path(support_runs.__file__).parent)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=paths, check=False)
    assert done.stdout.strip().endswith("[]"), done.stdout + done.stderr


def test_a_package_that_tiatoolbox_misses_is_named(tmp_path, monkeypatch):
    package = tmp_path / "tiatoolbox"
    package.mkdir()
    (package / "__init__.py").write_text("import a_package_that_is_not_there")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(tiatoolboximport, "_import_torchvision", lambda: None)
    monkeypatch.delitem(sys.modules, "tiatoolbox", raising=False)
    with pytest.raises(MissingExtraError, match="--x needs a_package_that_is_not_there, which TIAToolbox imports; run"):
        import_from_tiatoolbox("tiatoolbox", what="--x")
    sys.modules.pop("tiatoolbox", None)


TORCHVISION = """
import torch
@torch.library.register_fake("torchvision::nms")
def meta(dets, scores, iou_threshold):
    return dets
"""


def test_a_torchvision_without_its_operators_can_be_imported(tmp_path):
    """In a process of its own: a torchvision that fails as one built for CUDA does beside a CPU build of PyTorch."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(TORCHVISION)
    plain = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); "
    fails = plain + "import torchvision"
    works = plain + (
        "from wsipipe.integrations.tiatoolboximport import _import_torchvision; _import_torchvision();"
        "import torchvision; print(torchvision.meta.__name__)"
    )
    first = subprocess.run([sys.executable, "-c", fails], capture_output=True, text=True, check=False)
    assert "operator torchvision::nms does not exist" in first.stderr
    second = subprocess.run([sys.executable, "-c", works], capture_output=True, text=True, check=False)
    assert second.stdout.strip() == "meta", second.stderr
