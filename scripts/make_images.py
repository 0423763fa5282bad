"""The pictures of the documentation: a slide is drawn, segmented by the default model, and shown.

demo.png: overview with the density of nuclei, and a part at full resolution with the outlines that were found.
report.jpg, cohort.jpg: the pages in headless Chromium; left as they are where there is none.
"""

import argparse
import io
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import shapely
from numpy.typing import NDArray
from PIL import Image

from wsipipe.demo import draw_slide
from wsipipe.drawing import draw_outlines
from wsipipe.drawnslide import DemoSpec
from wsipipe.frames import WorkFrame
from wsipipe.gallery import to_jpeg, to_outlines
from wsipipe.grid import Box
from wsipipe.options import DEFAULT_MODEL, RunOptions, resolve_device
from wsipipe.runner import run_slides
from wsipipe.slide import open_slide
from wsipipe.slidelist import list_slides
from wsipipe.table import read_nuclei

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
SPEC = DemoSpec(width=4000, height=3000, seed=7)
CROP_L0 = Box(1500, 1300, 1950, 1700)
ZOOM = 2
MAX_BYTES = 400_000
HEIGHT = 620  # px of demo.png


def main() -> None:
    """Make every picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    model = parser.parse_args().model
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        one, study = Path(place, "one"), Path(place, "study")
        one.mkdir()
        draw_slide(one / "drawn.svs", one / "truth.zarr", SPEC)
        segment(one, model, None)
        write_png(IMAGES / "demo.png", demo_picture(one / "drawn.svs", one / "results" / "drawn"))
        segment(study, model, draw_study(study))
        take_pages(one / "results" / "drawn" / "report.html", study / "results" / "cohort.html")


def draw_study(place: Path) -> Path:
    """Draw the slides of 12 patients, half of them with larger, sparser nuclei; return the metadata CSV."""
    place.mkdir()
    rows = ["slide,patient,group"]
    for k in range(12):
        is_b = k % 2
        spec = DemoSpec(800, 800, seed=k, tissue=1, density=0.7 if is_b else 1.0, diameter=1.2 if is_b else 1.0)
        draw_slide(place / f"case-{k:02d}.svs", place / f"truth-{k}.zarr", spec)
        rows.append(f"case-{k:02d},P{k:02d},{'treated' if is_b else 'control'}")
    table = place / "study.csv"
    table.write_text("\n".join(rows), encoding="utf-8")
    return table


def segment(place: Path, model: str, metadata: Path | None) -> None:
    """Run the main job on the slides of a folder, into its folder `results`."""
    shown = ("wsipipe", "run", "slides/", "-o", "results", *(("--metadata", "study.csv") if metadata else ()))
    options = RunOptions(
        out=place / "results", model=model, device=resolve_device("auto"), metadata=metadata, command=shown
    )
    summary = run_slides(list_slides([str(place)], mpp=None), options, lambda event: None)
    if summary.failures:
        sys.exit(str(summary.failures))


def demo_picture(slide_path: Path, folder: Path) -> NDArray[np.uint8]:
    """Set the overview and the part at full resolution side by side."""
    overview = np.asarray(cv2.imread(str(folder / "overview.png"), cv2.IMREAD_COLOR_RGB), np.uint8)
    crop = crop_picture(slide_path, folder)
    panels = [fit_height(image, HEIGHT) for image in (overview, crop)]
    gap = np.full((HEIGHT, 16, 3), 255, np.uint8)
    return np.hstack([panels[0], gap, panels[1]])


def crop_picture(slide_path: Path, folder: Path) -> NDArray[np.uint8]:
    """Draw the outlines that touch the crop over its pixels."""
    box = CROP_L0
    with open_slide(slide_path) as slide:
        frame = WorkFrame(slide.width, slide.height, slide.mpp.x, slide.mpp.y, 1.0, 1.0)
        rgb = slide.read(box, frame)
    polygons = shapely.from_wkb(read_nuclei(folder / "nuclei.parquet", ["geometry"])["geometry"].to_numpy())
    near = polygons[shapely.intersects(polygons, shapely.box(box.x0, box.y0, box.x1, box.y1))]
    return draw_outlines(rgb, to_outlines(near, (1.0, 1.0)), origin=(box.x0, box.y0), zoom=ZOOM)


def fit_height(image: NDArray[np.uint8], height: int) -> NDArray[np.uint8]:
    """Resize to a height."""
    size = round(image.shape[1] * height / image.shape[0]), height
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def write_png(path: Path, image: NDArray[np.uint8]) -> None:
    """Write a PNG below MAX_BYTES: fewer colours first, then fewer pixels."""
    while True:
        data = palette_png(image)
        if len(data) <= MAX_BYTES:
            path.write_bytes(data)
            print(f"{path.relative_to(ROOT)}: {image.shape[1]} x {image.shape[0]} px, {len(data) / 1000:.0f} kB")
            return
        image = fit_height(image, round(image.shape[0] * 0.93))


def palette_png(image: NDArray[np.uint8]) -> bytes:
    """Encode with 256 colours that fit the picture."""
    out = io.BytesIO()
    Image.fromarray(image).quantize(256, kmeans=2, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()


def take_pages(report: Path, cohort: Path) -> None:
    """Photograph the top of report.html and cohort.html."""
    sys.path.insert(0, str(ROOT / "tests"))
    from support_browser import chromium, find_chromium, visit

    if find_chromium() is None:
        print("no Chromium: report.jpg and cohort.jpg stay as they are")
        return
    with chromium() as port:
        for page, top in ((report, 1450), (cohort, 1500)):
            data = np.frombuffer(visit(port, page, width=1100, picture=True).picture, np.uint8)
            image = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)[:top], np.uint8)
            (IMAGES / f"{page.stem}.jpg").write_bytes(to_jpeg(image, 80))


if __name__ == "__main__":
    main()
