"""Where and how an expert draws: a placement, and the machine that it is for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from diffusiongpt.zoo.expert import Expert

PlacementKind = Literal["whole", "offload", "stream", "quantised", "hosted", "cpu"]
"""In the order in which they are tried where several fit."""

GIB = 1 << 30
"""Bytes of a gigabyte as memory is sold: a "24 GB" card has 24 of these."""


class Placement(BaseModel):
    """One way to draw with an expert on a machine. A number that is not known is `None`.

    Attributes:
        kind: `whole`: all weights on the device; `offload`: each component there only while it works, the rest in
            host memory; `stream`: the same for groups of layers; `quantised`: with weights of 4 bits; `hosted`: by a
            service; `cpu`: on the processor, in float32.
        device: Device that computes, or the name of the service.
        device_bytes: Most that is on the device at a time: weights, activations and workspace.
        host_bytes: Host memory that the weights take.
        download_bytes: Bytes that have to be downloaded first.
        seconds: Expected seconds until the picture is there, with the download and the loading.
        tiled: Whether the autoencoder decodes the picture in tiles, which takes less memory.
    """

    model_config = ConfigDict(frozen=True)

    kind: PlacementKind
    device: str
    device_bytes: int | None = None
    host_bytes: int | None = None
    download_bytes: int | None = None
    seconds: float | None = None
    tiled: bool = False


@dataclass(frozen=True, kw_only=True)
class MachineSpec:
    """What a plan has to know of a machine. Memory is all there is, not what is free at the moment.

    Attributes:
        device: `"cuda"`, `"cuda:N"`, `"mps"`, `"cpu"`, or `"any"` for no machine in particular.
        device_bytes: Memory of the device; `None` if it could not be read, `inf` for no limit. Of `"cpu"` and `"mps"`
            that is the memory of the host, or the part of it that the device may use.
        host_bytes: Memory of the host.
        name: What the driver calls the device; its listed speed is looked up by it.
        flops: 16-bit floating-point operations a second, dense; `None` to look it up.
        link_bytes_s: Bytes a second from the host to the device.
        bfloat16: Whether it computes in bfloat16; without it such weights are float32, and take twice the bytes.
    """

    device: str
    device_bytes: float | None
    host_bytes: float | None
    name: str = ""
    flops: float | None = None
    link_bytes_s: float = 20e9
    bfloat16: bool = True

    @property
    def one_memory(self) -> bool:
        """Whether host and device are the same memory, so that offloading frees nothing."""
        return self.device in ("cpu", "mps")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The placements of an expert on a machine, best first.

    Attributes:
        placements: None if it cannot draw there, as far as that is known.
        reason: Why it cannot, with the number that would change it; empty if it can.
        sized: Whether its size is known; what is not known counts as not fitting.
    """

    placements: tuple[Placement, ...] = ()
    reason: str = ""
    sized: bool = True

    @property
    def best(self) -> Placement | None:
        """The first placement, if there is one."""
        return self.placements[0] if self.placements else None


Weigh = Callable[["Expert"], Mapping[str, int] | None]
"""Bytes of each component of a checkpoint at 16 bits; `None` to take what the zoo states."""


class Planner(Protocol):
    """Plans placements on one machine."""

    @property
    def unknown(self) -> Placement:
        """The placement of an expert of unknown size."""
        ...

    def __call__(
        self, expert: Expert, *, width: int | None = None, height: int | None = None, steps: int | None = None
    ) -> Plan:
        """Plan one picture."""
        ...

    def why_not(self, expert: Expert, *, width: int | None = None, height: int | None = None) -> str:
        """Why an expert cannot draw; empty if it can."""
        ...

    def why_not_with(self, expert: Expert, total: int) -> str:
        """The same if all its weights take `total` bytes at 16 bits."""
        ...


def as_sold(size: float, *, up: bool = False) -> str:
    """Bytes of memory as people name them: `24 GB` for 24 GiB.

    Args:
        size: Bytes.
        up: Whether to round up, so that a memory of that name is large enough.
    """
    exact = size / GIB
    shown = -(-exact // 1) if up else round(exact, 1)
    return f"{max(shown, 1 if up else 0):g} GB"
