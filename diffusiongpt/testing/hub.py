"""A small server in the shape of the Hugging Face Hub, for tests and demonstrations without a network."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffusiongpt.errors import RequestError
from diffusiongpt.testing._hub_handler import HubHandler
from diffusiongpt.testing._loopback import LoopbackService
from diffusiongpt.testing.repository import FolderRepo

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(kw_only=True)
class Fault:
    """Something that goes wrong on purpose.

    Attributes:
        match: Only requests whose path contains this text.
        times: How often it happens; `None` for ever.
        status: Answer with this HTTP status.
        cut_after: Drop the connection after this many bytes of a file.
        garble: Send other bytes than the file has, of the right length.
        stall_s: Wait so many seconds before a file's first byte.
        bytes_per_s: Send files no faster than this.
    """

    match: str = ""
    times: int | None = None
    status: int | None = None
    cut_after: int | None = None
    garble: bool = False
    stall_s: float = 0.0
    bytes_per_s: float | None = None


class LocalHub(LoopbackService):
    """Serve folders as repositories on loopback; the real hub client works against it.

    The commit of a repository is a hash of its content, so editing a file makes a new commit. Large files
    come as LFS, as on the real hub; ranges, ETags and error codes are those the client looks for.

    Example:
        with LocalHub({"tiny/vector": Path("zoo/vector")}) as hub:
            snapshot_download("tiny/vector", endpoint=hub.url, cache_dir=scratch)
            assert "model_index.json" in hub.downloads["tiny/vector"]

    Attributes:
        requests: `(method, path)` of every request, in order of arrival.
        downloads: Repository -> file -> bytes sent by GET.
        faults: What goes wrong on purpose; see `Fault`.

    Raises:
        RequestError: If a name is not `owner/name`, or a folder is not there.
    """

    _handler = HubHandler

    def __init__(self, repos: Mapping[str, str | Path]) -> None:
        super().__init__()
        self.requests: list[tuple[str, str]] = []
        self.downloads: dict[str, dict[str, int]] = {}
        self.faults: list[Fault] = []
        self._repos = {name: _served(name, folder) for name, folder in repos.items()}
        self._gates: dict[str, str | None] = {}

    def add(self, repo: str, folder: str | Path) -> None:
        """Serve one more folder, or another folder under a known name.

        Raises:
            RequestError: If the name is not `owner/name`, or the folder is not there.
        """
        self._repos[repo] = _served(repo, folder)

    def remove(self, repo: str) -> None:
        """Answer from now on that there is no such repository."""
        del self._repos[repo]

    def gate(self, repo: str, *, token: str | None = None) -> None:
        """Refuse the files of a repository to everyone, or to everyone without `token`."""
        self._gates[repo] = token

    def fail(self, fault: Fault) -> Fault:
        """Let something go wrong from now on; `hub.faults.remove(fault)` mends it."""
        self.faults.append(fault)
        return fault

    def commit(self, repo: str) -> str:
        """The commit that `main` names now."""
        return self._repos[repo].commit()

    def repo(self, name: str) -> FolderRepo | None:
        """The repository of that name."""
        return self._repos.get(name)

    def gated(self, repo: str) -> str | bool:
        """What the model info says of the gate of a repository."""
        return "auto" if repo in self._gates else False

    def may_read(self, repo: str, authorization: str | None) -> bool:
        """Whether the gate of a repository is open to a request with this header."""
        if repo not in self._gates:
            return True
        token = self._gates[repo]
        return token is not None and authorization == f"Bearer {token}"

    def take_fault(self, path: str, *, on_status: bool) -> Fault | None:
        """The fault that this request meets, counted down; the handler asks."""
        with self._lock:
            for fault in self.faults:
                if fault.match in path and fault.times != 0 and (fault.status is not None) == on_status:
                    fault.times = None if fault.times is None else fault.times - 1
                    return fault
        return None

    def note_request(self, method: str, path: str) -> None:
        """Record a request; the handler calls it."""
        with self._lock:
            self.requests.append((method, path))

    def note_bytes(self, repo: str, name: str, count: int) -> None:
        """Record bytes sent; the handler calls it."""
        with self._lock:
            files = self.downloads.setdefault(repo, {})
            files[name] = files.get(name, 0) + count


def _served(name: str, folder: str | Path) -> FolderRepo:
    if not _NAME.fullmatch(name):
        raise RequestError(
            f"{name!r} is no name of a hub repository", hint="Call it owner/name, such as 'me/my-model'."
        )
    path = Path(folder)
    if not path.is_dir():
        raise RequestError(
            f"there is no folder {str(path)!r} to serve as {name}",
            hint=f"Name a folder that is there; a relative one is looked for in {Path.cwd()}.",
        )
    return FolderRepo(path)
