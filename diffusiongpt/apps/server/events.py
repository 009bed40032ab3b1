"""Server-sent events: how far a drawing is, and its pictures, as OpenAI's Images API streams them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from time import monotonic, time
from typing import TYPE_CHECKING, Any

import anyio
from anyio.to_thread import run_sync
from pydantic_core import to_json
from starlette.responses import Response

from diffusiongpt.apps.server.delivery import as_base64
from diffusiongpt.apps.server.failures import error_object, error_response
from diffusiongpt.pictures import bare
from diffusiongpt.safe_text import logger

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from diffusiongpt.apps.server.answers import Answer
    from diffusiongpt.apps.server.jobs import Job
    from diffusiongpt.apps.server.service import Service

PROGRESS = "diffusiongpt.progress"
"""Type of the events in between, which OpenAI's API does not have: most experts show nothing before they are done."""

_LOOK_S = 0.1
"""Seconds between two looks at how far a drawing is."""

_QUIET_S = 15.0
"""Seconds after which a comment is sent, so that no proxy takes the connection for dead."""

log = logger("diffusiongpt.server")


class EventStream(Response):
    """Draws while it answers; a client that hangs up ends the drawing.

    The head of the answer is sent with the first event, so that a request which cannot be drawn at all is answered
    with its status.

    Args:
        service: Draws.
        place: Has the job's place in the queue, and gives it back at the end.
        job: The job.
        work: What to do in a thread.
        kind: What the types of the events begin with: `image_generation`, `image_edit` or `conversation`.
    """

    media_type = "text/event-stream"

    def __init__(self, service: Service, place: ExitStack, job: Job, work: Callable[[], Answer], *, kind: str) -> None:
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._service = service
        self._place = place
        self._job = job
        self._work = work
        self._kind = kind
        self._shown = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Draw and send."""
        with self._place:
            done = anyio.Event()
            outcome: Answer | Exception = RuntimeError("the drawing has no outcome")

            async def draw() -> None:
                nonlocal outcome
                try:
                    outcome = await self._service.follow(self._job, receive, self._work)
                except Exception as error:  # noqa: BLE001  # answered below
                    outcome = error
                done.set()

            async with anyio.create_task_group() as group:
                group.start_soon(draw)
                started = await self._report(send, done)
            await self._finish(scope, receive, send, outcome, started=started)

    async def _report(self, send: Send, done: anyio.Event) -> bool:
        """Send how far the drawing is until it is done; whether anything was sent."""
        last: tuple[str, int, int | None] | None = None
        started, said = False, monotonic()
        while not done.is_set():
            with anyio.move_on_after(_LOOK_S):
                await done.wait()
            now = (self._job.phase, self._job.done, self._job.total)
            if done.is_set() or now[0] == "route":
                continue
            if self._shown < len(self._job.unfinished):
                text = await run_sync(self._next_unfinished)
            elif now != last:
                text = _event(PROGRESS, {"phase": now[0], "done": now[1], "total": now[2]})
            elif monotonic() - said > _QUIET_S:
                text = b": still drawing\n\n"
            else:
                continue
            started = started or await self._start(send)
            await send({"type": "http.response.body", "body": text, "more_body": True})
            last, said = now, monotonic()
        return started

    def _next_unfinished(self) -> bytes:
        at = self._shown
        self._shown += 1
        picture = self._job.unfinished[at]
        facts = {
            "b64_json": as_base64(bare(picture)),
            "partial_image_index": at,
            "created_at": int(time()),
            "size": f"{picture.width}x{picture.height}",
            "background": "auto",
            "output_format": "png",
            "quality": "auto",
        }
        return _event(f"{self._kind}.partial_image", facts)

    async def _finish(
        self, scope: Scope, receive: Receive, send: Send, outcome: Answer | Exception, *, started: bool
    ) -> None:
        """Send the pictures, or what went wrong."""
        if isinstance(outcome, Exception):
            if not started:
                await error_response(outcome)(scope, receive, send)
                return
            status, body, _ = error_object(outcome)
            if status == 500:
                log.error("a streamed drawing failed", exc_info=outcome)
            await self._send_last(send, [_event("error", body)])
            return
        if not started:
            await self._start(send)
        late = [await run_sync(self._next_unfinished) for _ in self._job.unfinished[self._shown :]]
        kind = f"{self._kind}.completed"
        last = (_event(kind, event) for event in outcome.as_events())
        await self._send_last(send, (*late, *last))

    async def _start(self, send: Send) -> bool:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        return True

    async def _send_last(self, send: Send, events: Iterable[bytes]) -> None:
        for event in events:
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def _event(kind: str, content: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), to_json({"type": kind, **content}))
