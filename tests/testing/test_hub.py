"""The local hub answers the real client like the real hub."""

from __future__ import annotations

from hashlib import sha256
from socket import IPPROTO_TCP, TCP_NODELAY
from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import get_session, httpx  # type: ignore[attr-defined]  # exported lazily

from diffusiongpt.errors import RequestError
from diffusiongpt.testing import Fault, LocalHub

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOKENS = ("right", "wrong")
WEIGHTS = bytes(range(256)) * 1200


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repository of two files, one of them large."""
    repo = tmp_path / "repo"
    (repo / "unet").mkdir(parents=True)
    (repo / "model_index.json").write_text('{"_class_name": "X"}')
    (repo / "unet" / "model.safetensors").write_bytes(WEIGHTS)
    (repo / ".cache").mkdir()
    (repo / ".cache" / "secret").write_text("no")
    return repo


@pytest.fixture
def hub(folder: Path) -> Iterator[LocalHub]:
    """A hub with one repository."""
    with LocalHub({"a/b": folder}) as running:
        yield running


def get(hub: LocalHub, path: str, **headers: str) -> Any:
    """One request without the client."""
    return get_session().get(hub.url + path, headers=headers)


def test_the_client_downloads_every_file_bit_for_bit(hub: LocalHub, tmp_path: Path) -> None:
    """A snapshot through the real client equals the folder, without its hidden files."""
    got = tmp_path / "cache"
    path = snapshot_download("a/b", endpoint=hub.url, cache_dir=got)
    found = {
        file.relative_to(path).as_posix(): file.read_bytes() for file in type(got)(path).rglob("*") if file.is_file()
    }
    assert found == {"model_index.json": b'{"_class_name": "X"}', "unet/model.safetensors": WEIGHTS}
    assert hub.downloads == {"a/b": {name: len(data) for name, data in found.items()}}
    assert path.endswith(hub.commit("a/b"))


def test_model_info_has_sizes_and_hashes(hub: LocalHub) -> None:
    """Sizes and the sha256 of large files are known before anything is downloaded."""
    info = HfApi(endpoint=hub.url).model_info("a/b", files_metadata=True)
    large = next(item for item in info.siblings or () if item.rfilename.endswith(".safetensors"))
    assert large.size == len(WEIGHTS)
    assert large.lfs is not None
    assert large.lfs.sha256 == sha256(WEIGHTS).hexdigest()
    assert hub.downloads == {}


def test_the_commit_follows_the_content(hub: LocalHub, folder: Path) -> None:
    """Other content is another commit, the same content the same commit, and the old commit is gone."""
    before = hub.commit("a/b")
    (folder / "model_index.json").write_text('{"_class_name": "Y"}')
    after = hub.commit("a/b")
    (folder / "model_index.json").write_text('{"_class_name": "X"}')
    assert before != after
    assert hub.commit("a/b") == before
    with pytest.raises(RevisionNotFoundError):
        HfApi(endpoint=hub.url).model_info("a/b", revision=after)


def test_ranges_are_served(hub: LocalHub) -> None:
    """A range request gets just those bytes, and the answer states which."""
    answer = get(hub, "/a/b/resolve/main/unet/model.safetensors", Range="bytes=10-19")
    assert answer.status_code == 206
    assert answer.content == WEIGHTS[10:20]
    assert answer.headers["Content-Range"] == f"bytes 10-19/{len(WEIGHTS)}"
    assert get(hub, "/a/b/resolve/main/unet/model.safetensors", Range="bytes=100-").content == WEIGHTS[100:]


def test_errors_are_those_of_the_real_hub(hub: LocalHub, tmp_path: Path) -> None:
    """The client maps what is missing or closed to its usual exceptions."""
    api = HfApi(endpoint=hub.url)
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("a/none")
    with pytest.raises(RemoteEntryNotFoundError):
        hf_hub_download("a/b", "none.json", endpoint=hub.url, cache_dir=tmp_path)
    hub.gate("a/b", token=TOKENS[0])
    with pytest.raises(GatedRepoError):
        hf_hub_download("a/b", "model_index.json", endpoint=hub.url, cache_dir=tmp_path, token=TOKENS[1])
    assert hf_hub_download("a/b", "model_index.json", endpoint=hub.url, cache_dir=tmp_path, token=TOKENS[0])
    hub.remove("a/b")
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("a/b")
    assert get(hub, "/api/agent-harnesses").status_code == 404


@pytest.mark.parametrize("revision", ["v9", "refs/pr/1", "feature/fox"])
def test_a_missing_revision_has_its_own_error(hub: LocalHub, tmp_path: Path, revision: str) -> None:
    """Whatever its name, even with slashes, the client gets "revision missing" and not "page missing"."""
    api = HfApi(endpoint=hub.url)
    with pytest.raises(RevisionNotFoundError):
        api.model_info("a/b", revision=revision)
    with pytest.raises(RevisionNotFoundError):
        list(api.list_repo_tree("a/b", revision=revision))
    with pytest.raises(RevisionNotFoundError):
        hf_hub_download("a/b", "model_index.json", revision=revision, endpoint=hub.url, cache_dir=tmp_path)
    # Without the client's quotes, as people write addresses.
    for path in (f"/api/models/a/b/revision/{revision}", f"/a/b/resolve/{revision}/model_index.json"):
        answer = get(hub, path)
        assert (answer.status_code, answer.headers["X-Error-Code"]) == (404, "RevisionNotFound")


@pytest.mark.parametrize("name", ["mini", "a/b/c", "/mini", "a/", "a b/c", ""])
def test_a_name_that_is_no_owner_and_name_is_refused(hub: LocalHub, folder: Path, name: str) -> None:
    """No client could request it, so the hub rejects such a name at once, with a hint."""
    with pytest.raises(RequestError, match="not the name of a hub repository") as caught:
        LocalHub({name: folder})
    assert "owner/name" in caught.value.hint
    with pytest.raises(RequestError):
        hub.add(name, folder)


def test_a_missing_folder_is_refused(hub: LocalHub, folder: Path) -> None:
    """A missing folder or a file would be served as an empty repository; the hint explains relative paths."""
    for wrong in (folder / "none", folder / "model_index.json"):
        with pytest.raises(RequestError, match="does not exist") as caught:
            LocalHub({"c/d": wrong})
        assert "starts at" in caught.value.hint
        with pytest.raises(RequestError):
            hub.add("c/d", str(wrong))
    assert hub.repo("c/d") is None


def test_answers_are_not_held_back(hub: LocalHub) -> None:
    """The second packet of an answer does not wait for the client to acknowledge the first."""
    with httpx.Client() as kept_alive:
        kept_alive.get(f"{hub.url}/api/models/a/b")
        assert hub._server is not None
        (connection,) = hub._server._open
        assert connection.getsockopt(IPPROTO_TCP, TCP_NODELAY)


def test_faults_count_down_and_can_be_mended(hub: LocalHub) -> None:
    """A fault affects only the requests it matches, only so many times, and ends when it is removed."""
    hub.fail(Fault(status=503, match="/api/", times=1))
    for_ever = hub.fail(Fault(status=500, match="unet"))
    api = HfApi(endpoint=hub.url)
    with pytest.raises(HfHubHTTPError):
        api.model_info("a/b")
    assert api.model_info("a/b").sha == hub.commit("a/b")
    path = "/a/b/resolve/main/unet/model.safetensors"
    assert [get(hub, path).status_code for _ in range(3)] == [500, 500, 500]
    hub.faults.remove(for_ever)
    assert get(hub, path).status_code == 200


def test_a_cut_connection_ends_early_and_a_garbled_file_lies(hub: LocalHub) -> None:
    """Cut: the client sees the connection break. Garbled: the length is right, the bytes are wrong."""
    path = "/a/b/resolve/main/unet/model.safetensors"
    hub.fail(Fault(cut_after=1000, times=1))
    with pytest.raises(httpx.RemoteProtocolError):
        get(hub, path)
    hub.fail(Fault(garble=True, times=1))
    assert get(hub, path).content == bytes(len(WEIGHTS))
    assert get(hub, path).content == WEIGHTS


def test_a_stopped_hub_does_not_answer(hub: LocalHub) -> None:
    """Connections kept alive from before are dropped too; the address stays known."""
    with httpx.Client() as kept_alive:
        assert kept_alive.get(f"{hub.url}/api/models/a/b").status_code == 200
        hub.stop()
        with pytest.raises(httpx.TransportError):
            kept_alive.get(f"{hub.url}/api/models/a/b")


def test_two_repositories_are_separate(hub: LocalHub, tmp_path: Path) -> None:
    """What was downloaded is counted for each repository."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text("{}")
    hub.add("c/d", other)
    hf_hub_download("c/d", "config.json", endpoint=hub.url, cache_dir=tmp_path / "cache")
    assert hub.downloads == {"c/d": {"config.json": 2}}
    assert ("HEAD", "/c/d/resolve/main/config.json") in hub.requests
