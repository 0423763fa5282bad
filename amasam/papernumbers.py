"""The numbers of the AMA-SAM paper (arXiv 2503.21695), as facts to print beside ours.

Fractions are given as percent, HD in px of a 1024 x 1024 grid. "+" behind a method: trained on all four data sets.
"""

from dataclasses import dataclass

COLUMNS = ("dsc", "miou", "f1", "hd", "aji", "dq", "sq", "pq")

# Table 1: DSC mIoU F1 HD | AJI DQ SQ PQ; "-" = not given.
_MONUSEG = """
U-Net        | 74.06 60.25 75.57 18.94 | 34.98 50.94 68.59 34.96
U-Net +      | 73.50 59.66 75.09 19.20 | 33.76 49.77 68.28 33.55
Unet++       | 76.78 62.97 78.31 18.53 | - - - -
Unet++ +     | 75.77 61.63 77.43 18.78 | - - - -
ResUNet++    | 77.96 64.05 78.85 19.45 | - - - -
ResUNet++ +  | 77.48 63.50 69.65 19.53 | - - - -
DoubleU-Net  | 78.20 64.43 78.81 19.01 | - - - -
DoubleU-Net +| 77.05 63.09 78.00 19.25 | - - - -
nnU-Net      | 81.09 68.28 81.24 18.15 | 45.22 65.12 71.78 48.81
nnU-Net +    | 80.67 67.63 80.88 18.33 | 43.37 63.23 71.13 47.02
Mask-RCNN    | - - - -                 | 36.15 52.17 70.03 37.46
Mask-RCNN +  | - - - -                 | 34.78 51.00 69.55 36.02
HoVer-Net    | - - - -                 | 46.76 66.37 70.92 47.58
HoVer-Net +  | - - - -                 | 46.05 65.51 70.70 46.90
CPP-Net      | - - - -                 | 44.63 60.57 70.53 42.44
CPP-Net +    | - - - -                 | 43.37 59.03 70.11 40.88
UN-SAM       | 84.17 72.93 84.27 16.34 | 50.59 70.37 72.88 50.86
UN-SAM +     | 83.13 72.02 83.33 16.51 | 49.13 68.89 72.57 49.60
AMA-SAM      | 84.51 73.52 84.69 16.27 | 51.23 70.90 73.03 51.42
AMA-SAM +    | 85.12 74.24 85.21 16.13 | 52.24 71.71 73.31 52.36
"""
_TNBC = """
U-Net        | 80.64 67.62 81.00 38.39 | 50.52 68.02 74.24 50.52
U-Net +      | 79.76 66.45 80.28 39.73 | 48.43 65.75 73.51 48.55
Unet++       | 81.19 68.44 81.60 37.70 | - - - -
Unet++ +     | 80.69 67.73 80.96 38.72 | - - - -
ResUNet++    | 76.81 62.55 77.53 33.20 | - - - -
ResUNet++ +  | 76.12 61.60 76.75 34.47 | - - - -
DoubleU-Net  | 81.59 68.98 81.83 40.66 | - - - -
DoubleU-Net +| 81.05 68.41 81.40 41.70 | - - - -
nnU-Net      | 82.11 69.74 82.35 31.71 | 56.48 75.77 77.97 59.30
nnU-Net +    | 81.67 69.23 82.01 32.48 | 54.07 73.47 76.33 56.67
Mask-RCNN    | - - - -                 | 51.04 67.33 75.01 50.83
Mask-RCNN +  | - - - -                 | 49.08 65.51 74.04 48.61
HoVer-Net    | - - - -                 | 56.45 76.19 77.65 59.11
HoVer-Net +  | - - - -                 | 54.75 75.32 76.70 57.43
CPP-Net      | - - - -                 | 52.20 69.17 74.75 51.67
CPP-Net +    | - - - -                 | 50.73 67.76 74.11 50.22
UN-SAM       | 85.72 75.02 85.81 26.83 | 59.48 78.13 78.64 61.47
UN-SAM +     | 84.63 73.67 84.75 28.30 | 58.34 77.00 78.02 60.41
AMA-SAM      | 86.36 75.77 86.44 26.02 | 59.76 78.49 78.77 61.76
AMA-SAM +    | 87.10 76.76 87.10 24.76 | 60.53 79.24 79.20 62.35
"""

# Tables 2 to 4, MoNuSeg primary: DSC mIoU F1 HD.
_ABLATIONS = """
2 | no auxiliary, no adversarial | 84.51 73.52 84.69 16.27
2 | auxiliary, none              | 83.77 72.08 83.88 16.42
2 | auxiliary, GRL               | 84.63 73.71 84.65 16.23
2 | auxiliary, CGRL              | 85.12 74.24 85.21 16.13
3 | SAM decoder                  | 84.62 73.60 84.68 16.25
3 | HR-Decoder                   | 85.12 74.24 85.21 16.13
4 | none                         | 84.51 73.52 84.69 16.27
4 | +TNBC                        | 84.73 73.74 84.76 16.22
4 | +TNBC +CryoNuSeg             | 84.88 74.11 84.92 16.18
4 | +TNBC +CryoNuSeg +cpm17      | 85.12 74.24 85.21 16.13
"""

CAUTIONS = (
    "the paper does not state its split",
    "IoU = d / (2 - d) is convex in DSC, so a mean IoU cannot lie below that of the mean DSC; in both AMA-SAM rows on "
    "TNBC it does, so the two cannot be means over the same images",
    "F1 69.65 of ResUNet++ + on MoNuSeg looks like a misprint",
    "differences are 0.3 to 1.4 DSC points, probably of the order of the standard error over 5 to 14 test images",
    "the paper does not say how instances are formed, nor from what truth; they may rest on connected components",
)


@dataclass(frozen=True, slots=True)
class PaperRow:
    """One row of a table.

    Attributes:
        table: its number in the paper.
        data: primary data set, evaluated on.
        method: as the paper names it, or the setting.
        values: percent (HD in px) in the order of COLUMNS, None where not given.
    """

    table: int
    data: str
    method: str
    values: tuple[float | None, ...]


def _methods(data: str, text: str) -> list[PaperRow]:
    cells = [[cell.strip() for cell in line.split("|")] for line in text.strip().splitlines()]
    return [PaperRow(1, data, name, _numbers(f"{pixels} {instances}")) for name, pixels, instances in cells]


def _ablations(text: str) -> list[PaperRow]:
    cells = [[cell.strip() for cell in line.split("|")] for line in text.strip().splitlines()]
    return [PaperRow(int(table), "MoNuSeg", name, _numbers(f"{pixels} - - - -")) for table, name, pixels in cells]


def _numbers(text: str) -> tuple[float | None, ...]:
    return tuple(None if word == "-" else float(word) for word in text.split())


PAPER_ROWS = (*_methods("MoNuSeg", _MONUSEG), *_methods("TNBC", _TNBC), *_ablations(_ABLATIONS))
