"""This machine as a place to draw: its device, and the experts that can draw on it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING

from diffusiongpt.backends import for_adapters, get_backend, is_hosted
from diffusiongpt.backends.diffusers import FEW_BITS, can_quantise, lacking
from diffusiongpt.errors import (
    DiffusionGPTError,
    HubUnreachableError,
    LoadError,
    NeedsKeyError,
    OutOfMemoryError,
    ZooError,
)
from diffusiongpt.flow import MachineSpec, Placement, PlacementKind, Readiness
from diffusiongpt.hub import check_local, component_sizes, key_of, why_missing
from diffusiongpt.placement import KindsPlanner, Measured, Measurement, Measurements, Planner, planned_for, speed_of
from diffusiongpt.weights import HOST, best_device, device_facts, device_memory

if TYPE_CHECKING:
    from diffusiongpt.cache import ModelCache
    from diffusiongpt.flow import Call, Drawing, Request
    from diffusiongpt.hub import PullKey, PullPlan, Snapshot
    from diffusiongpt.settings import Memory, Settings
    from diffusiongpt.zoo import Expert


_WAYS: tuple[PlacementKind, ...] = ("whole", "offload", "stream", "quantised", "cpu")
"""What our own backend can do with what is always installed."""


class Machine:
    """Which experts can draw here.

    Args:
        cache: Checkpoints on disk and in memory.
        settings: Keys and addresses of hosted experts, the folder of the user's data, and what is allowed.
        device: Device to draw on; `None` for the best one present.
        elsewhere: Whether another machine draws, which has the memory that the settings name.
        kinds: Kinds of replicas that draw elsewhere, with their memory; without them that of the settings.
    """

    def __init__(
        self,
        cache: ModelCache,
        settings: Settings,
        device: str | None = None,
        *,
        elsewhere: bool = False,
        kinds: Mapping[str, Memory | None] | None = None,
    ) -> None:
        self._cache = cache
        self._settings = settings
        self._device = device
        self._elsewhere = elsewhere
        self._kinds = kinds or {}
        self._planners: dict[MachineSpec, Planner] = {}
        self._measurements = Measurements(settings.home / "measured.jsonl")
        self._weighed: dict[tuple[PullKey, ...], tuple[Snapshot | tuple[str, ...], Mapping[str, int]]] = {}
        self._lacking: dict[str, str] = {}

    @cached_property
    def device(self) -> str:
        """Device that draws."""
        return best_device(self._device)

    @cached_property
    def spec(self) -> MachineSpec:
        """What plans have to know of the machine that draws."""
        total, host = device_memory(self.device), device_memory(HOST)
        name, bfloat16 = device_facts(self.device)
        flops, link = speed_of(self.device, name, total or 0)
        here = MachineSpec(
            device=self.device,
            device_bytes=total,
            host_bytes=host,
            flops=flops,
            link_bytes_s=link,
            bfloat16=bfloat16,
        )
        return planned_for(self._settings.memory, here) if self._elsewhere and not self._kinds else here

    def planner(self, memory: Memory | None = None) -> Planner | KindsPlanner:
        """Plans placements for the memory that was asked for; `None` for that of the settings, else this machine's.

        In a fleet of unlike replicas it is for these.
        """
        if self._kinds:
            return self._here if memory is None else self._planner_for(planned_for(memory, self.spec))
        return self._planner_for(planned_for(memory or self._settings.memory, self.spec))

    def placements(
        self, expert: Expert, request: Request | None = None, begin: Placement | None = None
    ) -> tuple[Placement, ...]:
        """The ways to draw with an expert here, in the order in which they are tried.

        Args:
            expert: The expert that draws.
            request: The size of the picture and the number of steps; the expert's own if absent.
            begin: The placement of the route: better ones are left out, because it may be for a smaller machine.
        """
        planner = self._here
        width, height, steps = None, None, None
        if request is not None:
            width, height, steps = request.width, request.height, request.num_inference_steps
        plan = planner(expert, width=width, height=height, steps=steps)
        if begin is not None and begin.kind == "cpu":
            return (begin,)
        if not plan.sized:
            return (self.unplanned,)
        return tuple(one for one in plan.placements if begin is None or one.turn >= begin.turn)

    @property
    def unplanned(self) -> Placement:
        """The placement of an expert that no plan has room for, and of one whose size is not known."""
        return self._here.unknown

    def readiness(self, expert: Expert) -> Readiness:
        """What it would take to draw with an expert here; no network. A hosted expert counts as loaded."""
        if is_hosted(expert.backend):
            return self._hosted_readiness(expert)
        # most experts of a zoo are not on disk, and a route asks for dozens: one look is enough for these
        if self._cache.puller.on_disk(expert) is None:
            return "download"
        return "loaded" if self._cache.is_loaded(expert, device=self.device) else "on_disk"

    def missing(self, expert: Expert) -> str:
        """Which local files of an expert do not exist, as the reason of a rejection; empty if none.

        Where other machines draw, it is empty: they have folders of their own.
        """
        return "" if self._elsewhere or is_hosted(expert.backend) else why_missing(expert)

    def _lacks(self, expert: Expert) -> str:
        """Which modules its architecture needs that are not installed, as the reason of a rejection; empty if none."""
        name = expert.architecture
        if self._elsewhere or name is None or is_hosted(expert.backend):
            return ""
        if name not in self._lacking:
            missing = lacking(name)
            what = f"needs {' and '.join(missing)}, which is not installed; pip install {' '.join(missing)}"
            self._lacking[name] = what if missing else ""
        return self._lacking[name]

    def download_bytes(self, expert: Expert) -> float:
        """Bytes to pull before an expert can draw, as the zoo states them; 0 if it is at hand, `inf` if not known.

        What an adapter adds to its base is small, whether it is stated or not.
        """
        if self.readiness(expert) != "download":
            return 0
        missing = [part for part in expert.parts if self._cache.puller.folder(part) is None]
        # what is not stated of a component counts with its checkpoint
        small = [part.is_guest or (part.component is not None and expert.checkpoint in missing) for part in missing]
        sizes = [part.own_bytes or (0 if is_small else inf) for part, is_small in zip(missing, small, strict=True)]
        return max(sum(sizes), 1)

    def check_can_draw(self, expert: Expert, *, no_pulls: DiffusionGPTError | None = None) -> None:
        """Refuse an expert that cannot draw here and now, before anything is tried.

        Args:
            expert: The expert.
            no_pulls: Why nothing can be pulled now, as the pull of another expert found; `None` if that is not so.

        Raises:
            OutOfMemoryError: If there is no way to draw with it in the memory of this machine.
            HubUnreachableError: If it would have to be pulled and the hub was found to be down.
            PullError: If a local folder or file of it does not exist, or if it would have to be pulled and that was
                found to be impossible for another reason.
            LoadError: If no backend here can draw with it.
            NeedsKeyError, ServiceError, NeedsExtraError: If it is hosted, and key, network or client are missing.
        """
        try:
            backend = get_backend(expert.backend)
        except ZooError as error:
            raise LoadError(f"{expert.id} cannot be drawn here: {error}", hint=error.hint) from error
        if backend.hosted:
            by_entry = getattr(backend, "check_expert", None)
            if by_entry is None:
                backend.check(self._settings)
            else:
                by_entry(expert, self._settings)
            return
        if expert.is_guest:
            for_adapters(backend, expert)
        if self.missing(expert):
            check_local(expert)
        plan = self._here(expert)
        if plan.reason and plan.sized:
            raise _too_big(expert.id, plan.reason)
        if no_pulls is None or self._cache.puller.find_offline(expert, backend):
            return
        if not isinstance(no_pulls, HubUnreachableError):
            raise type(no_pulls)(str(no_pulls), hint=no_pulls.hint)
        raise HubUnreachableError(
            f"{expert.id} is not on disk and the hub cannot be reached", hint="Try again when there is a network."
        )

    def check_fits(self, plan: PullPlan) -> None:
        """Refuse a pull if its weights, measured exactly by the headers of their files, would not fit here.

        Raises:
            OutOfMemoryError: If there is no way to draw with them in the memory of this machine.
        """
        # the first that is not a component of another; where that is a local folder, the sum would not be that of all
        expert = next((part.expert for part in plan.parts if part.expert.component is None), None)
        needed = plan.memory_bytes("float16") if expert else None
        reason = self._here.why_not_with(expert, needed) if expert and needed else ""
        if reason:
            raise _too_big(plan.asked_by, reason)

    def can_draw(self, expert: Expert, *, no_pulls: DiffusionGPTError | None = None) -> bool:
        """Whether an expert can draw here, as far as that is known beforehand; see `check_can_draw`."""
        try:
            self.check_can_draw(expert, no_pulls=no_pulls)
        except DiffusionGPTError:
            return False
        return True

    def _hosted_readiness(self, expert: Expert) -> Readiness:
        try:
            self.check_can_draw(expert)
        except NeedsKeyError:
            return "needs_key"
        except DiffusionGPTError:
            return "download"
        return "loaded"

    @property
    def _here(self) -> Planner | KindsPlanner:
        """Plans for this machine or the replicas that draw, whatever memory routes are planned for."""
        return self._replicas if self._kinds else self._planner_for(self.spec)

    @cached_property
    def _replicas(self) -> KindsPlanner:
        """Plans for the kinds of replicas that draw."""
        specs = {name: planned_for(memory, self.spec) for name, memory in self._kinds.items()}
        return KindsPlanner({name: self._planner_for(spec) for name, spec in specs.items()})

    def _planner_for(self, spec: MachineSpec) -> Planner:
        planner = self._planners.get(spec)
        if planner is None:
            planner = self._planners[spec] = Planner(
                spec,
                weigh=self._weigh,
                weighs=lambda part: not part.is_sized,
                ways=_WAYS,
                bits=tuple(few.bits for name, few in FEW_BITS.items() if can_quantise(name)),
                tiles=True,
                quantise=self._settings.quantise,
                readiness=self.readiness,
                missing=self.missing,
                lacks=self._lacks if spec == self.spec else lambda _: "",
                elsewhere=spec != self.spec,
                measured=self._measured if spec == self.spec else lambda *_: Measured(),
            )
        return planner

    def measure(
        self, call: Call, drawing: Drawing, placement: Placement, *, seconds: float, work_bytes: int | None
    ) -> None:
        """Keep what a drawing took, for the plans of later processes.

        Args:
            call: The call.
            drawing: What came of it.
            placement: How it was placed.
            seconds: Seconds of drawing all its pictures.
            work_bytes: Bytes that it took beyond the weights, `None` if not known.
        """
        expert, steps = call.expert, drawing.params.get("num_inference_steps")
        if expert.architecture is None or not drawing.images or not isinstance(steps, int):
            return
        width, height = drawing.images[0].size
        expected = self._planner_for(self.spec).expected(expert, placement, width=width, height=height, steps=steps)
        if expected is None:
            return
        # elsewhere the link has a share in the seconds, and weights come and go
        is_still = placement.kind in ("whole", "cpu")
        self._measurements.add(
            Measurement(
                hardware=self._hardware(placement.device),
                architecture=expert.architecture,
                width=width,
                height=height,
                steps=steps,
                kind=placement.kind,
                tiled=placement.tiled,
                seconds=seconds / len(drawing.images) if is_still else None,
                expected_seconds=expected.seconds,
                work_bytes=work_bytes if placement.kind == "whole" else None,
                expected_work_bytes=expected.work_bytes,
            )
        )

    def work_bytes(self, expert: Expert) -> int:
        """Bytes that a drawing takes on the device beyond its weights, with the libraries' workspaces."""
        placement = self._here(expert).best
        if placement is None or placement.kind != "whole" or placement.device_bytes is None:
            return 0
        return max(0, placement.device_bytes - sum((self._here.sizes(expert) or {}).values()))

    def _measured(self, architecture: str, device: str) -> Measured:
        return self._measurements.of(architecture, self._hardware(device))

    def _hardware(self, device: str) -> str:
        return device_facts(device)[0] or device

    def _weigh(self, part: Expert) -> Mapping[str, int] | None:
        """Bytes of components by the headers of files on disk, asked for where the zoo does not state them all."""
        key = tuple(key_of(one) for one in part.parts)
        known = self._weighed.get(key)
        try:
            # the files of a commit never change, so what was weighed is not looked at again; a local folder is
            found = [self._cache.puller.commit(one) for one in part.parts]
            commits = tuple(commit for commit in found if commit is not None)
            is_fixed = len(commits) == len(found)
            if known is not None and is_fixed and known[0] == commits:
                return known[1]
            snapshot = self._cache.puller.find(part, get_backend(part.backend))  # type: ignore[arg-type]  # not hosted
            if snapshot is None:
                return None
            version = commits if is_fixed else snapshot
            if known is None or known[0] != version:
                known = self._weighed[key] = version, component_sizes(snapshot)
            return known[1]
        except (DiffusionGPTError, OSError):
            return None


def _too_big(expert: str, reason: str) -> OutOfMemoryError:
    return OutOfMemoryError(f"{expert} {reason}", hint="Draw on a larger machine, or choose a smaller expert.")
