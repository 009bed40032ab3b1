"""The ways to draw with an expert on a machine, and what it would take where there is none.

A plan counts all the memory there is and never what is free at the moment, so the same machine always has the same
plan. Bytes come from the sizes of components: from the headers of files on disk, else from the zoo.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from math import ceil, inf
from typing import TYPE_CHECKING, Final

from diffusiongpt.backends import is_hosted
from diffusiongpt.backends.diffusers import FEW_BITS
from diffusiongpt.flow import MachineSpec, Placement, PlacementKind, as_sold
from diffusiongpt.placement.costs import cost_of, cpu_flops, stated_bytes, usual_bytes
from diffusiongpt.placement.job import Job, Measured, Need
from diffusiongpt.weights import may_pin

if TYPE_CHECKING:
    from diffusiongpt.flow import Readiness
    from diffusiongpt.zoo import Expert


USABLE: Final = 0.9
"""Share of a memory that a plan may fill; the rest is for other programs and for what allocators lose."""


DISK_BYTES_S: Final = 1.5e9
DOWNLOAD_BYTES_S: Final = 50e6

CPU_PATIENCE_S: Final = 600.0
"""Longest drawing on the processor of a machine with a GPU that still counts as a way to draw."""

_ALL_BITS: Final = tuple(few.bits for few in FEW_BITS.values())

_KINDS: Final[tuple[PlacementKind, ...]] = ("whole", "offload", "stream", "cpu")
"""What our own backend can do with what is always installed."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What one picture should take by the estimates alone, whatever was measured.

    Attributes:
        seconds: Of computing; `None` if the speed of the device is not known.
        work_bytes: Memory beyond the weights, without the libraries' workspaces.
    """

    seconds: float | None
    work_bytes: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The placements of an expert on a machine, best first.

    Attributes:
        placements: None if it cannot draw there, as far as that is known.
        reason: Why it cannot, with the number that would change it; empty if it can.
        sized: Whether its size is known, or would be if its files existed; what is not known counts as not fitting.
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

Asked = tuple[int | None, int | None, int | None]
"""Width, height and steps of a picture; `None` for the expert's own."""

_KEPT = 20_000
"""Answers that a planner keeps: one for each expert of the largest zoo. Sizes of pictures are as many as callers
like."""


class Planner:
    """Plans placements on one machine; neither the network nor the device is touched.

    Args:
        machine: The machine.
        weigh: Sizes of components by something better than the zoo; those of the zoo are taken where it says `None`.
        weighs: Whether it may ever say more of a checkpoint, which is asked once: a route asks for all sizes.
        ways: Kinds of placement that the backends can carry out.
        tiles: Whether they can decode in tiles.
        bits: Bits of weights that the backends can make where they quantise, the most first.
        quantise: Whether weights of fewer bits may be used where the zoo does not ask for them.
        readiness: What it takes to have an expert's weights at hand here.
        missing: Which local files of an expert do not exist, as the reason of a rejection; empty if none. It is
            asked of experts of unknown size alone: one of known size is planned, and its drawing says what it lacks.
        lacks: Which modules an expert needs that are not installed, as the reason of a rejection; empty if none.
        elsewhere: Whether the plans are for another machine, where nothing is loaded yet.
        measured: What was measured for an architecture on a device, `"cpu"` or the machine's own.
    """

    def __init__(  # noqa: PLR0913  # one for each thing that differs between machines
        self,
        machine: MachineSpec,
        *,
        weigh: Weigh = lambda _: None,
        weighs: Callable[[Expert], bool] = lambda _: True,
        ways: Collection[PlacementKind] = _KINDS,
        tiles: bool = False,
        bits: Collection[int] = _ALL_BITS,
        quantise: bool = False,
        readiness: Callable[[Expert], Readiness] = lambda _: "download",
        missing: Callable[[Expert], str] = lambda _: "",
        lacks: Callable[[Expert], str] = lambda _: "",
        elsewhere: bool = False,
        measured: Callable[[str, str], Measured] = lambda _, __: Measured(),
    ) -> None:
        self.machine = machine
        self._weigh = weigh
        self._weighs = weighs
        self._ways = frozenset(ways)
        self._tiles = tiles
        self._bits = tuple(bits) if "quantised" in self._ways else ()
        self._quantise = quantise
        self._readiness = readiness
        self._missing = missing
        self.lacks = lacks
        self._elsewhere = elsewhere
        self._measured = measured
        self._stated: dict[int, _Stated] = {}
        self._answers = 0

    def __call__(
        self,
        expert: Expert,
        *,
        width: int | None = None,
        height: int | None = None,
        steps: int | None = None,
        readiness: Readiness | None = None,
    ) -> Plan:
        """Plan one picture.

        Args:
            expert: Expert that would draw it.
            width: Pixels; the expert's own if absent.
            height: Pixels.
            steps: Denoising steps.
            readiness: What it takes to have its weights at hand here, where the caller has looked already.
        """
        stated = self._stated_by(expert)
        if stated.hosted:
            service = expert.repo.partition("/")[0]
            hosted = Placement(
                kind="hosted", device=service, device_bytes=0, host_bytes=0, download_bytes=0, seconds=expert.seconds
            )
            return Plan(placements=(hosted,))
        fit = self._fit_of(stated, self._sizes_of(stated), (width, height, steps))
        if not fit.needs:
            missing = "" if fit.sized else self._missing(expert)
            return Plan(reason=missing or fit.reason, sized=fit.sized or bool(missing))
        readiness = readiness or self._readiness(expert)
        if readiness == "loaded" and self._elsewhere:
            readiness = "on_disk"
        if readiness not in fit.plans:
            placements = tuple(self._placement(need, readiness) for need in fit.needs)
            fit.plans[readiness] = Plan(placements=placements)
        return fit.plans[readiness]

    def expected(self, expert: Expert, placement: Placement, *, width: int, height: int, steps: int) -> Expected | None:
        """What a picture should take, to compare with what it took; `None` if the expert's size is not known."""
        sizes = self.sizes(expert)
        if sizes is None:
            return None
        job = replace(self._job(expert, sizes, width, height, steps), measured=Measured())
        flops = cpu_flops() if placement.kind == "cpu" else self.machine.flops
        need = job.cpu() if placement.kind == "cpu" else job.whole(tiled=placement.tiled)
        seconds = need.computing(flops) if flops else None
        return Expected(seconds=seconds, work_bytes=ceil(job.work(tiled=placement.tiled)))

    @property
    def unknown(self) -> Placement:
        """The placement of an expert of unknown size, which only somebody who asked for it by name gets."""
        return Placement(kind="cpu" if self.machine.device == "cpu" else "whole", device=self.machine.device)

    def why_not(self, expert: Expert, *, width: int | None = None, height: int | None = None) -> str:
        """Why an expert cannot draw, as `Plan.reason`; empty if it can. Cheaper than a plan."""
        stated = self._stated_by(expert)
        if stated.hosted:
            return ""
        fit = self._fit_of(stated, self._sizes_of(stated), (width, height, None))
        return fit.reason if fit.sized else self._missing(expert) or fit.reason

    def why_not_with(self, expert: Expert, total: int) -> str:
        """The same if all its weights take `total` bytes at 16 bits, divided among components as they are known."""
        known = self.sizes(expert) or {expert.id: total}
        factor = total / max(sum(known.values()), 1)
        sizes = {name: round(size * factor) for name, size in known.items()}
        return self._find_fit(expert, sizes, None, None, None).reason

    def sizes(self, expert: Expert) -> dict[str, int] | None:
        """Bytes of each component, those of an adapter's base included; `None` if not known."""
        return self._sizes_of(self._stated_by(expert))

    def _stated_by(self, expert: Expert) -> _Stated:
        stated = self._stated.get(id(expert))
        if stated is None or stated.expert is not expert:
            if len(self._stated) >= _KEPT:
                self._stated.clear()
            base = self._stated_by(expert.base_expert) if expert.base_expert is not None else None
            sizes = stated_bytes(expert) if base is None else _added(expert, base.sizes)
            weighs = self._weighs(expert) if base is None else base.weighs
            stated = self._stated[id(expert)] = _Stated(expert, is_hosted(expert.backend), sizes, weighs)
        return stated

    def _sizes_of(self, stated: _Stated) -> dict[str, int] | None:
        if not stated.weighs:
            return stated.sizes
        if (base := stated.expert.base_expert) is not None:
            return _added(stated.expert, self.sizes(base))
        weighed = self._weigh(stated.expert)
        return dict(weighed) if weighed else stated.sizes

    def _fit_of(self, stated: _Stated, sizes: Mapping[str, int] | None, asked: Asked) -> _Fit:
        known = stated.fits.get(asked)
        if known is None or (known[0] is not sizes and known[0] != sizes):
            if self._answers >= _KEPT:
                self._stated.clear()
                self._answers = 0
            self._answers += 1
            known = stated.fits[asked] = sizes, self._find_fit(stated.expert, sizes, *asked)
        return known[1]

    def _find_fit(
        self, expert: Expert, sizes: Mapping[str, int] | None, width: int | None, height: int | None, steps: int | None
    ) -> _Fit:
        if sizes is None:
            return _Fit(
                reason="its size is not known, and does not count as fitting; state it in the zoo, or pull it first",
                sized=False,
            )
        job = self._job(expert, sizes, width, height, steps)
        needs = list(self._needs(job))
        first: dict[tuple[PlacementKind, int | None], Need] = {}
        for need in needs:
            if self._fits(need):
                first.setdefault((need.kind, need.bits), need)
        reason = "" if first else self._reason(needs) + self._would_quantise(job)
        return _Fit(needs=tuple(first.values()), reason=reason)

    def _job(
        self, expert: Expert, sizes: Mapping[str, int], width: int | None, height: int | None, steps: int | None
    ) -> Job:
        parts = [part.component for part in expert.checkpoint.elsewhere if part.component]
        packed = frozenset(part.name for part in parts if part.is_packed)
        if expert.settings.dtype == "bfloat16" and not self.machine.bfloat16:
            sizes = {name: size if name in packed else 2 * size for name, size in sizes.items()}
        return Job(
            expert=expert,
            sizes=sizes,
            cost=cost_of(expert.architecture),
            pixels=(width or expert.settings.width or 1024) * (height or expert.settings.height or 1024),
            steps=steps or expert.settings.num_inference_steps or 30,
            measured=self._measured(expert.architecture or "", self.machine.device),
            measured_cpu=self._measured(expert.architecture or "", "cpu"),
            packed=packed,
            usual=max((usual_bytes(expert.architecture).get(name, 0) for name in packed), default=0),
        )

    def _needs(self, job: Job) -> Iterator[Need]:
        """All ways that the backends know, best first."""
        machine = self.machine
        if machine.device != "cpu":
            asked = _asked_bits(job)
            ways = self._ways & {"quantised"} if asked else self._ways
            if "whole" in ways:
                yield from self._tilings(job.whole)
            # an adapter sits on a base that stays where it is, and one memory gains nothing from moving within it
            if job.expert.kind == "checkpoint" and not machine.one_memory and len(job.sizes) > 1:
                if "offload" in ways:
                    yield from self._tilings(job.offload)
                if "stream" in ways:
                    pinned = may_pin(job.denoiser, pinned=0, memory=machine.host_bytes)
                    yield from self._tilings(partial(job.stream, pinned=pinned))
                for bits in self._bits:
                    if self._quantise if asked is None else bits == asked:
                        yield from self._tilings(partial(job.quantised, bits=bits))
        if "cpu" in self._ways and machine.device != "any":
            cpu = replace(job, measured=job.measured_cpu).cpu()
            if machine.device == "cpu" or cpu.operations / cpu_flops() <= CPU_PATIENCE_S:
                yield cpu

    def _would_quantise(self, job: Job) -> str:
        """What is missing for weights of fewer bits, where they are allowed and would fit."""
        asked = _asked_bits(job)
        if not (self._quantise or asked) or self.machine.one_memory or job.expert.kind != "checkpoint":
            return ""
        for few in FEW_BITS.values():
            if few.bits in self._bits or asked not in (None, few.bits) or len(job.sizes) == 1:
                continue
            if any(map(self._fits, self._tilings(partial(job.quantised, bits=few.bits)))):
                install = ": pip install 'diffusiongpt[quantised]'" if few.package else ""
                return f"; with weights of {few.bits} bits it would fit{install}"
        return ""

    def _tilings(self, way: Callable[..., Need]) -> Iterator[Need]:
        yield way(tiled=False)
        if self._tiles:
            yield way(tiled=True)

    def _fits(self, need: Need) -> bool:
        return need.device <= self._room("device", need) and need.host <= self._room("host", need)

    def _room(self, of: str, need: Need) -> float:
        machine = self.machine
        if of == "host" and machine.device == "mps" and need.kind != "cpu":
            return inf  # counted on the device, which is the same memory
        total = machine.device_bytes if of == "device" else machine.host_bytes
        return (total or 0.0) * USABLE

    def _reason(self, needs: list[Need]) -> str:
        """What is missing, as the smallest memory of each kind that would do while the other stays as it is."""
        device = min((need.device for need in needs if need.host <= self._room("host", need)), default=None)
        host = min((need.host for need in needs if need.device <= self._room("device", need)), default=None)
        wants = []
        if device:
            wants.append(f"{as_sold(device / USABLE, up=True)} on the device")
        if host:
            wants.append(f"{as_sold(host / USABLE, up=True)} of host memory")
        if not wants and needs:
            least = min(needs, key=lambda need: need.device + need.host)
            both = f"{as_sold(least.device / USABLE, up=True)} on the device"
            wants.append(f"{both} and {as_sold(least.host / USABLE, up=True)} of host memory")
        if not wants:
            return "nothing here can draw with it"
        return f"needs {' or '.join(wants)}; this machine has {self._has()}"

    def _has(self) -> str:
        machine = self.machine
        total = machine.host_bytes
        host = "host memory of unknown size" if total is None else f"{as_sold(total)} of host memory"
        if machine.device == "cpu":
            return host
        device = "a device of unknown memory" if machine.device_bytes is None else as_sold(machine.device_bytes)
        return device if machine.one_memory else f"{device} and {host}"

    def _placement(self, need: Need, readiness: Readiness) -> Placement:
        return Placement(
            kind=need.kind,
            device="cpu" if need.kind == "cpu" else self.machine.device,
            device_bytes=ceil(need.device),
            host_bytes=ceil(need.host),
            download_bytes=ceil(need.weights) if readiness == "download" else 0,
            seconds=self._seconds(need, readiness),
            tiled=need.tiled,
            bits=need.bits,
        )

    def _seconds(self, need: Need, readiness: Readiness) -> float | None:
        machine = self.machine
        flops = cpu_flops() if need.kind == "cpu" else machine.flops
        if flops is None:
            return None
        streamed = need.streamed / machine.link_bytes_s
        # the groups of one step come while those before them compute
        drawing = max(need.computing(flops), streamed) + need.waiting
        if readiness == "loaded":
            return round(drawing + (need.moved / machine.link_bytes_s if need.kind != "whole" else 0), 1)
        bringing = need.weights / DISK_BYTES_S + need.moved / machine.link_bytes_s
        downloading = need.weights / DOWNLOAD_BYTES_S if readiness == "download" else 0.0
        return round(downloading + bringing + drawing, 1)


def _added(adapter: Expert, sizes: dict[str, int] | None) -> dict[str, int] | None:
    """The sizes of an adapter's base with its own."""
    return None if sizes is None else {**sizes, adapter.id: round((adapter.size_gb or 0) * 1e9)}


def _asked_bits(job: Job) -> int | None:
    """Bits of the weights that the zoo entry asks for; `None` if it asks for none in particular."""
    few = FEW_BITS.get(job.expert.settings.dtype or "")
    return few.bits if few else None


@dataclass(frozen=True)
class _Stated:
    """What an expert says of itself, which is read once: a route asks for the sizes of all experts.

    Attributes:
        expert: The expert.
        hosted: Whether a service draws.
        sizes: Bytes of its components as the zoo has them, those of an adapter's base included.
        weighs: Whether something may know its sizes better.
        fits: What came of the pictures that were asked for, with the sizes of components then.
    """

    expert: Expert
    hosted: bool
    sizes: dict[str, int] | None
    weighs: bool
    fits: dict[Asked, tuple[Mapping[str, int] | None, _Fit]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Fit:
    """The first way of each kind that fits, or why none does; the plans that came of it, by readiness."""

    needs: tuple[Need, ...] = ()
    reason: str = ""
    sized: bool = True
    plans: dict[Readiness, Plan] = field(default_factory=dict)
