"""A small server in the shape of the Hugging Face Hub, for tests and demonstrations without a network."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffusiongpt.errors import RequestError
from diffusiongpt.testing._hub_handler import HubHandler
from diffusiongpt.testing._server import LoopbackService
from diffusiongpt.testing.repository import FolderRepo

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(kw_only=True)
class Fault:
    """Something that goes wrong on purpose.

    Attributes:
        match: Only requests whose path contains this text. What is wrong with an answer and not instead of it
            happens to files, and to listings only if `/api/` is in the text.
        times: How often it happens; `None` for ever.
        status: Answer with this HTTP status.
        retry_after: Seconds after which, with `status`, the client is told to come back.
        redirect: Send the client to the same path of this other server; of a large file, with its size and hash in
            the headers, as the real hub sends to its file servers.
        cut_after: Drop the connection after this many bytes of a file.
        reset: Drop it as a broken network does, and not as a server that ends in order.
        garble: Send zeros instead of what the file has, of the right length.
        garble_from: First byte of what is garbled.
        stall_s: Wait so many seconds in the middle of an answer; no longer than until the hub goes down.
        stall_after: Bytes of a file that are sent before that wait.
        bytes_per_s: Send files no faster than this.
        lie_size: Tell so many bytes more, or less, than a large file has: of a file in the headers, of a
            repository in its listing.
    """

    match: str = ""
    times: int | None = None
    status: int | None = None
    retry_after: int | None = None
    redirect: str | None = None
    cut_after: int | None = None
    reset: bool = False
    garble: bool = False
    garble_from: int = 0
    stall_s: float = 0.0
    stall_after: int = 0
    bytes_per_s: float | None = None
    lie_size: int = 0

    @property
    def instead(self) -> bool:
        """Whether another answer comes instead of the right one, and not the right one in a wrong way."""
        return self.status is not None or self.redirect is not None


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
        tokens: Every token that a request came with.

    Raises:
        RequestError: If a name is not `owner/name`, or a folder is not there.
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
        self._down = threading.Event()

    def stop(self) -> None:
        """Go down: refuse new connections, drop the open ones, and end every wait of a fault."""
        self._down.set()
        super().stop()

    def add(self, repo: str, folder: str | Path) -> None:
        """Serve one more folder, or another folder under a known name.

        Raises:
            RequestError: If the name is not `owner/name`, or the folder is not there.
        """
        self._repos[repo] = _served(repo, folder)

    def remove(self, repo: str) -> None:
        """Answer from now on that there is no such repository."""
        del self._repos[repo]

    def rename(self, old: str, new: str) -> None:
        """Serve a repository under a new name; who asks for the old one is sent on, as by the real hub.

        Raises:
            RequestError: If the new name is not `owner/name`.
        """
        self._repos[new] = _served(new, self._repos.pop(old).folder)
        self._renamed[old] = new

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

    def new_name(self, repo: str) -> str | None:
        """What a repository is called now; `None` if it was not renamed."""
        return self._renamed.get(repo)

    def gated(self, repo: str) -> str | bool:
        """What the model info says of the gate of a repository."""
        return "auto" if repo in self._gates else False

    def may_read(self, repo: str, authorization: str | None) -> bool:
        """Whether the gate of a repository is open to a request with this header."""
        if repo not in self._gates:
            return True
        token = self._gates[repo]
        return token is not None and authorization == f"Bearer {token}"

    def take_fault(self, path: str, wanted: Callable[[Fault], bool]) -> Fault | None:
        """The fault that this request meets, counted down; the handler asks."""
        with self._lock:
            for fault in self.faults:
                if fault.match in path and fault.times != 0 and wanted(fault):
                    fault.times = None if fault.times is None else fault.times - 1
                    return fault
        return None

    def pause(self, seconds: float) -> None:
        """Wait, but no longer than until the hub goes down; the handler calls it."""
        self._down.wait(seconds)

    def note_request(self, method: str, path: str, authorization: str | None) -> None:
        """Record a request; the handler calls it."""
        with self._lock:
            self.requests.append((method, path))
            if authorization:
                self.tokens.add(authorization.removeprefix("Bearer "))

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
