"""What a replica reports of itself, and what a request needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Place = Literal["device", "host", "disk"]
"""Where a component is at hand; one that is at none of them has to be downloaded."""

MOST_PARTS = 100_000
"""Components that one replica may speak of; a zoo of ten thousand experts has fewer."""

Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Rate = Annotated[float, Field(ge=1, le=1e18, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=10**15)]
Component = Annotated[str, Field(max_length=1_000)]


@dataclass(frozen=True, kw_only=True)
class ReplicaState:
    """What a replica says of itself from time to time.

    Attributes:
        replica: Its name in the fleet.
        queue_s: Expected seconds until a request that comes now would begin to draw, if its model were there.
        held: Component, by its content -> the best place where it is.
        coming: Component -> expected seconds until it is on the device, also for what its queue needs and
            nothing brings yet.
        device_bytes: Memory of its device.
        free_bytes: Bytes that can come to the device before anything has to leave.
        link_bytes_s: Bytes a second from host to device.
        disk_bytes_s: Bytes a second from disk to host.
        download_bytes_s: Bytes a second from the hub to disk.
        received: How many requests had reached it when it reported, of those that this fleet sent.
        ended: How many of those had ended.
    """

    replica: str
    queue_s: Seconds = 0.0
    held: Annotated[Mapping[Component, Place], Field(max_length=MOST_PARTS)] = field(default_factory=dict)
    coming: Annotated[Mapping[Component, Seconds], Field(max_length=MOST_PARTS)] = field(default_factory=dict)
    device_bytes: Annotated[float, Field(ge=0)] = float("inf")
    free_bytes: Annotated[float, Field(ge=0, le=1e18)] = 0.0
    link_bytes_s: Rate = 25e9
    disk_bytes_s: Rate = 1.5e9
    download_bytes_s: Rate = 50e6
    received: Count = 0
    ended: Count = 0


_FACTS = frozenset(one.name for one in fields(ReplicaState)) - {"replica", "received", "ended"}


@cache
def _checked() -> TypeAdapter[ReplicaState]:
    from pydantic import TypeAdapter

    return TypeAdapter(ReplicaState)


def read_report(replica: str, said: Mapping[str, Any], sender: str) -> ReplicaState:
    """What a replica has reported; one of another version, or whose memory is damaged, may say anything.

    Args:
        replica: Its name in the fleet.
        said: What it says, of which this version may not know all.
        sender: Whose requests are counted.

    Raises:
        ValueError: If that cannot be.
    """
    counts: dict[str, Any] = {}
    for count in ("received", "ended"):
        by_sender = said.get(count, {})
        if not isinstance(by_sender, Mapping):
            raise ValueError(f"{count} is not counted by sender")  # noqa: TRY004 - as of pydantic
        counts[count] = by_sender.get(sender, 0)
    facts = {name: value for name, value in said.items() if name in _FACTS}
    return _checked().validate_python({**facts, **counts, "replica": replica})


@dataclass(frozen=True, kw_only=True)
class Need:
    """What one request needs of a replica.

    Attributes:
        parts: Component, by its content -> bytes.
        draw_s: Expected seconds of drawing.
        device_bytes: Least memory of a device on which it can be drawn.
    """

    parts: Mapping[str, int]
    draw_s: float
    device_bytes: float = 0.0
