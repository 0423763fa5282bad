"""Metadata CSV: what is accepted, what is guessed, what is refused in one line."""

from pathlib import Path

import pytest

from wsipipe.errors import UsageError
from wsipipe.metadata import join_notes, read_metadata


def write(tmp_path: Path, text: str, encoding: str = "utf-8") -> Path:
    path = tmp_path / "study.csv"
    path.write_text(text, encoding=encoding)
    return path


def test_patient_and_groups_are_found(tmp_path: Path) -> None:
    rows = "\n".join(f"s{i},P{i // 2},{'ab'[i % 2]},{i * 1.5},same" for i in range(10))
    study = read_metadata(write(tmp_path, f"slide,case,arm,age,site\n{rows}\n"))
    assert (study.patient, study.groups) == ("case", ("arm",))
    assert study.patient_of("s3") == "P1"
    assert study.patient_of("unknown") == "slide unknown"
    assert study.value("unknown", "arm") == ""


def test_named_columns_win(tmp_path: Path) -> None:
    path = write(tmp_path, "slide,patient,mother,arm\ns1,1,9,a\ns2,2,9,a\n")
    study = read_metadata(path, patient="mother", groups=("arm",))
    assert (study.patient, study.groups) == ("mother", ("arm",))


def test_semicolons_byte_order_marks_and_short_rows_are_read(tmp_path: Path) -> None:
    study = read_metadata(write(tmp_path, "slide_id;arm;note\ns1;a;x, y\ns2;b\n\n", "utf-8-sig"))
    assert study.value("s1", "note") == "x, y"
    assert study.value("s2", "note") == ""
    assert study.groups == ("arm",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("path,arm\nx,a\n", "needs a column named slide"),
        ("slide,arm\ns1,a\ns1,b\n", "more than once (s1)"),
        ("slide,arm\n", "at least one row"),
        ("slide,arm,arm\ns1,a,b\n", "different name for every column"),
        ('slide,arm\ns1,"a\n', "must be CSV"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_metadata(write(tmp_path, text))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_and_columns_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="readable UTF-8 CSV"):
        read_metadata(tmp_path / "none.csv")
    with pytest.raises(UsageError, match="no column 'sex'"):
        read_metadata(write(tmp_path, "slide,arm\ns1,a\n"), groups=("sex",))


def test_ids_that_lost_their_zeros_are_not_joined_but_pointed_out(tmp_path: Path) -> None:
    study = read_metadata(write(tmp_path, "slide,arm\n1,a\n2,a\n010,b\n"))
    missing, unknown = join_notes({"001", "010"}, study)
    assert missing == "not in study.csv, so in no group: 1 slide (001)"
    assert unknown == (
        "rows of study.csv without a finished slide here: 2 rows (1, 2); 1 may be slide 001 without its zeros: "
        "keep ids as text in the table"
    )


def test_metadata_that_fits_has_nothing_to_say(tmp_path: Path) -> None:
    assert join_notes({"1", "2", "3"}, read_metadata(write(tmp_path, "slide,arm\n1,a\n2,a\n3,b\n"))) == []
