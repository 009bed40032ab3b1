"""One exact call on this machine: pull the files, wait for the device, lease, draw, and recover if memory runs out."""

from __future__ import annotations

import gc
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

from diffusiongpt.backends import Backend, get_backend
from diffusiongpt.backends.diffusers import type_of_bits
from diffusiongpt.cache import Coming, ModelCache
from diffusiongpt.drawing.ladder import Ladders, Rung
from diffusiongpt.drawing.queue import Queue, Ticket
from diffusiongpt.errors import DiffusionGPTError, LoadError, NeedsExtraError, OutOfMemoryError
from diffusiongpt.flow import Call, Drawing, Placement, Recovery
from diffusiongpt.hub import Agree, key_of
from diffusiongpt.requester import OnProgress, client_of_thread, report, reporting
from diffusiongpt.safe_text import logger
from diffusiongpt.stopping import check_stop
from diffusiongpt.weights import HOST, release_cached, watch_peak

if TYPE_CHECKING:
    from diffusiongpt.drawing.machine import Machine
    from diffusiongpt.hub import Snapshot
    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo import Expert


log = logger("diffusiongpt")


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
        self._ladders = Ladders()

    def enter(self, expert: Expert, *, others: Sequence[Expert] = (), client: Hashable | None = None) -> Ticket:
        """A place in the queue for an expert that draws here.

        Args:
            expert: The expert that will draw.
            others: Experts that may stand in; they are pulled meanwhile if the settings say so.
            client: The client that asks; by default that of the calling thread, else the thread itself.

        Raises:
            LoadError: If the queue is closed.
        """
        ground = expert.checkpoint
        places = tuple((part.folder, key_of(part)) for part in ground.parts)
        model = (ground.backend, places, ground.settings.dtype)
        spare = others if self._settings.prefetch == "download" else ()
        before = (
            {one.id: (one, backend) for one, backend in self._coming[model].others} if model in self._coming else {}
        )
        stand_ins = {**{one.id: (one, _local(one)) for one in spare}, **before}
        self._coming[model] = Coming(expert, _local(expert), tuple(stand_ins.values()))
        return self.queue.enter(model, self._machine.device, client=client_of_thread() if client is None else client)

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
            on_progress=reporting(self._on_progress),
        )

    def run(self, call: Call, *, ticket: Ticket | None = None) -> Drawing:
        """Draw on this machine; see `Executor.run`."""
        backend = _local(call.expert)
        check_stop()
        start = perf_counter()
        snapshot = self.fetch(call.expert)
        fetched = perf_counter()
        report("queue", 0, None)
        with (ticket or self.enter(call.expert)).turn():
            waited = perf_counter()
            report("load", 0, None)
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
            backend.opened(loaded, expert=expert) as model,
        ):
            yield model

    def _draw(self, backend: Backend, call: Call, snapshot: Snapshot) -> tuple[Drawing, float]:
        """Draw, freeing more and more while memory runs out; also returns when everything was loaded."""
        placements = call.placements or self._machine.placements(call.expert) or (self._machine.unplanned,)
        recovered: list[Recovery] = []
        failed: DiffusionGPTError | None = None
        for rung in self._ladders.of(call, placements):
            if failed is not None and rung.step is not None:
                recovered.append(Recovery(step=rung.step, error=str(failed)))
                log.warning("%s; trying once more, %s", failed, rung.step)
                self._free(rung, call.expert)
            result = self._attempt(backend, call, snapshot, rung.placement)
            if not isinstance(result, DiffusionGPTError):
                self._ladders.remember(call, rung)
                drawing, loaded = result
                steps = (*recovered, *drawing.recovered)
                return replace(drawing, recovered=steps, placement=rung.placement), loaded
            failed = result
        assert failed is not None  # noqa: S101  # a ladder has a rung
        raise failed

    def _attempt(
        self, backend: Backend, call: Call, snapshot: Snapshot, placement: Placement
    ) -> tuple[Drawing, float] | DiffusionGPTError:
        """The pictures, or the error without its traceback, which would keep alive what the failed call held."""
        stream = placement.kind == "stream"
        offload = stream or placement.kind in ("offload", "quantised")
        # backends that know nothing of it need not take it
        more = {"stream": True} if stream else {}
        device = HOST if placement.kind == "cpu" else self._machine.device
        lease = self.cache.lease(
            _in_type(call.expert, placement),
            backend,
            device=device,
            snapshot=snapshot,
            on_progress=reporting(self._on_progress),
            offload=offload,
            stream=stream,
        )
        try:
            with lease as loaded:
                ready = perf_counter()
                most = watch_peak(device)
                drawing = backend.draw(
                    loaded, call, on_step=self._on_step, offload=offload, tile=placement.tiled, **more
                )
                seconds = perf_counter() - ready
                self._machine.measure(call, drawing, placement, seconds=seconds, work_bytes=most())
                return drawing, ready
        except OutOfMemoryError as error:
            return error.with_traceback(None)
        except NeedsExtraError as error:
            # the library for weights of few bits is there and does not work
            if placement.kind != "quantised":
                raise
            return error.with_traceback(None)

    def _free(self, rung: Rung, expert: Expert) -> None:
        """Free all that is idle, also what the queue needs soon: how much memory a drawing takes is not known."""
        device = self._machine.device
        self.cache.clear(device)
        # if neither room on the device nor tiles helped, the host may be what is short
        if rung.placement.kind == "cpu":
            self.cache.clear()
        elif rung.step not in ("freed", "tiled"):
            self.cache.clear(HOST, spare=(expert, device))
        gc.collect()
        release_cached(device)

    def _on_step(self, done: int, total: int) -> None:
        if done < total:  # a picture that is done is worth keeping
            check_stop()
        reporting(self._on_progress)("draw", done, total)

    def _is_ready(self, model: Hashable, device: str) -> bool:
        expert = self._coming[model].expert
        return self.cache.is_loaded(expert.base_expert or expert, device=device)

    def _look_ahead(self, device: str, upcoming: Sequence[Hashable]) -> None:
        if self._settings.prefetch != "off":
            coming = [self._coming[model] for model in upcoming]
            if len(coming) > 1 and device != HOST:
                coming[0] = replace(coming[0], work_bytes=self._machine.work_bytes(coming[0].expert))
            self.cache.look_ahead(device, coming, check=self._machine.check_fits)


def _in_type(expert: Expert, placement: Placement) -> Expert:
    """The expert, with weights of fewer bits if it is placed so."""
    if placement.kind != "quantised":
        return expert
    return expert.model_copy(
        update={"settings": expert.settings.model_copy(update={"dtype": type_of_bits(placement.precision)})}
    )


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
