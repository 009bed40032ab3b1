"""What the cache has done, for programs that watch it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from diffusiongpt.safe_text import logger

log = logger("diffusiongpt.cache")

Kind = Literal["pulled", "loaded", "placed", "freed"]


@dataclass(frozen=True, kw_only=True)
class CacheEvent:
    """One thing that the cache has done.

    Attributes:
        kind: `"pulled"` to the disk, `"loaded"` from disk to the host, `"placed"` from the host on a device,
            or `"freed"`.
        what: Repository, component or adapter, in words.
        tier: `"disk"`, `"host"`, or a device.
        nbytes: Bytes that came or went.
        seconds: How long it took to come; 0 for what went.
    """

    kind: Kind
    what: str
    tier: str
    nbytes: int
    seconds: float = 0.0


OnEvent = Callable[[CacheEvent], None]
"""Called in the thread that does the work, so it should be quick; what it raises is logged."""


class Events:
    """The listeners to what the cache does; thread-safe.

    Example:
        studio.cache.events.add(lambda event: print(event.kind, event.what, event.seconds))
    """

    def __init__(self) -> None:
        self._listeners: tuple[OnEvent, ...] = ()

    def add(self, listener: OnEvent) -> None:
        """Call a listener at every event from now on."""
        self._listeners = (*self._listeners, listener)

    def publish(self, event: CacheEvent) -> None:
        """Call every listener; one that raises neither stops the cache nor keeps the event from the others."""
        log.debug("%s %s: %s, %d bytes, %.2f s", event.kind, event.what, event.tier, event.nbytes, event.seconds)
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:  # the listener is the caller's code, which may raise anything
                log.exception("a listener to cache events failed")
