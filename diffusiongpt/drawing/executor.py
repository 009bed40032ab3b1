"""The seam of drawing: a call goes in, a drawing comes out, wherever it is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from threading import Event
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from diffusiongpt.backends import HostedBackend, OnStep, get_backend
from diffusiongpt.drawing.checked import checked_one, pictures_of, together
from diffusiongpt.errors import DiffusionGPTError, DrawError
from diffusiongpt.requester import OnProgress, reporting
from diffusiongpt.stopping import check_stop, stoppable

if TYPE_CHECKING:
    from diffusiongpt.drawing.queue import Ticket
    from diffusiongpt.drawing.spending import Spending
    from diffusiongpt.flow import Call, Drawing
    from diffusiongpt.settings import Memory


class Executor(Protocol):
    """A place where calls are carried out: this process, a service, or another machine."""

    def run(self, call: Call, *, ticket: Ticket | None = None) -> Drawing:
        """Draw one picture for each seed of a call; blocks until all of them are drawn.

        Args:
            call: The exact call.
            ticket: Its place in the queue of this machine, if it has one already.

        Returns:
            The pictures in the order of the seeds, before they are brought to `call.size`, with the parameters that
            were really used and the seconds that each phase took.

        Raises:
            PullError: If the expert's files could not be pulled.
            LoadError: If the expert could not be loaded, or is not the checkpoint that the call expects; its
                `OutOfMemoryError` if every placement ran out of memory.
            DrawError: If drawing failed; its `NeedsKeyError`, `ServiceError`, `ContentRefusedError` and
                `SpendLimitError` are those of hosted experts.
            ContentPolicyError: If the pipeline's own safety checker blanked a picture.
            StoppedError: If the request was cancelled, or its time was up.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Replica:
    """One of the processes of a fleet that draw, as it last reported.

    Attributes:
        name: Its name in the fleet.
        kind: Kind of replica; empty where all are alike.
        node: Host that it runs on.
        pid: Its process there.
        device: Its device.
        device_bytes: Memory of that; `None` if not known.
        queue_s: Expected seconds until a request that comes now would begin to draw, if its model were there.
        requests: Requests that wait or draw there.
        ended: Requests that have ended there, drawn or not.
        loaded: Ids of the experts on its device.
        zoo_version: Version of the zoo that it was started with.
    """

    name: str
    kind: str = ""
    node: str = ""
    pid: int = 0
    device: str = ""
    device_bytes: float | None = None
    queue_s: float = 0.0
    requests: int = 0
    ended: int = 0
    loaded: tuple[str, ...] = ()
    zoo_version: str = ""


@runtime_checkable
class FleetExecutor(Executor, Protocol):
    """An executor whose calls are carried out by replicas.

    Attributes:
        kinds: Kinds of replicas by name, with the memory to plan for; empty where all are alike.
    """

    kinds: Mapping[str, Memory | None]

    def replicas(self) -> Sequence[Replica]:
        """The replicas that there are now."""
        ...


class HostedExecutor:
    """Has calls carried out by services within the user's spend limits; nothing is pulled, loaded or queued here.

    Args:
        spending: The spend limits; its settings have the keys and addresses of the services.
        on_progress: Called after each picture.
    """

    def __init__(self, spending: Spending, on_progress: OnProgress | None = None) -> None:
        self._spending = spending
        self._on_progress = on_progress
        self._closed = Event()

    def close(self) -> None:
        """End all waits between two attempts, and refuse new calls; a request that was sent ends by itself."""
        self._closed.set()

    def run(self, call: Call, *, ticket: Ticket | None = None) -> Drawing:
        """See `Executor.run`."""
        del ticket  # a service has a queue of its own
        backend = get_backend(call.expert.backend)
        if not backend.hosted:
            raise DrawError(f"{call.expert.id} is not a hosted expert", hint="Draw with it on this machine.")
        with stoppable(left=self._closed):
            check_stop()
            return self._run(call, backend)

    def _run(self, call: Call, backend: HostedBackend) -> Drawing:
        start = perf_counter()
        metered = replace(call, meter=call.meter or self._spending.run().meter(call.expert))
        if getattr(backend, "metered", False):
            drawing = pictures_of(call, self._guarded(backend, metered, _Steps(self._report)))
        else:
            drawing = self._one_by_one(backend, metered)
        seconds = {"download": 0.0, "queue": 0.0, "load": 0.0, "draw": round(perf_counter() - start, 4)}
        return replace(drawing, timings=seconds)

    def _one_by_one(self, backend: HostedBackend, call: Call) -> Drawing:
        """Have one picture drawn at a time, each within the limits; those that are there are kept if one fails."""
        drawn: list[Drawing] = []
        total = len(call.seeds)
        for done, seed in enumerate(call.seeds):
            steps = _Steps(partial(self._report_picture, done, total))
            try:
                assert call.meter is not None  # noqa: S101  # `run` has set it
                with call.meter.paying(1):
                    drawn.append(checked_one(call, seed, self._guarded(backend, replace(call, seeds=(seed,)), steps)))
            except DrawError as error:
                if not drawn:
                    raise
                return together(drawn, call, error)
            self._report(done + 1, total)
        return together(drawn, call, None)

    def _guarded(self, backend: HostedBackend, call: Call, steps: _Steps) -> Drawing:
        """What a backend draws; whatever the code of a plugin raises is an error of ours."""
        callback = call.arguments.get("callback_on_step_end")
        if callback is not None:
            call = replace(call, arguments={**call.arguments, "callback_on_step_end": steps.keeping(callback)})
        try:
            return backend.draw(call, self._spending.settings, on_step=steps)
        except DiffusionGPTError:
            raise
        except Exception as error:  # the backend is the code of another package, which may raise anything
            if error is steps.raised:
                raise
            problem = error
        raise DrawError(
            f"the backend {call.expert.backend!r} failed while drawing with {call.expert.id}: "
            f"{type(problem).__name__}: {problem}",
            hint="Report it to the package that offers this backend, or choose another expert.",
        ) from problem

    def _report_picture(self, done: int, total: int, *_: int) -> None:
        """Within one picture of several, its own steps say nothing of the whole."""
        if total == 1:
            self._report(done, total)

    def _report(self, done: int, total: int) -> None:
        if done < total:
            check_stop()
        reporting(self._on_progress)("draw", done, total)


class _Steps:
    """Passes reports on, and keeps what the caller's own callbacks raised, which has to reach the caller unchanged."""

    def __init__(self, report: OnStep) -> None:
        self._report = report
        self.raised: Exception | None = None

    def __call__(self, done: int, total: int) -> None:
        try:
            self._report(done, total)
        except Exception as error:  # of whatever kind, it is raised on
            self.raised = error
            raise

    def keeping(self, callback: Callable[..., Any]) -> Callable[..., Any]:
        """A callback of the caller whose errors are kept too."""

        def kept(*given: Any) -> Any:
            try:
                return callback(*given)
            except Exception as error:  # as above
                self.raised = error
                raise

        return kept
