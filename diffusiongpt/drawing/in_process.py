"""One exact call on this machine: pull the files, wait for the device, lease, draw, and recover if memory runs out."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

from diffusiongpt.backends import Backend, get_backend
from diffusiongpt.cache import Coming, ModelCache
from diffusiongpt.drawing.executor import OnProgress
from diffusiongpt.drawing.queue import Queue, Ticket
from diffusiongpt.errors import LoadError, OutOfMemoryError
from diffusiongpt.flow import Call, Drawing, Placement, PlacementKind, Recovery, RecoveryStep
from diffusiongpt.hub import Agree
from diffusiongpt.safe_text import logger
from diffusiongpt.stopping import check_stop
from diffusiongpt.weights import HOST, release_cached

if TYPE_CHECKING:
    from diffusiongpt.drawing.machine import Machine
    from diffusiongpt.hub import Snapshot
    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo import Expert


log = logger("diffusiongpt")


_STEPS: Mapping[PlacementKind, RecoveryStep] = {"offload": "offloaded", "cpu": "cpu"}
"""What changing to a placement is called where memory ran out."""


class LocalExecutor:
    """Draws, one at a time on each device, while the cache brings what the queue needs next; thread-safe.

    Args:
        cache: Source of the experts.
        machine: Knows the device and what fits on it.
        settings: Whether to look ahead.
        agree: Asked about a pull above `max_download_gb`.
        on_progress: Called with the progress of a download, a load or a drawing.
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
            expert: The expert that will draw.
            others: Experts that may stand in; they are pulled meanwhile if the settings say so.
            client: The client that asks; the calling thread if absent.

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

    def fetch(self, expert: Expert, *, fitting: bool = True) -> Snapshot:
        """The files of an expert on disk, pulled if need be.

        Args:
            expert: The expert to find or pull.
            fitting: Whether to refuse what could not draw in the memory of this machine.

        Raises:
            PullError: If they could not be pulled.
            OutOfMemoryError: If they turn out not to fit here, before they are pulled.
        """
        return self.cache.fetch(
            expert,
            _local(expert),
            check=self._machine.check_fits if fitting else None,
            agree=self._agree,
            on_progress=self._on_progress,
        )

    def run(self, call: Call, *, ticket: Ticket | None = None) -> Drawing:
        """Draw on this machine; see `Executor.run`."""
        backend = _local(call.expert)
        check_stop()
        start = perf_counter()
        snapshot = self.fetch(call.expert)
        fetched = perf_counter()
        with (ticket or self.enter(call.expert)).turn():
            waited = perf_counter()
            weights = _fingerprint(call.expert, snapshot)
            if call.expected_weights not in (None, weights):
                raise LoadError(
                    f"{call.expert.id} is not the checkpoint that the picture was drawn with",
                    hint="Bring the old files back, or draw the prompt again with the checkpoint that is there now.",
                )
            drawing, loaded = self._draw(backend, call, snapshot)
        seconds = {
            "download": fetched - start,
            "queue": waited - fetched,
            "load": loaded - waited,
            "draw": perf_counter() - loaded,
        }
        timings = {name: round(value, 4) for name, value in seconds.items()}
        return replace(drawing, weights=weights, timings=timings)

    @contextmanager
    def lease(self, expert: Expert) -> Iterator[Any]:
        """Hold the device, with an expert's model ready to be called on it; see `DiffusionGPT.lease`."""
        backend = _local(expert)
        snapshot = self.fetch(expert)
        with (
            self.enter(expert).turn(),
            self.cache.lease(expert, backend, device=self._machine.device, snapshot=snapshot) as loaded,
            backend.opened(loaded, scale=expert.settings.adapter_scale or 1.0) as model,
        ):
            yield model

    def _draw(self, backend: Backend, call: Call, snapshot: Snapshot) -> tuple[Drawing, float]:
        """Draw, freeing more and more while memory runs out; also returns when everything was loaded."""
        recovered: list[Recovery] = []
        first, *others = call.placements or self._machine.placements(call.expert) or (self._machine.unplanned,)
        result = self._attempt(backend, call, snapshot, first)
        ladder: list[tuple[RecoveryStep, Placement]] = [("freed", first)]
        if self._machine.device != HOST and not first.tiled:
            ladder.append(("tiled", first.model_copy(update={"tiled": True})))
        tiled = (one.model_copy(update={"tiled": one.kind != "cpu"}) for one in others)
        ladder += [(_STEPS[one.kind], one) for one in tiled if one.kind in _STEPS]
        for step, placement in ladder:
            if not isinstance(result, OutOfMemoryError):
                break
            recovered.append(Recovery(step=step, error=str(result)))
            log.warning("%s; trying once more, %s", result, step)
            self._free(step)
            result = self._attempt(backend, call, snapshot, placement)
        if isinstance(result, OutOfMemoryError):
            raise result
        drawing, loaded = result
        used = ladder[len(recovered) - 1][1] if recovered else first
        return replace(drawing, recovered=tuple(recovered), placement=used), loaded

    def _attempt(
        self, backend: Backend, call: Call, snapshot: Snapshot, placement: Placement
    ) -> tuple[Drawing, float] | OutOfMemoryError:
        """The pictures, or the error without its traceback, which would keep alive what the failed call held."""
        offload = placement.kind == "offload"
        lease = self.cache.lease(
            call.expert,
            backend,
            device=HOST if placement.kind == "cpu" else self._machine.device,
            snapshot=snapshot,
            on_progress=self._on_progress,
            offload=offload,
        )
        try:
            with lease as loaded:
                ready = perf_counter()
                return backend.draw(loaded, call, on_step=self._on_step, offload=offload, tile=placement.tiled), ready
        except OutOfMemoryError as error:
            return error.with_traceback(None)

    def _free(self, step: RecoveryStep) -> None:
        """Free all that is idle, also what the queue needs soon: how much memory a drawing takes is not known."""
        # if neither room on the device nor tiles helped, the host may be what is short
        self.cache.clear(None if step in ("offloaded", "cpu") else self._machine.device)
        release_cached(self._machine.device)

    def _on_step(self, done: int, total: int) -> None:
        if done < total:  # a picture that is done is worth keeping
            check_stop()
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
        raise LoadError(f"{expert.id} is hosted and has nothing to hold here", hint="Draw with it instead.")
    return backend


def _fingerprint(expert: Expert, snapshot: Snapshot) -> str:
    """The fingerprint of the weights, as the record of a picture names them."""
    try:
        return snapshot.fingerprint()
    except OSError as error:
        raise LoadError(f"the files of {expert.id} were removed before it was drawn", hint="Draw again.") from error
