"""Which slide, model and frame nuclei come from: every file that holds them carries it."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from wsipipe.frames import WorkFrame


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where the nuclei of one slide folder come from.

    Attributes:
        slide: file name of the slide, without its folder.
        slide_key: hash of the slide's content (`Slide.identity`); the uuids of its nuclei derive from it.
        model: name of the segmenter.
        model_sha256: of its weights.
        frame: the work grid on the slide.
    """

    slide: str
    slide_key: str
    model: str
    model_sha256: str
    frame: WorkFrame

    def to_json(self, format_version: int) -> dict[str, Any]:
        """Return the block of JSON values that files carry under the name `wsipipe`, keys always in one order."""
        frame = self.frame
        return {
            "format_version": format_version,
            "slide": self.slide,
            "slide_key": self.slide_key,
            "model": self.model,
            "model_sha256": self.model_sha256,
            "work_mpp": [frame.mpp_x, frame.mpp_y],
            "frame": asdict(frame),
        }


def provenance_from_json(values: dict[str, Any]) -> Provenance:
    """Rebuild the provenance from `Provenance.to_json`.

    Raises:
        ValueError: a value is missing or of another kind.
    """
    try:
        frame = WorkFrame(**values["frame"])
        return Provenance(values["slide"], values["slide_key"], values["model"], values["model_sha256"], frame)
    except (KeyError, TypeError) as error:
        raise ValueError(f"provenance must hold slide, slide_key, model, model_sha256 and frame: {error!r}") from error


def provenance_text(provenance: Provenance, format_version: int) -> str:
    """Return `Provenance.to_json` as compact JSON text."""
    return json.dumps(provenance.to_json(format_version), ensure_ascii=False, separators=(",", ":"))
