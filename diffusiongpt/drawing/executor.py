"""The seam of drawing: a call goes in, a drawing comes out, wherever it is made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

from diffusiongpt.backends import get_backend
from diffusiongpt.errors import DrawError
from diffusiongpt.stopping import check_stop

if TYPE_CHECKING:
    from diffusiongpt.drawing.queue import Ticket
    from diffusiongpt.flow import Call, Drawing
    from diffusiongpt.settings import Settings

OnProgress = Callable[[str, int, int | None], None]
"""Called with the phase (`"download"`, `"load"` or `"draw"`), how much is done, and how much there is, if known."""


class Executor(Protocol):
    """A place where calls are carried out: this process, a service, or another machine."""

    def run(self, call: Call, *, ticket: Ticket | None = None) -> Drawing:
        """Draw one picture for each seed of a call.

        Args:
            call: The exact call.
            ticket: Its place in the queue of this machine, if it has one already.

        Raises:
            PullError: If the expert's files could not be pulled.
            LoadError: If the expert could not be loaded, or is not the checkpoint that the call expects.
            DrawError: If drawing failed.
        """
        ...


class HostedExecutor:
    """Has calls carried out by services; nothing is pulled, loaded or queued here.

    Args:
        settings: Keys and addresses of the services.
        on_progress: Called after each picture.
    """

    def __init__(self, settings: Settings, on_progress: OnProgress | None = None) -> None:
        self._settings = settings
        self._on_progress = on_progress

    def run(self, call: Call, *, ticket: Ticket | None = None) -> Drawing:
        """See `Executor.run`."""
        del ticket  # a service has a queue of its own
        backend = get_backend(call.expert.backend)
        if not backend.hosted:
            raise DrawError(f"{call.expert.id} is not a hosted expert", hint="Draw with it on this machine.")
        check_stop()
        start = perf_counter()
        drawing = backend.draw(call, self._settings, on_step=self._report)
        seconds = {"download": 0.0, "queue": 0.0, "load": 0.0, "draw": round(perf_counter() - start, 4)}
        return replace(drawing, timings=seconds)

    def _report(self, done: int, total: int) -> None:
        if done < total:
            check_stop()
        if self._on_progress:
            self._on_progress("draw", done, total)
