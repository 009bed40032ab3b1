"""This machine as a place to draw: its device, and the experts that can draw on it."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from diffusiongpt.backends.base import for_adapters
from diffusiongpt.backends.registry import get_backend, is_hosted
from diffusiongpt.cache.model_cache import SAFE_SHARE
from diffusiongpt.errors import (
    DiffusionGPTError,
    HubUnreachableError,
    LoadError,
    NeedsKeyError,
    OutOfMemoryError,
    ZooError,
)
from diffusiongpt.flow.route import Readiness
from diffusiongpt.hub.plan import readable
from diffusiongpt.weights.devices import best_device, device_memory

if TYPE_CHECKING:
    from diffusiongpt.cache.model_cache import ModelCache
    from diffusiongpt.hub.plan import PullPlan
    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo.expert import Expert


CPU_GROWTH = 2.0
"""A CPU computes in float32: weights listed at 16 bits take twice the bytes."""


class Machine:
    """Which experts can draw here.

    Args:
        cache: Checkpoints on disk and in memory.
        settings: Keys and addresses of hosted experts.
        device: Device to draw on; `None` for the best one present.
    """

    def __init__(self, cache: ModelCache, settings: Settings, device: str | None = None) -> None:
        self._cache = cache
        self._settings = settings
        self._device = device

    @cached_property
    def device(self) -> str:
        """Device that draws."""
        return best_device(self._device)

    @cached_property
    def room(self) -> int | None:
        """Bytes that the weights of one expert may take; `None` if not known."""
        memory = device_memory(self.device)
        return None if memory is None else round(memory * SAFE_SHARE)

    def readiness(self, expert: Expert) -> Readiness:
        """What it would take to draw with an expert here; no network. A hosted expert counts as loaded."""
        if is_hosted(expert.backend):
            return self._hosted_readiness(expert)
        if self._is_too_big(expert):
            return "too_big"
        if self._cache.puller.on_disk(expert) is None:
            return "download"
        return "loaded" if self._cache.is_loaded(expert, device=self.device) else "on_disk"

    def check_can_draw(self, expert: Expert, *, hub_is_down: bool = False) -> None:
        """Refuse an expert that cannot draw here and now, before anything is tried.

        Raises:
            OutOfMemoryError: If its weights are larger than the device.
            HubUnreachableError: If it would have to be pulled and the hub was found to be down.
            LoadError: If no backend here can draw with it.
            NeedsKeyError, ServiceError, NeedsExtraError: If it is hosted, and key, network or client are missing.
        """
        try:
            backend = get_backend(expert.backend)
        except ZooError as error:
            raise LoadError(f"{expert.id} cannot be drawn here: {error}", hint=error.hint) from error
        if backend.hosted:
            backend.check(self._settings)
            return
        if expert.kind == "adapter":
            for_adapters(backend, expert)
        if self._is_too_big(expert):
            raise self._too_big(expert.id, self._needed(expert))
        if hub_is_down and not self._cache.puller.find_offline(expert, backend):
            raise HubUnreachableError(
                f"{expert.id} is not on disk and the hub cannot be reached", hint="Try again when there is a network."
            )

    def check_fits(self, plan: PullPlan) -> None:
        """Refuse a pull if its weights, measured exactly by the headers of their files, would not fit here.

        Raises:
            OutOfMemoryError: If they are larger than the device.
        """
        # of the types that a device computes in, all but one take two bytes
        dtype = "float32" if self.device == "cpu" else plan.expert.settings.dtype or "float16"
        needed = plan.memory_bytes(dtype)
        if needed is not None and self.room is not None and needed > self.room:
            raise self._too_big(plan.asked_by, needed)

    def can_draw(self, expert: Expert) -> bool:
        """Whether an expert can draw here, as far as that is known beforehand."""
        try:
            self.check_can_draw(expert)
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

    def _needed(self, expert: Expert) -> float:
        return (expert.size_bytes or 0) * (CPU_GROWTH if self.device == "cpu" else 1.0)

    def _is_too_big(self, expert: Expert) -> bool:
        return self.room is not None and self._needed(expert) > self.room

    def _too_big(self, expert: str, needed: float) -> OutOfMemoryError:
        return OutOfMemoryError(
            f"{expert} needs {readable(needed)} on {self.device}, which has {readable(self.room or 0)} for it",
            hint="Draw on a larger device, or choose a smaller expert.",
        )
