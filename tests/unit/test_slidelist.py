import pytest

from wsipipe.errors import UsageError
from wsipipe.slidelist import folder_name, list_slides


@pytest.fixture
def slides(tmp_path):
    for name in ("a.svs", "b.TIFF", "notes.txt", "sub/a.svs", "ünïcode name.svs"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def test_files_globs_and_folders_become_jobs(slides):
    by_glob = list_slides([str(slides / "*.svs")], mpp=None)
    assert [job.id for job in by_glob.jobs] == ["a", "ünïcode name"]
    by_folder = list_slides([str(slides)], mpp=0.5)
    assert [job.id for job in by_folder.jobs] == ["a", "b", "ünïcode name"]
    assert {job.mpp for job in by_folder.jobs} == {0.5}
    assert not by_glob.refusals
    assert not by_folder.refusals


def test_a_file_named_outright_is_tried_whatever_its_suffix(slides):
    assert [job.id for job in list_slides([str(slides / "notes.txt")], mpp=None).jobs] == ["notes"]


def test_the_same_slide_twice_is_done_once_and_mentioned(slides):
    found = list_slides([str(slides / "a.svs"), str(slides / "sub" / ".." / "a.svs")], mpp=None)
    assert len(found.jobs) == 1
    assert [(r.fatal, "twice" in r.reason) for r in found.refusals] == [(False, True)]


def test_two_slides_of_one_name_need_ids(slides):
    found = list_slides([str(slides / "a.svs"), str(slides / "sub" / "a.svs")], mpp=None)
    assert [job.path for job in found.jobs] == [slides / "a.svs"]
    assert found.refusals[0].fatal
    assert "another id in a CSV" in found.refusals[0].reason


def test_a_table_gives_ids_and_mpp_and_its_paths_are_relative_to_it(slides):
    table = slides / "list.csv"
    table.write_text("path,mpp,id\na.svs,0.25,first\nsub/a.svs,,second\n", encoding="utf-8-sig")
    found = list_slides([str(table)], mpp=0.5)
    assert [(job.id, job.mpp) for job in found.jobs] == [("first", 0.25), ("second", 0.5)]


@pytest.mark.parametrize("value", ["zero", "-1", "0", "nan", '"0,25"'])
def test_a_bad_mpp_in_a_table_fails_that_row_only(slides, value):
    table = slides / "list.csv"
    table.write_text(f"path,mpp\na.svs,{value}\nb.TIFF,0.5\n")
    found = list_slides([str(table)], mpp=None)
    assert [job.id for job in found.jobs] == ["b"]
    assert "mpp must be a positive number" in found.refusals[0].reason
    assert ("write a point: 0.25" in found.refusals[0].reason) == ("," in value)


def test_an_unquoted_decimal_comma_in_a_table_gets_a_hint_and_fails_that_row_only(slides):
    table = slides / "list.csv"
    table.write_text("path,mpp\na.svs,0,25\nb.TIFF,0.5\n")
    found = list_slides([str(table)], mpp=None)
    assert [job.id for job in found.jobs] == ["b"]
    assert "write 0.25 with a point" in found.refusals[0].reason


def test_missing_files_and_empty_globs_are_refused_one_by_one(slides):
    found = list_slides([str(slides / "gone.svs"), str(slides / "*.ndpi"), str(slides / "a.svs")], mpp=None)
    assert len(found.jobs) == 1
    assert ["does not exist" in r.reason or "no file matches" in r.reason for r in found.refusals] == [True, True]
    assert all(r.fatal for r in found.refusals)


def test_a_table_without_the_path_column_is_wrong_usage(slides):
    (slides / "t.csv").write_text("file\na.svs\n")
    with pytest.raises(UsageError, match="column path"):
        list_slides([str(slides / "t.csv")], mpp=None)


def test_a_link_in_a_folder_that_leads_nowhere_is_a_failure_not_silence(slides):
    (slides / "c.svs").symlink_to(slides / "gone.svs")
    found = list_slides([str(slides)], mpp=None)
    assert [job.id for job in found.jobs] == ["a", "b", "ünïcode name"]
    assert [(r.id, r.fatal, "leads nowhere" in r.reason) for r in found.refusals] == [("c", True, True)]


def test_ids_are_safe_folder_names():
    assert folder_name('a/b:c*"d') == "a_b_c__d"
    assert folder_name("..") == "slide"
    assert folder_name("tumeur é 1") == "tumeur é 1"


@pytest.mark.parametrize("name", ["cohort.html", "Cohort.csv", "cohort-effects.csv", "failed.csv", "run.json"])
def test_ids_never_take_the_place_of_a_file_of_the_cohort(name):
    assert folder_name(name) == f"{name}_slide"
    assert folder_name("nuclei.dataset") == "nuclei.dataset_slide"
    assert folder_name("cohort") == "cohort"
