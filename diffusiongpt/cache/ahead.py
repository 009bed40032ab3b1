"""What to bring next while something else draws; it decides and moves nothing."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from diffusiongpt.cache.shelf import Key, Shelf

HOST_DEPTH = 3
"""Models after the one that draws which are brought from disk to the host."""

DEVICE_DEPTH = 1
"""Models after the one that draws which are brought from the host to the device."""

PROTECTED = 8
"""Models after the one that draws whose parts go last."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A model that the queue will need.

    Attributes:
        model: Which.
        parts: Its components, with their bytes.
    """

    model: Hashable
    parts: Mapping[Key, int]


@dataclass(frozen=True, kw_only=True)
class Move:
    """One model to bring to a tier, and who leaves for it.

    Attributes:
        model: Which.
        missing: Its components that are not there, with their bytes.
        victims: Who leaves before.
    """

    model: Hashable
    missing: Mapping[Key, int]
    victims: tuple[Key, ...]


def needed_soon(queue: Sequence[Wanted]) -> dict[Key, int]:
    """How soon the queue needs each component: 0 for the model that draws now, 1 for the next, up to `PROTECTED`."""
    soon: dict[Key, int] = {}
    for rank, wanted in enumerate(queue[: PROTECTED + 1]):
        for key in wanted.parts:
            soon.setdefault(key, rank)
    return soon


def next_to_host(queue: Sequence[Wanted], host: Shelf, device: Shelf) -> Move | None:
    """The nearest of the next models that is neither in memory nor on its way, unless what is due sooner would leave.

    Args:
        queue: The model that draws or is about to, then those after it.
        host: Where to; ranked by itself, so that it may let go of what is on the device, or keep it.
        device: What is there need not come.
    """
    for rank, wanted in enumerate(queue[: HOST_DEPTH + 1]):
        missing = {key: size for key, size in _absent(wanted, host).items() if key not in device}
        if rank and missing:
            return _move(wanted, missing, host, rank)
    return None


def next_to_device(queue: Sequence[Wanted], host: Shelf, device: Shelf) -> Move | None:
    """The nearest of the next models that is not on the device, if it is in memory and fits beside the one that draws.

    Args:
        queue: The model that draws, then those after it.
        host: Where from.
        device: Where to.
    """
    for rank, wanted in enumerate(queue[: DEVICE_DEPTH + 1]):
        missing = _absent(wanted, device)
        if rank and missing:
            return _move(wanted, missing, device, rank) if all(key in host for key in missing) else None
    return None


def _absent(wanted: Wanted, shelf: Shelf) -> dict[Key, int]:
    return {key: size for key, size in wanted.parts.items() if key not in shelf and not shelf.is_coming(key)}


def _move(wanted: Wanted, missing: Mapping[Key, int], shelf: Shelf, due: int) -> Move | None:
    victims = shelf.victims(sum(missing.values()), limit=shelf.budget, spare=wanted.parts, due=due)
    return None if victims is None else Move(model=wanted.model, missing=missing, victims=tuple(victims))
