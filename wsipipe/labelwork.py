"""The label pyramid of one slide, from block files to labels.ome.zarr.

A task writes whole shards, and no two tasks write the same one.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsipipe.atomic import PARTIAL, replacing
from wsipipe.blockfile import read_block_runs
from wsipipe.errors import BlockFileError
from wsipipe.grid import Box
from wsipipe.labels import Shard, create_labels, level_sizes, list_shards, write_level0_shard, write_reduced_shard
from wsipipe.nuclei import Runs
from wsipipe.provenance import Provenance
from wsipipe.slidework import SlideWork

LABELS_NAME = "labels.ome.zarr"
SHARDS_AT_ONCE = 4  # from the level on that has no more shards than this, one task writes all that is left


@dataclass(frozen=True, slots=True)
class LabelLayout:
    """Where each block's nuclei lie and how they are numbered.

    Attributes:
        blocks: int64 (n,) indices of the slide's blocks, in order.
        first_label: int64 (n + 1,): block k owns labels first_label[k] .. first_label[k + 1] - 1.
        boxes: int64 (n, 4): x0, y0, x1, y1 around the pixels of each block's nuclei, work px; zeros if there are none.
    """

    blocks: NDArray[np.int64]
    first_label: NDArray[np.int64]
    boxes: NDArray[np.int64]

    def box(self, position: int) -> Box:
        """Return the box of one block's pixels."""
        return Box(*(int(value) for value in self.boxes[position]))


def lay_out_labels(work: SlideWork) -> list[int]:
    """Read what every block owns, keep the layout, and begin an empty label image.

    Returns:
        Blocks whose file turned out to be damaged; their files are gone, nothing else was written.
    """
    boxes, counts, damaged = [], [], []
    for block in work.plan.blocks:
        try:
            runs = read_block_runs(work.folder.block_path(block.index))
        except BlockFileError:
            work.folder.drop_block(block.index)
            damaged.append(block.index)
            continue
        boxes.append(_bounds(runs))
        counts.append(int(runs.label.max(initial=0)))
    if not damaged:
        first_label = np.concatenate([[1], 1 + np.cumsum(counts, dtype=np.int64)])
        blocks = np.array([block.index for block in work.plan.blocks], np.int64)
        layout = LabelLayout(blocks, first_label, np.array(boxes, np.int64).reshape(-1, 4))
        with replacing(work.folder.layout_path) as partial, partial.open("wb") as handle:
            np.savez(handle, blocks=layout.blocks, first_label=layout.first_label, boxes=layout.boxes)
        shutil.rmtree(_partial(work), ignore_errors=True)
        create_labels(_partial(work), provenance_of(work))
    return damaged


def _bounds(runs: Runs) -> tuple[int, int, int, int]:
    if not len(runs.row):
        return 0, 0, 0, 0
    return int(runs.x0.min()), int(runs.row.min()), int(runs.x1.max()), int(runs.row.max()) + 1


def plan_labels(work: SlideWork) -> list[list[tuple[Shard, ...]]]:
    """Return the tasks of the pyramid: lists that must be done one after another, of tasks that need not."""
    layout = _read_layout(work)
    touched = [layout.box(k) for k in range(len(layout.blocks))]
    steps: list[list[tuple[Shard, ...]]] = []
    rest: list[Shard] = []
    for level in range(len(level_sizes(work.plan.frame))):
        shards = list_shards(work.plan.frame, level, touched)
        if rest or len(shards) <= SHARDS_AT_ONCE:
            rest += shards
        else:
            steps.append([(shard,) for shard in shards])
    return [*steps, [tuple(rest)]]


def write_shards(work: SlideWork, shards: Sequence[Shard]) -> None:
    """Write shards in order; those that they are made from must be there, or come before them."""
    layout = _read_layout(work)
    for shard in shards:
        if shard.level:
            write_reduced_shard(_partial(work), shard)
        else:
            write_level0_shard(_partial(work), shard, _parts(work, layout, shard))


def _parts(work: SlideWork, layout: LabelLayout, shard: Shard) -> list[tuple[Runs, int]]:
    meeting = [k for k in range(len(layout.blocks)) if not layout.box(k).intersect(shard.box).is_empty]
    path = work.folder.block_path
    return [(read_block_runs(path(int(layout.blocks[k]))), int(layout.first_label[k]) - 1) for k in meeting]


def _read_layout(work: SlideWork) -> LabelLayout:
    with np.load(work.folder.layout_path) as stored:
        return LabelLayout(stored["blocks"], stored["first_label"], stored["boxes"])


def place_labels(work: SlideWork) -> None:
    """Give the finished label image its name; doing it twice does no harm."""
    if _partial(work).exists():
        shutil.rmtree(work.folder.path / LABELS_NAME, ignore_errors=True)
        os.replace(_partial(work), work.folder.path / LABELS_NAME)


def _partial(work: SlideWork) -> Path:
    return work.folder.path / f".{LABELS_NAME}{PARTIAL}"


def provenance_of(work: SlideWork) -> Provenance:
    """Return what every file of the slide's folder carries."""
    model = work.facts
    return Provenance(work.slide.path.name, work.slide.identity, model.name, model.sha256, work.plan.frame)
