"""Where and how an expert would draw: one placement, and the machine that it is on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from pydantic import BaseModel, ConfigDict

PlacementKind = Literal["whole", "offload", "stream", "quantised", "hosted", "cpu"]
"""In the order in which they are tried where several fit."""

_ORDER: Final[tuple[PlacementKind, ...]] = get_args(PlacementKind)

GIB = 1 << 30
"""Bytes of a gigabyte as memory is sold: a "24 GB" card has 24 of these."""


class Placement(BaseModel):
    """One way to draw with an expert on a machine. A number that is not known is `None`.

    Attributes:
        kind: `whole`: all weights on the device; `offload`: each component there only while it works, the rest in
            host memory; `stream`: the same for groups of layers; `quantised`: with weights of `bits`; `hosted`: by a
            service; `cpu`: on the processor, in float32.
        device: Device that computes, or the name of the service.
        device_bytes: Most that is on the device at a time: weights, activations and workspace.
        host_bytes: Host memory that the weights take.
        download_bytes: Bytes that have to be downloaded first.
        seconds: Expected seconds until the picture is there, with the download and the loading.
        tiled: Whether the autoencoder decodes the picture in tiles, which takes less memory.
        bits: Bits of a weight where it is `quantised`; 4 in records that do not say.
        replica: Kind of replica that would draw, in a fleet of unlike replicas; `None` elsewhere.
    """

    model_config = ConfigDict(frozen=True)

    kind: PlacementKind
    device: str
    device_bytes: int | None = None
    host_bytes: int | None = None
    download_bytes: int | None = None
    seconds: float | None = None
    tiled: bool = False
    bits: int | None = None
    replica: str | None = None

    @property
    def precision(self) -> int:
        """Bits of a weight, and 16 for all that are not quantised."""
        return (self.bits or 4) if self.kind == "quantised" else 16

    @property
    def turn(self) -> tuple[int, int]:
        """Where it comes among those that are tried: by its kind, and by the bits of its weights, the most first."""
        return _ORDER.index(self.kind), -self.precision


@dataclass(frozen=True, kw_only=True)
class MachineSpec:
    """What a plan has to know of a machine. Memory is all there is, not what is free at the moment.

    Attributes:
        device: `"cuda"`, `"cuda:N"`, `"mps"`, `"cpu"`, or `"any"` for no machine in particular.
        device_bytes: Memory of the device; `None` if it could not be read, `inf` for no limit. Of `"cpu"` and `"mps"`
            that is the memory of the host, or the part of it that the device may use.
        host_bytes: Memory of the host.
        flops: 16-bit floating-point operations a second, dense; `None` if not known.
        link_bytes_s: Bytes a second from the host to the device.
        bfloat16: Whether it computes in bfloat16; without it such weights are float32, and take twice the bytes.
    """

    device: str
    device_bytes: float | None
    host_bytes: float | None
    flops: float | None = None
    link_bytes_s: float = 20e9
    bfloat16: bool = True

    @property
    def one_memory(self) -> bool:
        """Whether host and device are the same memory, so that offloading frees nothing."""
        return self.device in ("cpu", "mps")


def as_sold(size: float, *, up: bool = False) -> str:
    """Bytes of memory as people name them: `24 GB` for 24 GiB.

    Args:
        size: Bytes.
        up: Whether to round up, so that a memory of that name is large enough.
    """
    exact = size / GIB
    shown = -(-exact // 1) if up else round(exact, 1)
    return f"{max(shown, 1 if up else 0):g} GB"
