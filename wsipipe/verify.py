"""Does a finished slide folder keep its promises: the same nuclei everywhere, readable by QuPath, written by this run.

Everything is read in pieces: memory grows by about 60 bytes per nucleus.
"""

from pathlib import Path

from wsipipe.errors import OutputError
from wsipipe.findings import Findings
from wsipipe.runrecord import RunRecord, path_digest, read_record
from wsipipe.verifygeojson import NAME as GEOJSON_NAME
from wsipipe.verifygeojson import check_geojson
from wsipipe.verifylabels import NAME as LABELS_NAME
from wsipipe.verifylabels import check_labels
from wsipipe.verifytable import NAME as TABLE_NAME
from wsipipe.verifytable import check_table, open_table


def verify_folder(folder: Path) -> list[str]:
    """Check a slide folder.

    Checks: run.json says done; every file is there as it was written; nuclei.parquet has the documented columns, labels
    1..n, their uuids, no NaN, valid polygons on the 0.01 px grid inside the slide; labels.ome.zarr is valid OME-Zarr
    0.5 at the right scale, its levels agree, and each label's pixels agree with its row in area and centroid; each
    feature of nuclei.geojson.gz keeps QuPath's rules, states the area of its polygon and else equals its row; the
    three hold the same nuclei.

    Returns:
        One line for each kind of problem, naming the file, what is wrong and examples; empty if all is well.
    """
    findings = Findings()
    try:
        record = read_record(folder / "run.json")
    except OutputError as error:
        return [str(error)]
    if record.status != "done":
        findings.add(f"run.json: status must be done, is {record.status}; the same command resumes the run")
    _check_files(folder, record, findings)
    provenance = record.provenance()
    pixels = check_labels(folder, provenance, record.nuclei, findings)
    table = open_table(folder, findings)
    if table is not None:
        with table:
            check_table(table, provenance, record.nuclei, pixels, findings)
            if record.geojson_detail != "none":
                check_geojson(folder, table, record.geojson_detail, record.l0_mpp, findings)
    elif record.geojson_detail != "none":
        check_geojson(folder, None, record.geojson_detail, record.l0_mpp, findings)
    return findings.lines()


def _check_files(folder: Path, record: RunRecord, findings: Findings) -> None:
    """Compare what lies in the folder with what the run wrote."""
    expected = [TABLE_NAME, LABELS_NAME] + ([GEOJSON_NAME] if record.geojson_detail != "none" else [])
    findings.add_if("run.json: files are not listed", [name for name in expected if name not in record.files])
    for name, digest in record.files.items():
        if not (folder / name).exists():
            findings.add(f"{name}: is missing")
        elif path_digest(folder / name) != digest:
            findings.add(f"{name}: is not the file that this run wrote (size or SHA-256 differs)")
    if record.geojson_detail == "none" and (folder / GEOJSON_NAME).exists():
        findings.add(f"{GEOJSON_NAME}: is there although the run wrote none")
