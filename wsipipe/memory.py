"""How the memory that a run may use is shared out: threads that cut out nuclei, tiles read ahead, slides kept open.

The costs were measured with benchmarks/memory.py; docs/performance.md has the numbers.
"""

import logging
from dataclasses import dataclass

from wsipipe.errors import UsageError
from wsipipe.grid import TileGrid
from wsipipe.machine import available_memory_bytes
from wsipipe.segmenter import ModelFacts

logger = logging.getLogger(__name__)

# Maps, labels, colours and the kernels' work space of one window; 28 were measured. A label shard needs 2/3 of that.
EXTRACT_BYTES_PER_PX = 40
SLIDE_BYTES = 96 << 20  # decoded tiles that a slide's reader keeps, its plan, its threads
READ_AHEAD = 4  # tiles waiting in front of the model, for each task in its lane
LANE_TASKS = 2  # block tasks that share a model
DEFAULT_SHARE = 0.7  # of the free memory, where the user names no limit


@dataclass(frozen=True, slots=True)
class Budget:
    """Shares of the memory of one process.

    Attributes:
        cpu_slots: CPU tasks at once.
        open_slides: slides kept open.
        readers: threads that read tiles for one slide.
        window_px: largest window in which nuclei are cut out.
    """

    cpu_slots: int
    open_slides: int
    readers: int
    window_px: int


def share_memory(limit: int | None, *, base: int, threads: int, model: ModelFacts) -> Budget:
    """Share memory out.

    Args:
        limit: bytes that the process may use in all; None: a share of what is free now, beyond base.
        base: bytes that it uses already, with the model loaded.
        threads: CPU tasks at once, at most.
        model: what sets the size of tiles and maps.

    Raises:
        UsageError: not even one CPU task at a time fits under the limit.
    """
    window_px = block_window_px(model)
    one = EXTRACT_BYTES_PER_PX * window_px
    fixed = fixed_bytes(base, model)
    total = limit if limit is not None else base + round(DEFAULT_SHARE * available_memory_bytes())
    fitting = (total - fixed) // one
    if fitting < 1 and limit is not None:
        needed = -(-(fixed + one) // 2**30)
        raise UsageError(
            f"--memory {limit / 2**30:.1f}GB is too small: model {model.name} and one block of tiles at a time need "
            f"{(fixed + one) / 2**30:.1f} GB; pass --memory {needed}GB or more"
        )
    slots = max(1, min(threads, fitting))
    if slots < threads:
        logger.info("memory for %d of %d CPU tasks at once", slots, threads)
    spare = max(0, total - fixed - slots * one)
    return Budget(
        cpu_slots=slots,
        open_slides=2 + min(6, spare // (4 * SLIDE_BYTES)),
        readers=max(1, min(4, threads)),
        window_px=window_px + spare // (2 * slots * EXTRACT_BYTES_PER_PX),
    )


def fixed_bytes(base: int, model: ModelFacts) -> int:
    """Return what a run takes before the first CPU task: base, tiles in front of the model and two open slides."""
    lane = LANE_TASKS * READ_AHEAD * (3 + len(model.map_names)) * model.tile**2
    return base + lane + 2 * SLIDE_BYTES


def block_window_px(model: ModelFacts) -> int:
    """Return the px of the usual window in which the nuclei of a block are cut out."""
    grid = TileGrid(1 << 30, 1 << 30, side=model.tile, halo=model.halo)
    return (grid.block_tiles * grid.core + 4 * model.halo) ** 2
