import hashlib

import pytest

from amasam import download
from amasam.download import BASE_WEIGHTS, BaseWeights, fetch_base
from amasam.progressbar import show_download
from amasam.trainrun import Process, fetch_once
from wsipipe.errors import CheckpointError, UsageError

CONTENT = b"weights" * 1000


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A published file at a file:// address instead of the official one."""
    source = tmp_path / "server" / "sam.pth"
    source.parent.mkdir()
    source.write_bytes(CONTENT)
    weights = BaseWeights("sam.pth", source.as_uri(), hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setitem(BASE_WEIGHTS, "vit_b", weights)
    return source


def test_the_file_is_fetched_once_with_progress(tmp_path, served):
    calls = []
    cache = tmp_path / "cache"
    path = fetch_base("vit_b", cache=cache, progress=lambda done, total: calls.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert calls[-1] == (len(CONTENT), len(CONTENT))
    served.unlink()
    assert fetch_base("vit_b", cache=cache) == path
    assert [file.name for file in cache.iterdir()] == ["sam.pth"]


def test_offline_is_one_line_with_the_address_and_the_place(tmp_path, served):
    served.unlink()
    with pytest.raises(CheckpointError) as caught:
        fetch_base("vit_b", cache=tmp_path / "cache")
    message = str(caught.value)
    assert served.as_uri() in message
    assert str(tmp_path / "cache" / "sam.pth") in message
    assert "\n" not in message
    assert not list((tmp_path / "cache").iterdir())


def test_a_changed_download_is_refused_and_leaves_nothing(tmp_path, served):
    served.write_bytes(b"other")
    with pytest.raises(CheckpointError, match="SHA-256 of the download"):
        fetch_base("vit_b", cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_a_wrong_file_in_place_is_named(tmp_path, served):
    (tmp_path / "sam.pth").write_bytes(b"other")
    with pytest.raises(CheckpointError, match=r"delete this file to fetch it anew: .*sam\.pth"):
        fetch_base("vit_b", cache=tmp_path)


def test_only_the_first_process_fetches_and_the_others_wait_for_it(tmp_path, served, monkeypatch):
    events = []
    monkeypatch.setattr(download, "default_cache", lambda: tmp_path / "cache")
    fetched = download._download

    def fetch(weights, place, progress):
        events.append("fetched")
        fetched(weights, place, progress)

    def barrier():
        events.append("waited")
        if events == ["waited"]:  # the second process came first; meanwhile the first one fetches
            fetch_base("vit_b")

    monkeypatch.setattr(download, "_download", fetch)
    monkeypatch.setattr("torch.distributed.barrier", barrier)
    place = fetch_once("vit_b", Process(1, 2), None)
    assert events == ["waited", "fetched"]
    assert fetch_once("vit_b", Process(0, 2), None) == place == tmp_path / "cache" / "sam.pth"
    assert events == ["waited", "fetched", "waited"]


def test_the_bar_of_a_download_is_on_stderr_and_only_when_there_is_one(tmp_path, served, capsys):
    for fetches in (True, False):
        with show_download("weights") as show:
            fetch_base("vit_b", cache=tmp_path / "cache", progress=show)
        captured = capsys.readouterr()
        assert captured.out == ""
        assert ("weights" in captured.err) == fetches


def test_encoders_without_official_weights_are_named():
    with pytest.raises(UsageError, match="vit_b, vit_l, vit_h, tiny_vit, got 'hybrid'"):
        fetch_base("hybrid")


def test_every_official_file_has_an_address_and_a_full_hash():
    for weights in BASE_WEIGHTS.values():
        assert weights.url.startswith("https://")
        assert weights.url.endswith(weights.file)
        assert len(bytes.fromhex(weights.sha256)) == 32
    assert download.default_cache().name == "amasam"
