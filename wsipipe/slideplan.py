"""What is to be done on one slide, decided before any pixel goes through the model."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsipipe.atomic import replacing
from wsipipe.frames import WorkFrame, work_frame
from wsipipe.grid import Block, Tile, TileGrid, plan_blocks
from wsipipe.journal import FORMAT_VERSION, RunKey
from wsipipe.options import RunOptions
from wsipipe.segmenter import ModelFacts, Segmenter
from wsipipe.slide import Slide, check_scale
from wsipipe.slidelist import SlideJob
from wsipipe.stainnorm import NONE, ColourTransform, load_fitter, parse_stain_norm
from wsipipe.tissue import TissueMask, load_tissue, tissue_tiles

TISSUE_KEY = "tissue_sha256"
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
        colours: what tiles go through before the model sees them; None for nothing.
    """

    job: SlideJob
    frame: WorkFrame
    grid: TileGrid
    tissue: TissueMask
    blocks: tuple[Block, ...]
    key: RunKey
    colours: ColourTransform | None = None

    @property
    def n_tiles(self) -> int:
        """Tiles that go through the model."""
        return sum(len(block.tiles) for block in self.blocks)

    @property
    def tissue_mm2(self) -> float:
        """Tissue area in square millimetres."""
        return self.tissue.area_mm2((self.frame.l0_mpp_x, self.frame.l0_mpp_y))


def plan_slide(slide: Slide, job: SlideJob, model: ModelFacts | Segmenter, options: RunOptions) -> SlidePlan:
    """Lay the grid over the slide's tissue.

    Raises:
        ScaleError: the slide is much coarser than the model wants.
        UsageError: the tissue file is unusable.
        SlideReadError: the overview cannot be read.
    """
    check_scale((slide.mpp.x, slide.mpp.y), model.mpp, allow_upsampling=options.allow_upsampling, path=slide.path)
    frame, grid = _lay_grid(slide, model)
    tissue = load_tissue(options.tissue, slide)
    blocks = tuple(plan_blocks(grid, tissue_tiles(tissue, grid, frame)))
    key = {**key_without_tissue(slide, model, options), TISSUE_KEY: _mask_sha256(tissue)}
    return SlidePlan(job, frame, grid, tissue, blocks, RunKey(key))


def _lay_grid(slide: Slide, model: ModelFacts | Segmenter) -> tuple[WorkFrame, TileGrid]:
    frame = work_frame((slide.width, slide.height), (slide.mpp.x, slide.mpp.y), model.mpp, slide.downsamples)
    return frame, TileGrid(frame.width, frame.height, side=model.tile, halo=model.halo)


def _mask_sha256(tissue: TissueMask) -> str:
    return hashlib.sha256(np.packbits(tissue.mask).tobytes()).hexdigest()


def key_without_tissue(slide: Slide, model: ModelFacts | Segmenter, options: RunOptions) -> Mapping[str, Any]:
    """Return the run key but for the mask's hash, which costs a look at the slide's pixels.

    It is the whole key in effect where no tissue file is given: the mask then follows from the rest.
    """
    frame, grid = _lay_grid(slide, model)
    norm = parse_stain_norm(options.stain_norm)
    return {
        "format_version": FORMAT_VERSION,
        "slide": slide.identity,
        "slide_mpp": [slide.mpp.x, slide.mpp.y],
        "work_mpp": [frame.mpp_x, frame.mpp_y],
        "model": model.name,
        "model_sha256": model.sha256,
        "model_parameters": dict(model.parameters),
        "tile": grid.side,
        "halo": grid.halo,
        "block_tiles": grid.block_tiles,
        "tissue": options.tissue if options.tissue in ("auto", "none") else "file",
        "stain": options.stain,
        "geojson_detail": options.geojson_detail,
        "stain_norm": norm.identity if norm else NONE,
    }


def save_plan(path: Path, plan: SlidePlan) -> None:
    """Write a plan, whole or not at all, so that every worker finds the same one."""
    job, tissue = plan.job, plan.tissue
    head = {
        "job": {"path": str(job.path), "id": job.id, "mpp": job.mpp},
        "frame": asdict(plan.frame),
        "grid": asdict(plan.grid),
        "tissue": [tissue.mask.shape, tissue.l0_per_px_x, tissue.l0_per_px_y, tissue.source],
        "key": plan.key.values,
        "colours": plan.colours and plan.colours.to_json(),
    }
    with replacing(path) as partial, partial.open("wb") as handle:
        np.savez(handle, head=np.array(json.dumps(head)), mask=np.packbits(tissue.mask))


def load_plan(path: Path) -> SlidePlan:
    """Read what `save_plan` wrote."""
    with np.load(path) as stored:
        head, bits = json.loads(str(stored["head"])), stored["mask"]
    shape, l0_per_px_x, l0_per_px_y, source = head["tissue"]
    mask = np.unpackbits(bits, count=shape[0] * shape[1]).reshape(shape).astype(np.bool_)
    tissue = TissueMask(mask, l0_per_px_x, l0_per_px_y, source)
    frame, grid = WorkFrame(**head["frame"]), TileGrid(**head["grid"])
    blocks = tuple(plan_blocks(grid, tissue_tiles(tissue, grid, frame)))
    job = SlideJob(Path(head["job"]["path"]), head["job"]["id"], head["job"]["mpp"])
    colours = head["colours"] and ColourTransform.from_json(head["colours"])
    return SlidePlan(job, frame, grid, tissue, blocks, RunKey(head["key"]), colours)


def fit_to_slide(path: Path, plan: SlidePlan, slide: Slide, stain_norm: str) -> SlidePlan:
    """Return the plan with the colour transform that was asked for; the one of an earlier plan at path, if it has one.

    Raises:
        MissingExtraError: the package that fits it is not installed.
        SlideError: it cannot be fitted to this slide.
    """
    if stain_norm == NONE:
        return plan
    if path.is_file():  # of the same run key, or the folder would have been refused
        return replace(plan, colours=load_plan(path).colours)
    return replace(plan, colours=load_fitter(stain_norm)(sample_tiles(plan, slide)))


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
