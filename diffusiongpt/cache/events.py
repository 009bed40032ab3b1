"""What the cache did, for programs that watch it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


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

    kind: Literal["pulled", "loaded", "placed", "freed"]
    what: str
    tier: str
    nbytes: int
    seconds: float = 0.0


OnEvent = Callable[[CacheEvent], None]
"""Called from whatever thread does the work, so it should be quick; what it raises is logged."""
