"""The pixels of labels as horizontal runs: a compact form that can be painted anywhere."""

import numpy as np
from numpy.typing import NDArray

from wsipipe.nuclei import Runs


def pixel_runs(labels: NDArray[np.int32], *, origin: tuple[int, int]) -> Runs:
    """List the runs of equal labels along rows.

    Args:
        labels: int32 (H, W), 0 = background.
        origin: (x, y) of labels[0, 0] in work px.

    Returns:
        Runs in work px, sorted by (label, row, x0).
    """
    height, width = labels.shape
    framed = np.zeros((height, width + 2), np.int32)
    framed[:, 1:-1] = labels
    rows, cols = np.nonzero(framed[:, 1:] != framed[:, :-1])  # a change before column `col` of labels
    after = framed[rows, cols + 1]
    starts = np.flatnonzero(after)  # every start of a run is followed by its own end in the same row
    row, label = rows[starts].astype(np.int32), after[starts]
    x0, x1 = cols[starts].astype(np.int32), cols[starts + 1].astype(np.int32)
    order = np.lexsort((x0, row, label))
    x, y = np.int32(origin[0]), np.int32(origin[1])
    return Runs(row[order] + y, x0[order] + x, x1[order] + x, label[order])
