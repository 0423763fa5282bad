"""The commands `evaluate` and `tune`, from names to files."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast, get_args

from amasam.entries import find_segmenter
from amasam.evalreport import as_markdown, write_report
from amasam.evaluate import Part, coarsen, evaluate_model, load_part
from amasam.loading import load_model
from amasam.segmenter import ABLATIONS, AmaSamSegmenter, Precision
from amasam.tune import Tried, tune_postprocess
from wsipipe.atomic import write_text
from wsipipe.errors import UsageError
from wsipipe.segmenter import Segmenter


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRequest:
    """What is asked of `evaluate`.

    Attributes:
        models: names or weights files; the others are compared with the first.
        sets: names of data sets, described by NAME.toml in `descriptions`.
        part: which of their patients.
        data_root: folder that the sets' image folders are relative to.
        mpp_scale: images are made coarser by this factor first.
        ablations: parts of the first model to switch off, each as one more model.
        precision: of AMA-SAM models; None = the device's best.
        device: "cpu" or "cuda[:N]".
    """

    models: tuple[str, ...]
    sets: tuple[str, ...]
    part: str
    descriptions: Path
    data_root: Path
    mpp_scale: float = 1.0
    ablations: tuple[str, ...] = ()
    precision: Precision | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Refuse what cannot be done."""
        if self.part not in get_args(Part):
            raise UsageError(f"--part must be one of {', '.join(get_args(Part))}, got {self.part!r}")
        if self.mpp_scale <= 0:
            raise UsageError(f"--mpp-scale must be > 0, got {self.mpp_scale}")
        if unknown := sorted(set(self.ablations) - set(ABLATIONS)):
            raise UsageError(f"--ablate must be one of {', '.join(ABLATIONS)}, got {unknown[0]!r}")


def run_evaluation(request: EvaluationRequest, out: Path, *, on_image: Callable[[str], None]) -> str:
    """Evaluate all models on the same images, write the report's files, return its Markdown.

    Args:
        request: what to evaluate.
        out: folder for the files.
        on_image: called with a name after each image.
    """
    samples = load_part(request.sets, cast(Part, request.part), request.descriptions, request.data_root)
    samples = [coarsen(sample, request.mpp_scale) for sample in samples]
    evaluations, weights = [], {}
    for name, segmenter in _load_models(request).items():
        evaluations.append(evaluate_model(segmenter, samples, name=name, on_image=lambda sample: on_image(sample.name)))
        weights[name] = {"sha256": segmenter.sha256, "mpp": segmenter.mpp, **segmenter.parameters}
    facts = {
        "sets": list(request.sets),
        "part": request.part,
        "images": len(samples),
        "mpp_scale": request.mpp_scale,
        "device": request.device,
        "models": weights,
    }
    write_report(out, evaluations, facts)
    return as_markdown(evaluations, facts)


def _load_models(request: EvaluationRequest) -> dict[str, Segmenter]:
    found: dict[str, Segmenter] = {}
    for model in request.models:
        segmenter = find_segmenter(model, device=request.device, precision=request.precision)
        found[short_name(model)] = segmenter
    if len(found) < len(request.models):
        raise UsageError(f"--model names must differ in their last folder and file, got {', '.join(request.models)}")
    name, first = next(iter(found.items()))
    if request.ablations and not isinstance(first, AmaSamSegmenter):
        raise UsageError(f"--ablate needs an AMA-SAM model first, got {request.models[0]!r}")
    for part in request.ablations:
        found[f"{name} ({part})"] = cast(AmaSamSegmenter, first).with_ablation(part)
    return found


def short_name(model: str) -> str:
    """Return how a model stands in tables: its name, or folder/file of its weights."""
    return "/".join(Path(model).parts[-2:])


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningRequest:
    """What is asked of `tune`; fields as in `EvaluationRequest`."""

    model: Path
    sets: tuple[str, ...]
    descriptions: Path
    data_root: Path
    precision: Precision | None = None
    device: str = "cpu"


def run_tuning(request: TuningRequest, out: Path, *, on_try: Callable[[Tried], None] = lambda tried: None) -> Tried:
    """Tune a checkpoint's post-processing on validation patients, write all that was tried as JSON, return the best.

    Args:
        request: model and images.
        out: the JSON file; its key "best" is what `export --post` stores.
        on_try: called with every setting.
    """
    samples = load_part(request.sets, "validation", request.descriptions, request.data_root)
    segmenter = load_model(request.model, name=request.model.stem, device=request.device, precision=request.precision)
    tried = tune_postprocess(segmenter, samples, on_try=on_try)
    best = max(tried, key=lambda t: t.score)
    record = {
        "best": best.post.as_table(),
        "aji": best.aji,
        "pq": best.pq,
        "sha256": segmenter.sha256,
        "images": [f"{sample.domain}/{sample.name}" for sample in samples],
        "tried": [asdict(t) for t in tried],
    }
    write_text(out, json.dumps(record, indent=1) + "\n")
    return best
