"""Signs that a slide's result should be looked at before it is used."""

import math

TYPICAL_DIAMETER_UM = (4.0, 15.0)  # median equivalent diameter of nuclei in human tissue, spec of the project


def plausibility_flags(*, nuclei: int, tissue_mm2: float, median_diameter_um: float) -> tuple[str, ...]:
    """Return short texts in plain words; empty if nothing is odd.

    Args:
        nuclei: number found.
        tissue_mm2: tissue area.
        median_diameter_um: of the equivalent diameters; NaN without nuclei.
    """
    if tissue_mm2 == 0:
        return ("no tissue was found; pass --tissue none or a mask if that is wrong",)
    if nuclei == 0:
        return ("tissue but no nucleus was found; check the stain and the mpp",)
    low, high = TYPICAL_DIAMETER_UM
    if math.isfinite(median_diameter_um) and not low <= median_diameter_um <= high:
        return (
            f"median nucleus diameter is {median_diameter_um:.1f} um, typical is {low:g}-{high:g} um; check the mpp",
        )
    return ()
