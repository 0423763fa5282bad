import pytest

from wsipipe.errors import UsageError
from wsipipe.options import RunOptions, parse_memory, resolve_device


@pytest.mark.parametrize(("text", "value"), [("16GB", 16 * 2**30), ("1.5g", 3 * 2**29), ("2048 MiB", 2**31)])
def test_memory_is_read_with_its_unit(text, value):
    assert parse_memory(text) == value


@pytest.mark.parametrize("text", ["much", "16XB", "-3GB", "500MB", ""])
def test_memory_that_makes_no_sense_is_wrong_usage(text):
    with pytest.raises(UsageError, match="--memory"):
        parse_memory(text)


@pytest.mark.parametrize(
    "values", [{"batch_size": 0}, {"workers": -1}, {"geojson_detail": "huge"}, {"stain": "reinhard"}]
)
def test_choices_outside_their_range_are_wrong_usage(values):
    with pytest.raises(UsageError, match=f"--{next(iter(values)).replace('_', '-')}"):
        RunOptions(**values)


def test_a_device_that_is_not_there_is_wrong_usage():
    assert resolve_device("cpu") == "cpu"
    for text in ("cuda:99", "tpu"):
        with pytest.raises(UsageError, match="--device"):
            resolve_device(text)
