"""What a replica reports of itself, and what a request needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Place = Literal["device", "host", "disk"]
"""Where a component is at hand; one that is at none of them has to be downloaded."""


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
    queue_s: float = 0.0
    held: Mapping[str, Place] = field(default_factory=dict)
    coming: Mapping[str, float] = field(default_factory=dict)
    device_bytes: float = float("inf")
    free_bytes: float = 0.0
    link_bytes_s: float = 25e9
    disk_bytes_s: float = 1.5e9
    download_bytes_s: float = 50e6
    received: int = 0
    ended: int = 0


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
