"""What travels with a call and comes back, and which routers this process has.

Ray copies the router's own file by value into each process, so what it shares with others is here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol
from weakref import WeakValueDictionary

from diffusiongpt.drawing import Replica
from diffusiongpt.fleet import Choice, Need

Message = tuple[str, Any]
"""What a replica answers: `("progress", (phase, done, total))`, `("alive", None)`, or one of `LAST`:
`("drawn", Drawing)`, `("failed", DiffusionGPTError)`, and `("broken", text)` for what is a mistake of ours."""

LAST = frozenset({"drawn", "failed", "broken"})
"""Messages after which no other comes."""


@dataclass(frozen=True, kw_only=True)
class Errand:
    """The first argument of a request to a replica, by which it is sent.

    Attributes:
        sender: Who sends it; a replica counts what it received of each.
        need: What it needs.
    """

    sender: str
    need: Need


class KnowsReplicas(Protocol):
    """What a router knows of the replicas of its kind."""

    def expect(self, need: Need) -> Choice | None:
        """Where a request would go; `None` if no replica that has reported can draw it."""
        ...

    def replicas(self) -> list[Replica]:
        """The replicas as they last reported."""
        ...

    def copies(self) -> dict[str, int]:
        """Expert -> replicas that have it on their device."""
        ...


_routers: WeakValueDictionary[str, KnowsReplicas] = WeakValueDictionary()


def put_router(kind: str, router: KnowsReplicas) -> None:
    """Let others in this process ask the router of a kind of replicas."""
    _routers[kind] = router


def router_of(kind: str) -> KnowsReplicas | None:
    """The router of a kind of replicas; `None` before Ray Serve has made it."""
    return _routers.get(kind)
