"""What is to be done on one slide, decided before any pixel goes through the model."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsipipe.frames import WorkFrame, work_frame
from wsipipe.grid import Block, Tile, TileGrid, plan_blocks
from wsipipe.journal import FORMAT_VERSION, RunKey
from wsipipe.options import RunOptions
from wsipipe.segmenter import Segmenter
from wsipipe.slide import Slide, check_scale
from wsipipe.slidelist import SlideJob
from wsipipe.tissue import TissueMask, load_tissue, tissue_tiles

SAMPLE_TILES = 8  # tissue tiles that a segmenter may fit itself to, and that stain vectors are estimated from


@dataclass(frozen=True, slots=True)
class SlidePlan:
    """The work on one slide.

    Attributes:
        job: path, id and the user's mpp.
        frame: level-0 px <-> work px.
        grid: tiles and blocks over the work grid.
        tissue: where to look.
        blocks: blocks with tissue, raster order.
        key: what decides the bytes of the results.
    """

    job: SlideJob
    frame: WorkFrame
    grid: TileGrid
    tissue: TissueMask
    blocks: tuple[Block, ...]
    key: RunKey

    @property
    def n_tiles(self) -> int:
        """Tiles that go through the model."""
        return sum(len(block.tiles) for block in self.blocks)

    @property
    def tissue_mm2(self) -> float:
        """Tissue area in square millimetres."""
        return self.tissue.area_mm2((self.frame.l0_mpp_x, self.frame.l0_mpp_y))

    @property
    def slide_key(self) -> str:
        """Hex digest of the run key: the name space of the nuclei's uuids."""
        return hashlib.sha256(self.key.to_json().encode()).hexdigest()


def plan_slide(slide: Slide, job: SlideJob, segmenter: Segmenter, options: RunOptions) -> SlidePlan:
    """Lay the grid over the slide's tissue.

    Raises:
        ScaleError: the slide is much coarser than the model wants.
        UsageError: the tissue file is unusable.
        SlideReadError: the overview cannot be read.
    """
    check_scale((slide.mpp.x, slide.mpp.y), segmenter.mpp, allow_upsampling=options.allow_upsampling, path=slide.path)
    frame = work_frame((slide.width, slide.height), (slide.mpp.x, slide.mpp.y), segmenter.mpp, slide.downsamples)
    grid = TileGrid(frame.width, frame.height, side=segmenter.tile, halo=segmenter.halo)
    tissue = load_tissue(options.tissue, slide)
    blocks = tuple(plan_blocks(grid, tissue_tiles(tissue, grid, frame)))
    key = RunKey(_key_values(slide, frame, grid, tissue, segmenter, options))
    return SlidePlan(job, frame, grid, tissue, blocks, key)


def _key_values(
    slide: Slide, frame: WorkFrame, grid: TileGrid, tissue: TissueMask, segmenter: Segmenter, options: RunOptions
) -> Mapping[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "slide": slide.identity,
        "slide_mpp": [slide.mpp.x, slide.mpp.y],
        "work_mpp": [frame.mpp_x, frame.mpp_y],
        "model": segmenter.name,
        "model_sha256": segmenter.sha256,
        "model_parameters": dict(segmenter.parameters),
        "tile": grid.side,
        "halo": grid.halo,
        "block_tiles": grid.block_tiles,
        "tissue": options.tissue if options.tissue in ("auto", "none") else "file",
        "tissue_sha256": hashlib.sha256(np.packbits(tissue.mask).tobytes()).hexdigest(),
        "stain": options.stain,
        "geojson_detail": options.geojson_detail,
    }


def sample_tiles(plan: SlidePlan, slide: Slide) -> NDArray[np.uint8]:
    """Read a fixed choice of tissue tiles, evenly spread over the plan.

    Returns:
        uint8 (N, 3, S, S), N <= SAMPLE_TILES.
    """
    tiles = [tile for block in plan.blocks for tile in block.tiles]
    picks = np.unique(np.linspace(0, len(tiles) - 1, min(SAMPLE_TILES, len(tiles))).round().astype(int))
    side = plan.grid.side
    images = [read_tile(slide, plan.frame, tiles[i]).transpose(2, 0, 1) for i in picks]
    return np.stack(images) if images else np.zeros((0, 3, side, side), np.uint8)


def read_tile(slide: Slide, frame: WorkFrame, tile: Tile) -> NDArray[np.uint8]:
    """Read a tile with its halo, uint8 (S, S, 3), white beyond the slide."""
    return slide.read(tile.read, frame)
