"""What differs between two runs is told in options, and once."""

from wsipipe.keydifference import differences

KEY = {
    "format_version": 1,
    "slide": "0f3a",
    "slide_mpp": [0.2521, 0.2521],
    "work_mpp": [0.5, 0.5],
    "model": "classical",
    "model_sha256": "aa",
    "model_parameters": {"min_um": 3.0, "precision": "float32"},
    "tile": 1024,
    "tissue": "auto",
    "tissue_sha256": "bb",
    "stain": "qupath",
}


def test_equal_keys_differ_in_nothing():
    assert differences(KEY, dict(KEY)) == ""


def test_another_model_is_one_difference_not_five():
    new = KEY | {"model": "tiny", "model_sha256": "cc", "model_parameters": {}, "tile": 512, "work_mpp": [0.4, 0.4]}
    assert differences(KEY, new) == "--model was classical, now tiny"


def test_another_mpp_is_told_with_few_digits():
    new = KEY | {"slide_mpp": [0.123456789, 0.123456789], "work_mpp": [0.49, 0.49], "tissue_sha256": "dd"}
    assert differences(KEY, new) == "the slide's mpp (--mpp) was 0.2521, now 0.1235"
    assert "now 0.25 x 0.26" in differences(KEY, KEY | {"slide_mpp": [0.25, 0.26]})


def test_hashes_are_told_in_words():
    new = KEY | {"slide": "1", "tissue_sha256": "2"}
    assert differences(KEY, new) == "the slide file is another one or was changed"
    assert differences(KEY, KEY | {"model_sha256": "1"}) == "the model's weights are others"
    assert differences(KEY, KEY | {"tissue": "file", "tissue_sha256": "1"}) == "--tissue was auto, now a file"
    assert "mask or areas of --tissue" in differences(KEY, KEY | {"tissue_sha256": "1"})


def test_parameters_and_options_to_come_are_named():
    new = KEY | {"model_parameters": {"min_um": 3.0, "precision": "bfloat16"}, "some_option": "x" * 99}
    assert differences(KEY, new) == (
        "model parameter precision was float32, now bfloat16; some option was not set, now " + "x" * 37 + "..."
    )
