"""One loaded model: what identifies it, and what is told about it."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from diffusiongpt.backends.base import Backend, Loaded
    from diffusiongpt.expert import Expert

log = logging.getLogger("diffusiongpt.cache")


@dataclass(frozen=True, kw_only=True)
class ModelKey:
    """What makes two loaded models the same: content and place, not the expert's id.

    An adapter has the key of its base in its own: it lives on that one.
    """

    backend: str
    folder: str
    variant: str | None
    dtype: str | None
    device: str
    file: str | None = None
    base: ModelKey | None = None


@dataclass(frozen=True, kw_only=True)
class Resident:
    """One row of `ModelCache.explain`.

    Attributes:
        experts: Ids that asked for it.
        device: Where it is; `"disk"` for what is only pulled.
        nbytes: Bytes it takes there.
        leases: How many requests use it now.
        idle_s: Seconds since it was last asked for; `None` on disk.
        why: Why it is there, or when it goes.
    """

    experts: tuple[str, ...]
    device: str
    nbytes: int
    leases: int
    idle_s: float | None
    why: str


@dataclass
class Entry:
    """A model in memory, as the cache keeps it.

    Attributes:
        loaded: The model.
        backend: Who can free it.
        experts: Ids that asked for it.
        used: When it was last asked for, on the monotonic clock.
    """

    loaded: Loaded
    backend: Backend
    experts: set[str]
    used: float = field(default_factory=time.monotonic)


def model_key(expert: Expert, folder: Path, device: str) -> ModelKey:
    """What a checkpoint is on a device, once its files are in a folder."""
    settings = expert.settings
    return ModelKey(
        backend=expert.backend, folder=str(folder), variant=settings.variant, dtype=settings.dtype, device=device
    )


def adapter_key(file: Path, base: ModelKey) -> ModelKey:
    """What an adapter in a file is on its base, however strongly it is worn."""
    return replace(base, folder=str(file.parent), file=file.name, base=base)


def unload(victims: list[Entry]) -> int:
    """Free models, in this order; return their bytes."""
    for entry in victims:
        log.info("freeing %s, %d bytes", ", ".join(sorted(entry.experts)), entry.loaded.nbytes)
        entry.backend.unload(entry.loaded)
    return sum(entry.loaded.nbytes for entry in victims)
