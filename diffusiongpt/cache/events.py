"""What the cache did, for programs that watch it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

log = logging.getLogger("diffusiongpt.cache")

Kind = Literal["pulled", "loaded", "placed", "freed"]


@dataclass(frozen=True, kw_only=True)
class CacheEvent:
    """One thing that happened.

    Attributes:
        kind: `"pulled"` to the disk, `"loaded"` from disk to the host, `"placed"` from the host on a device,
            or `"freed"`.
        what: Repository, component or adapter, in words.
        tier: `"disk"`, `"host"`, or a device.
        nbytes: Bytes that came or went.
        seconds: How long it took; 0 for what went.
    """

    kind: Kind
    what: str
    tier: str
    nbytes: int
    seconds: float = 0.0


OnEvent = Callable[[CacheEvent], None]
"""Called from whatever thread does the work, so it should be quick; what it raises is logged."""


class Events:
    """Who is told of what the cache does; thread-safe.

    Example:
        studio.cache.events.add(lambda event: print(event.kind, event.what, event.seconds))
    """

    def __init__(self) -> None:
        self._listeners: tuple[OnEvent, ...] = ()

    def add(self, listener: OnEvent) -> None:
        """Tell somebody, from now on."""
        self._listeners = (*self._listeners, listener)

    def tell(self, event: CacheEvent) -> None:
        """Tell everybody; a listener's mistake is not the cache's."""
        log.info("%s %s: %s, %d bytes, %.2f s", event.kind, event.what, event.tier, event.nbytes, event.seconds)
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:
                log.exception("a listener to cache events failed")
