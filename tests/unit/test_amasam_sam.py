import subprocess
import sys

import pytest

from amasam import sam
from wsipipe.errors import ModelError


def test_modules_load_without_torchvision_and_leave_no_half_package_behind():
    code = (
        "import sys; sys.modules['torchvision'] = None\n"
        "from amasam.sam import sam_module\n"
        "a = sam_module('modeling').MaskDecoder\n"
        "assert 'segment_anything' not in sys.modules\n"
        "assert sam_module('modeling').MaskDecoder is a\n"
        "assert sam_module('build_sam').sam_model_registry\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_missing_package_is_one_line_that_says_what_to_install(monkeypatch):
    monkeypatch.setattr(sam, "PACKAGE", "no_such_package_anywhere")
    with pytest.raises(ModelError, match="pip install --no-deps segment-anything"):
        sam.sam_module("modeling")
