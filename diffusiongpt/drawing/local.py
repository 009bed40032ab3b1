"""One exact call on this machine: have the files, wait for the device, lease, draw, and recover if memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

from diffusiongpt.backends.base import Backend, HostedBackend
from diffusiongpt.backends.registry import get_backend
from diffusiongpt.cache.cache import ModelCache
from diffusiongpt.cache.moves import HOST
from diffusiongpt.cache.prefetch import Coming
from diffusiongpt.drawing.queue import Queue, Ticket
from diffusiongpt.errors import LoadError, OutOfMemoryError
from diffusiongpt.flow.call import Drawing, Resolved
from diffusiongpt.flow.record import Recovery, RecoveryStep
from diffusiongpt.hub.plan import Agree
from diffusiongpt.weights.devices import release_cached

if TYPE_CHECKING:
    from diffusiongpt.drawing.machine import Machine
    from diffusiongpt.hub.snapshot import Snapshot
    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo.expert import Expert


log = logging.getLogger("diffusiongpt")

OnProgress = Callable[[str, int, int | None], None]
"""Called with the phase (`"download"`, `"load"` or `"draw"`), how much is done, and of how much."""


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """What came of a call.

    Attributes:
        drawing: The pictures.
        weights: Fingerprint of the files that were used; `None` for a hosted expert.
        timings: Seconds of `download`, `queue` (waiting for the device), `load` and `draw`.
        recovered: What it took when memory ran out.
    """

    drawing: Drawing
    weights: str | None
    timings: Mapping[str, float]
    recovered: tuple[Recovery, ...] = ()


class Renderer:
    """Draws, one at a time on each device, while the cache brings what the queue needs next; thread-safe.

    Args:
        cache: Where experts come from.
        machine: Where they draw.
        settings: What hosted experts need to know, and whether to look ahead.
        agree: Asked about a pull above `max_download_gb`.
        on_progress: Told how far a download, a load or a drawing is.
    """

    def __init__(
        self,
        cache: ModelCache,
        machine: Machine,
        settings: Settings,
        *,
        agree: Agree | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        self.cache = cache
        self.queue = Queue(is_ready=self._is_ready, on_change=self._look_ahead)
        self._machine = machine
        self._settings = settings
        self._agree = agree
        self._on_progress = on_progress
        self._coming: dict[Hashable, Coming] = {}

    def enter(self, expert: Expert, *, others: Sequence[Expert] = (), client: Hashable | None = None) -> Ticket:
        """A place in the queue for an expert that draws here.

        Args:
            expert: Who will draw.
            others: Who may stand in; they are pulled meanwhile if the settings say so.
            client: Who asks; the calling thread if absent.

        Raises:
            LoadError: If the queue is closed.
        """
        ground = expert.base_expert or expert
        model = (ground.backend, ground.repo, ground.revision, ground.settings.variant, ground.settings.dtype)
        spare = others if self._settings.prefetch == "download" else ()
        before = (
            {one.id: (one, backend) for one, backend in self._coming[model].others} if model in self._coming else {}
        )
        stand_ins = {**{one.id: (one, _local(one)) for one in spare}, **before}
        self._coming[model] = Coming(expert, _local(expert), tuple(stand_ins.values()))
        return self.queue.enter(model, self._machine.device, client=client)

    def fetch(self, expert: Expert) -> Snapshot:
        """The files of an expert on disk, pulled if need be.

        Raises:
            PullError: If they could not be had.
            OutOfMemoryError: If they turn out not to fit here, before they are pulled.
        """
        return self.cache.fetch(
            expert,
            _local(expert),
            check=self._machine.check_fits,
            agree=self._agree,
            on_progress=self._on_progress,
        )

    def render(
        self, resolved: Resolved, *, expected_weights: str | None = None, ticket: Ticket | None = None
    ) -> Rendered:
        """Draw.

        Args:
            resolved: The exact call.
            ticket: Its place in the queue, if it has one.
            expected_weights: Fingerprint that the files must have; `None` takes any.

        Raises:
            PullError: If its files could not be had.
            LoadError: If it could not be loaded, or is another checkpoint than expected.
            DrawError: If it failed while drawing.
        """
        backend = get_backend(resolved.expert.backend)
        if backend.hosted:
            return self._ask(backend, resolved)
        start = perf_counter()
        snapshot = self.fetch(resolved.expert)
        fetched = perf_counter()
        with (ticket or self.enter(resolved.expert)).turn():
            waited = perf_counter()
            weights = _fingerprint(resolved.expert, snapshot)
            if expected_weights not in (None, weights):
                raise LoadError(
                    f"{resolved.expert.id} is another checkpoint now than when the picture was drawn",
                    hint="Bring the old files back, or draw the prompt anew.",
                )
            drawing, loaded, recovered = self._draw(backend, resolved, snapshot)
        seconds = {
            "download": fetched - start,
            "queue": waited - fetched,
            "load": loaded - waited,
            "draw": perf_counter() - loaded,
        }
        timings = {name: round(value, 4) for name, value in seconds.items()}
        return Rendered(drawing=drawing, weights=weights, timings=timings, recovered=recovered)

    @contextmanager
    def lease(self, expert: Expert) -> Iterator[Any]:
        """The device, and an expert's model ready to be called on it; see `DiffusionGPT.lease`."""
        backend = _local(expert)
        snapshot = self.fetch(expert)
        with (
            self.enter(expert).turn(),
            self.cache.lease(expert, backend, device=self._machine.device, snapshot=snapshot) as loaded,
            backend.opened(loaded, scale=expert.settings.adapter_scale or 1.0) as model,
        ):
            yield model

    def _draw(
        self, backend: Backend, resolved: Resolved, snapshot: Snapshot
    ) -> tuple[Drawing, float, tuple[Recovery, ...]]:
        """Draw, with less and less in the way while memory runs out; also tells when everything was loaded."""
        recovered: list[Recovery] = []
        result = self._attempt(backend, resolved, snapshot)
        for step in self._ladder(resolved.expert):
            if not isinstance(result, OutOfMemoryError):
                break
            recovered.append(Recovery(step=step, error=str(result)))
            log.warning("%s; trying once more, %s", result, step)
            self._free(step)
            result = self._attempt(backend, resolved, snapshot, offload=step == "offloaded")
        if isinstance(result, OutOfMemoryError):
            raise result
        return *result, tuple(recovered)

    def _attempt(
        self, backend: Backend, resolved: Resolved, snapshot: Snapshot, *, offload: bool = False
    ) -> tuple[Drawing, float] | OutOfMemoryError:
        """The pictures, or the error, outside the `except` block whose traceback holds what the failed call held."""
        lease = self.cache.lease(
            resolved.expert,
            backend,
            device=self._machine.device,
            snapshot=snapshot,
            on_progress=self._on_progress,
            offload=offload,
        )
        try:
            with lease as loaded:
                ready = perf_counter()
                return backend.draw(loaded, resolved, on_step=self._on_step, offload=offload), ready
        except OutOfMemoryError as error:
            return error.with_traceback(None)

    def _ladder(self, expert: Expert) -> tuple[RecoveryStep, ...]:
        # an adapter is on modules that stay where they are; on the host there is nowhere else to be
        whole = expert.kind == "checkpoint" and self._machine.device != HOST
        return ("freed", "offloaded") if whole else ("freed",)

    def _free(self, step: RecoveryStep) -> None:
        """Let all that is idle go, also what the queue needs soon: how much a drawing takes is not known."""
        # if room on the device did not help, the host may be what is short
        self.cache.clear(self._machine.device if step == "freed" else None)
        release_cached(self._machine.device)

    def _ask(self, backend: HostedBackend, resolved: Resolved) -> Rendered:
        start = perf_counter()
        drawing = backend.draw(resolved, self._settings, on_step=self._on_step)
        seconds = {"download": 0.0, "queue": 0.0, "load": 0.0, "draw": round(perf_counter() - start, 4)}
        return Rendered(drawing=drawing, weights=None, timings=seconds)

    def _on_step(self, done: int, total: int) -> None:
        if self._on_progress:
            self._on_progress("draw", done, total)

    def _is_ready(self, model: Hashable, device: str) -> bool:
        expert = self._coming[model].expert
        return self.cache.is_loaded(expert.base_expert or expert, device=device)

    def _look_ahead(self, device: str, upcoming: Sequence[Hashable]) -> None:
        if self._settings.prefetch != "off":
            coming = [self._coming[model] for model in upcoming]
            self.cache.look_ahead(device, coming, check=self._machine.check_fits)


def _local(expert: Expert) -> Backend:
    backend = get_backend(expert.backend)
    if backend.hosted:
        raise LoadError(f"{expert.id} draws elsewhere and has nothing to hold here", hint="Draw with it instead.")
    return backend


def _fingerprint(expert: Expert, snapshot: Snapshot) -> str:
    """The fingerprint of the weights, as the record of a picture names them."""
    try:
        return snapshot.fingerprint()
    except OSError as error:
        raise LoadError(f"the files of {expert.id} were removed before it was drawn", hint="Draw again.") from error
