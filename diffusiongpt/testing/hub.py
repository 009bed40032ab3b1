"""A small server in the shape of the Hugging Face Hub, for tests and demonstrations without a network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from diffusiongpt.errors import RequestError
from diffusiongpt.testing._hub_handler import Fault, HubHandler
from diffusiongpt.testing._server import LoopbackService
from diffusiongpt.testing.repository import FolderRepo
from diffusiongpt.zoo import Expert, Zoo

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


_NAME = re.compile(r"[\w.-]+/[\w.-]+")


class LocalHub(LoopbackService):
    """Serve folders as repositories on loopback; the real hub client works against it.

    The commit of a repository is a hash of its content, so editing a file makes a new commit. Large files are in
    LFS, as on the real hub; ranges, ETags and error codes are those that the client looks for.

    Example:
        with LocalHub({"tiny/vector": Path("zoo/vector")}) as hub:
            snapshot_download("tiny/vector", endpoint=hub.url, cache_dir=scratch)
            assert "model_index.json" in hub.downloads["tiny/vector"]

    Attributes:
        requests: `(method, path)` of every request, in order of arrival.
        downloads: Repository -> file -> bytes sent by GET.
        faults: The faults in effect; see `Fault`.
        tokens: Every token in a request.

    Raises:
        RequestError: If a name is not `owner/name`, or a folder does not exist.
    """

    _handler = HubHandler

    def __init__(self, repos: Mapping[str, str | Path]) -> None:
        super().__init__()
        self.requests: list[tuple[str, str]] = []
        self.downloads: dict[str, dict[str, int]] = {}
        self.faults: list[Fault] = []
        self.tokens: set[str] = set()
        self._repos = {name: _served(name, folder) for name, folder in repos.items()}
        self._gates: dict[str, str | None] = {}
        self._renamed: dict[str, str] = {}

    def add(self, repo: str, folder: str | Path) -> None:
        """Serve one more folder, or another folder under a known name.

        Raises:
            RequestError: If the name is not `owner/name`, or the folder does not exist.
        """
        self._repos[repo] = _served(repo, folder)

    def remove(self, repo: str) -> None:
        """Answer from now on that the repository does not exist."""
        del self._repos[repo]

    def rename(self, old: str, new: str) -> None:
        """Serve a repository under a new name; the old one redirects to it, as on the real hub.

        Raises:
            RequestError: If the new name is not `owner/name`.
        """
        self._repos[new] = _served(new, self._repos.pop(old).folder)
        self._renamed[old] = new

    def gate(self, repo: str, *, token: str | None = None) -> None:
        """Refuse the files of a repository to all clients, or to all without `token`."""
        self._gates[repo] = token

    def fail(self, fault: Fault) -> Fault:
        """Fail from now on; `hub.faults.remove(fault)` ends it."""
        self.faults.append(fault)
        return fault

    def commit(self, repo: str) -> str:
        """The present commit of `main`."""
        return self._repos[repo].commit()

    def repo(self, name: str) -> FolderRepo | None:
        """The repository of that name."""
        return self._repos.get(name)

    def new_name(self, repo: str) -> str | None:
        """The present name of a repository; `None` if it was not renamed."""
        return self._renamed.get(repo)

    def gated(self, repo: str) -> str | bool:
        """The field `gated` of the model info."""
        return "auto" if repo in self._gates else False

    def may_read(self, repo: str, authorization: str | None) -> bool:
        """Whether the gate of a repository is open to a request with this header."""
        if repo not in self._gates:
            return True
        token = self._gates[repo]
        return token is not None and authorization == f"Bearer {token}"

    def take_fault(self, path: str, wanted: Callable[[Fault], bool]) -> Fault | None:
        """The fault for one request, counted down; called by the handler."""
        with self._lock:
            for fault in self.faults:
                if fault.match in path and fault.times != 0 and wanted(fault):
                    fault.times = None if fault.times is None else fault.times - 1
                    return fault
        return None

    def note_request(self, method: str, path: str, authorization: str | None) -> None:
        """Record a request; called by the handler."""
        with self._lock:
            self.requests.append((method, path))
            if authorization:
                self.tokens.add(authorization.removeprefix("Bearer "))

    def note_bytes(self, repo: str, name: str, count: int) -> None:
        """Record bytes sent; called by the handler."""
        with self._lock:
            files = self.downloads.setdefault(repo, {})
            files[name] = files.get(name, 0) + count


def _served(name: str, folder: str | Path) -> FolderRepo:
    if not _NAME.fullmatch(name):
        raise RequestError(
            f"{name!r} is not the name of a hub repository", hint="Use owner/name, such as 'me/my-model'."
        )
    path = Path(folder)
    if not path.is_dir():
        raise RequestError(
            f"the folder {str(path)!r}, to be served as {name}, does not exist",
            hint=f"Check the path; a relative one starts at {Path.cwd()}.",
        )
    return FolderRepo(path)


TINY_FOLDER = Path(__file__).parents[1] / "zoo" / "tiny"
"""Folder with one folder for each tiny expert."""

OWNER = "tiny-zoo"


def serve_tiny_zoo() -> LocalHub:
    """A hub, not started yet, that serves each tiny expert as `tiny-zoo/NAME`."""
    return LocalHub({f"{OWNER}/{_name(expert)}": TINY_FOLDER / _name(expert) for expert in Zoo.load("tiny").values()})


def hub_zoo() -> Zoo:
    """The tiny zoo with hub repositories instead of local folders."""
    tiny = Zoo.load("tiny")
    experts = {expert.id: expert.model_copy(update={"repo": f"{OWNER}/{_name(expert)}"}) for expert in tiny.values()}
    return Zoo(experts, tiny.taxonomy.nodes | tiny.taxonomy.needs | tiny.taxonomy.edits, ("tiny",))


def _name(expert: Expert) -> str:
    return expert.repo.removeprefix("./")
