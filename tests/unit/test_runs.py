import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from wsipipe.runs import pixel_runs


@given(arrays(np.int32, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 3)))
def test_painting_the_runs_gives_the_labels_back(labels):
    runs = pixel_runs(labels, origin=(7, -3))
    painted = np.zeros_like(labels)
    for row, x0, x1, label in zip(runs.row, runs.x0, runs.x1, runs.label, strict=True):
        assert not painted[row + 3, x0 - 7 : x1 - 7].any()
        painted[row + 3, x0 - 7 : x1 - 7] = label
    assert (painted == labels).all()


@given(arrays(np.int32, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 3)))
def test_runs_are_maximal_and_sorted(labels):
    runs = pixel_runs(labels, origin=(0, 0))
    keys = list(zip(runs.label, runs.row, runs.x0, strict=True))
    assert keys == sorted(keys)
    for row, x0, x1, label in zip(runs.row, runs.x0, runs.x1, runs.label, strict=True):
        assert x0 == 0 or labels[row, x0 - 1] != label
        assert x1 == labels.shape[1] or labels[row, x1] != label


def test_no_label_is_no_run():
    assert len(pixel_runs(np.zeros((3, 4), np.int32), origin=(0, 0)).row) == 0
