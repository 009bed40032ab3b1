"""What drawing takes, by the figures of `costs.yaml`: sizes of components, activations, and speeds of devices."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from math import inf
from typing import TYPE_CHECKING, Any

from diffusiongpt.flow import GIB, MachineSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from diffusiongpt.settings import Memory
    from diffusiongpt.zoo import Expert


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What drawing with an architecture takes; see `costs.yaml`."""

    denoise_gb: float
    share: float = 0.45
    issue_s: float = 0.0
    decode: float = 2200
    decode_type: str = "float16"
    token: int = 16
    evaluations: int = 1


def stated_bytes(expert: Expert) -> dict[str, int] | None:
    """Bytes of each component of a checkpoint as the zoo states them; `None` if it does not.

    A size without components is one component, which can only be placed as a whole.
    """
    if expert.is_sized:
        return _bytes(expert.sizes_gb)
    if expert.size_gb is not None:
        return _bytes({expert.id: expert.size_gb})
    usual = usual_bytes(expert.architecture)
    return {**usual, **_bytes(expert.sizes_gb)} if usual else None


def usual_bytes(architecture: str | None) -> dict[str, int]:
    """Bytes of each component at 16 bits, for architectures that have one size, which all their fine-tunes share."""
    return _bytes(_costs()["components"].get(architecture) or {})


def _bytes(sizes: Mapping[str, float]) -> dict[str, int]:
    return {name: round(size * 1e9) for name, size in sizes.items()}


@lru_cache(maxsize=256)
def planned_for(memory: Memory | None, here: MachineSpec) -> MachineSpec:
    """The machine to plan for.

    Args:
        memory: The memory that was asked for; `None` for this machine.
        here: This machine. Where only a device was named, the host is taken to have as much memory as this one, or the
            usual amount if that is more: who plans for a large card from a laptop does not mean the laptop's memory.
    """
    if memory is None:
        return here
    if memory.kind == "any":
        return MachineSpec(device="any", device_bytes=inf, host_bytes=inf)
    if memory.kind == "cpu":
        return MachineSpec(device="cpu", device_bytes=here.host_bytes, host_bytes=here.host_bytes, flops=cpu_flops())
    speed = next(row for row in _costs()["by_memory"] if (memory.device or 0) >= row["gb"] * GIB)
    return MachineSpec(
        device="cuda",
        device_bytes=memory.device,
        host_bytes=memory.host or max(here.host_bytes or 0.0, _costs()["host_gb"] * GIB),
        flops=speed["tflops"] * 1e12,
        link_bytes_s=speed["link"] * 1e9,
    )


def speed_of(device: str, name: str, total: float) -> tuple[float, float]:
    """Operations and bytes of the link a second, as listed for a device.

    Args:
        device: `"cuda"`, `"cuda:N"`, `"mps"` or `"cpu"`.
        name: What its driver calls it.
        total: Bytes of its memory, which decide where no name is known.
    """
    rows = _costs()
    if device in ("cpu", "mps"):
        row = rows[device]
    else:
        named = [row for row in rows["devices"] if row["name"] in name]
        row = named[0] if named else next(row for row in rows["by_memory"] if total >= row["gb"] * GIB)
    return row["tflops"] * 1e12, row["link"] * 1e9


def cpu_flops() -> float:
    """Operations a second of a usual processor, in float32."""
    return float(_costs()["cpu"]["tflops"]) * 1e12


def cost_of(architecture: str | None) -> Cost:
    """What drawing with an architecture takes; a stated guess for one that is not listed."""
    costs = _costs()
    return Cost(**costs["architectures"].get(architecture, costs["default"]))


@cache
def _costs() -> dict[str, Any]:
    from ruamel.yaml import YAML

    text = resources.files("diffusiongpt.placement").joinpath("costs.yaml").read_text(encoding="utf-8")
    costs: dict[str, Any] = YAML(typ="safe", pure=True).load(text)
    return costs
