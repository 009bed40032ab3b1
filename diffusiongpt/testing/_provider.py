"""What the servers in OpenAI's shapes share: what they were asked, and what goes wrong on purpose."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Self, TypeVar

from diffusiongpt.testing._loopback import LoopbackService

TRANSPORT = ("status", "silent", "stalled", "closed", "html")
"""What can go wrong at every provider."""


@dataclass(frozen=True, kw_only=True)
class ProviderRequest:
    """One request.

    Attributes:
        path: Path of the URL.
        body: The JSON that was sent.
        key: What the client gave as its key.
    """

    path: str
    body: Mapping[str, Any]
    key: str = ""


@dataclass(kw_only=True)
class ProviderFault:
    """Something that goes wrong on purpose.

    Attributes:
        kind: One of `kinds`; `status` (an HTTP error), `silent` (never answers), `stalled` (stops in mid-answer),
            `closed` (drops the connection) and `html` (a page instead of JSON) are of every provider.
        times: How often it happens; `None` for ever.
        status: HTTP status, with `status`.
        message: What the error says, with `status`; as OpenAI does, it quotes the key if nothing is given.
        retry_after: Seconds the client is told to wait, with `status`.
    """

    kinds: ClassVar[tuple[str, ...]] = TRANSPORT

    kind: str
    times: int | None = None
    status: int = 500
    message: str = ""
    retry_after: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in self.kinds:
            raise ValueError(f"kind={self.kind!r} is unknown; known: {', '.join(self.kinds)}")


RequestT = TypeVar("RequestT", bound=ProviderRequest)
FaultT = TypeVar("FaultT", bound=ProviderFault)


class LocalProvider(LoopbackService, Generic[RequestT, FaultT]):
    """A provider on loopback.

    Attributes:
        requests: Every request, in order of arrival.
        faults: What goes wrong on purpose; see `fail`.
    """

    _path = "/v1"
    _fault: type[FaultT]

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[RequestT] = []
        self.faults: list[FaultT] = []
        self.stopping = threading.Event()

    def start(self) -> Self:
        """Listen on a free port of 127.0.0.1."""
        self.stopping.clear()
        return super().start()

    def stop(self) -> None:
        """Go down; answers that stall end."""
        self.stopping.set()
        super().stop()

    def fail(self, kind: str, **details: Any) -> FaultT:
        """Let something go wrong from now on; `server.faults.remove(fault)` mends it.

        Args:
            kind: What; see the fault class of this server.
            **details: Further attributes of the fault.
        """
        fault = self._fault(kind=kind, **details)
        with self._lock:
            self.faults.append(fault)
        return fault

    def note(self, request: RequestT) -> None:
        """Record a request; the handler calls it."""
        with self._lock:
            self.requests.append(request)

    def take_fault(self) -> FaultT | None:
        """The fault that a request meets, counted down; the handler asks."""
        with self._lock:
            for fault in self.faults:
                if fault.times != 0:
                    fault.times = None if fault.times is None else fault.times - 1
                    return fault
        return None
