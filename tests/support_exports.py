"""A drawn slide and its finished folder, for tests of exports and viewers."""

from pathlib import Path

from wsipipe.demo import draw_slide
from wsipipe.drawnslide import DemoSpec
from wsipipe.options import RunOptions
from wsipipe.runner import run_slides
from wsipipe.slidelist import list_slides


def segment_drawn(where: Path, *, width: int = 1300, height: int = 1101, mpp: float = 0.125) -> Path:
    """Draw a slide, find its nuclei with the classical model, and return the slide's folder.

    At 0.125 um per px the work grid is half of level 0, so that frames cannot be mistaken for each other.
    """
    slide = where / "slides" / "slide-1.svs"
    slide.parent.mkdir(parents=True)
    draw_slide(slide, where / "truth.zarr", DemoSpec(width=width, height=height, mpp=mpp, tissue=1, seed=3))
    options = RunOptions(out=where / "results", model="classical", tissue="none", workers=0)
    summary = run_slides(list_slides([str(slide)], mpp=None), options, lambda event: None)
    return summary.results[0].folder
