"""The queue of each device: which request draws next.

It runs nothing. Each requester waits in its own thread for its turn and works there, so that callbacks, Ctrl-C and
exceptions stay with the requester, and a requester that no longer wants a picture just leaves.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache

from diffusiongpt.drawing.fairness import FairOrder, IsReady, Place
from diffusiongpt.errors import LoadError, RequestError
from diffusiongpt.forks import computes, may_compute
from diffusiongpt.safe_text import logger
from diffusiongpt.stopping import check_stop

log = logger("diffusiongpt.drawing.queue")

TICK_S = 0.5
"""Seconds after which a waiting thread looks again: on Windows, Ctrl-C does not end a wait without a limit."""

_MODELS_AHEAD = 9
"""How many models `upcoming` names: the one that draws, and the eight that the cache protects."""

_DRAWINGS_AHEAD = 64
"""How many drawings it looks ahead for them."""


@dataclass(eq=False)
class _Waiter:
    """A thread that waits for one of its tickets, and then holds the turn of it."""

    changed: threading.Condition
    thread: int = field(default_factory=threading.get_ident)
    due: Ticket | None = None


class Ticket(Place):
    """A request in the queue, good for one turn; `Queue.enter` makes it.

    Attributes:
        device: Device that it will be drawn on.
        waiter: The thread that waits for it now; set by the queue.
        gone: Whether its turn has come or it was cancelled; set by the queue.
    """

    def __init__(self, queue: Queue, model: Hashable, device: str, client: Hashable, work: int) -> None:
        super().__init__(model, client, work)
        self.device = device
        self.waiter: _Waiter | None = None
        self.gone = False
        self._queue = queue

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for the device's one compute slot and hold it in the block; however this ends, the ticket is gone.

        Where this thread holds the turn of this very ticket already, through `Queue.next_of`, the block just runs.

        Raises:
            RequestError: If the ticket was cancelled or had its turn, or if this thread holds a turn already.
            LoadError: If the queue is closed.
        """
        if self._queue.holds(self):
            yield
            return
        try:
            with self._queue.next_of((self,)):
                yield
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Leave the queue and wake the thread that waits for this ticket; does nothing once its turn has come."""
        self._queue.cancel((self,))


@dataclass(eq=False)
class _Slot:
    """The compute slot of a device, and the queue for it.

    Attributes:
        order: The queue.
        holder: The thread whose turn it is.
        announced: The upcoming models that `on_change` was last called with.
        announcing: Whether a thread is calling `on_change` now.
    """

    order: FairOrder[Ticket]
    holder: _Waiter | None = None
    announced: tuple[Hashable, ...] = ()
    announcing: bool = False


class Queue:
    """Gives each device to one thread at a time, fairly between clients; thread-safe.

    The order, and how long a ticket may have to wait, are those of `FairOrder`. A ticket has its place from `enter`
    on, but its turn comes only while a thread waits for it: a device never waits for a thread that is busy elsewhere.

    Args:
        is_ready: Whether a model could draw on a device at once. It is asked with the queue's lock held: it must be
            quick, and neither call the queue nor take a lock that others hold while they call the queue.
        on_change: Called with a device and its `upcoming` models when these have changed, outside the lock and by a
            thread that changed them; never twice at a time for one device, and the last call has the latest state.
            That thread waits for it, so it should only take note. Its failures go to the log.
        window: Places among which the order may be changed to save swaps; see `FairOrder`.
        tick_s: See `TICK_S`.
    """

    def __init__(
        self,
        *,
        is_ready: Callable[[Hashable, str], bool] = lambda _model, _device: False,
        on_change: Callable[[str, tuple[Hashable, ...]], None] = lambda _device, _upcoming: None,
        window: int = 8,
        tick_s: float = TICK_S,
    ) -> None:
        self._tick_s = tick_s
        self._is_ready = is_ready
        self._on_change = on_change
        self._window = window
        self._lock = threading.Lock()
        self._slots: dict[str, _Slot] = {}
        self._closed = False
        self._process = os.getpid()

    def enter(self, model: Hashable, device: str, *, client: Hashable | None = None, work: int = 1) -> Ticket:
        """Take a place in the queue of a device; returns immediately.

        Args:
            model: The model that will draw.
            device: The device that it will draw on.
            client: The client that asks, between which a device is shared fairly; the calling thread if absent.
            work: Amount of work, at least 1; twice as much counts like two requests.

        Raises:
            LoadError: If the queue is closed.
        """
        self._check_process()
        computes()
        ticket = Ticket(self, model, device, threading.get_ident() if client is None else client, work)
        with self._lock:
            self._check_open()
            self._slot(device).order.add(ticket)
        try:
            self._announce({device})
        except BaseException:  # Ctrl-C in the callback: no thread will ever hold this ticket
            ticket.cancel()
            raise
        return ticket

    @contextmanager
    def next_of(self, tickets: Collection[Ticket]) -> Iterator[Ticket]:
        """Wait until any of the tickets is due, and hold its turn in the block.

        The others keep their places, whatever ends the wait or the block: cancel those no longer wanted.

        Raises:
            StoppedError: If the request of this thread is to end; see `stopping`.
            RequestError: If none of them waits any more, or if this thread holds a turn already: it would wait for
                itself, and two threads that each hold what the other waits for would wait forever.
            LoadError: If the queue is closed.
        """
        waiter = _Waiter(threading.Condition(self._lock))
        try:
            yield self._wait(waiter, tickets)
        finally:
            self._release(waiter)

    def cancel(self, tickets: Collection[Ticket]) -> None:
        """Remove tickets and wake the threads that wait for them; those whose turn has come stay as they are."""
        with self._lock:
            self._drop(tickets)
        self._announce({ticket.device for ticket in tickets})

    def check_open(self) -> None:
        """Refuse if the queue is closed.

        Raises:
            LoadError: If the queue is closed.
        """
        self._check_process()
        with self._lock:
            self._check_open()

    def _check_process(self) -> None:
        """Refuse in a forked child what would never end: locks, threads and weights are the parent's."""
        if not may_compute():
            raise LoadError(
                "this process was forked from one that had drawn, and torch cannot compute in it",
                hint="Fork before the first drawing, or start processes with the method 'spawn'.",
            )
        if os.getpid() != self._process:
            raise LoadError(
                "this studio was made in another process, which was forked",
                hint="Make a new DiffusionGPT in the child process, or start processes with the method 'spawn'.",
            )

    def give_back(self, ticket: Ticket) -> None:
        """End the turn of a ticket before its block does, if this thread holds it."""
        with self._lock:
            holder = self._slot(ticket.device).holder
        if holder is not None and holder.due is ticket and holder.thread == threading.get_ident():
            self._release(holder)

    def holds(self, ticket: Ticket) -> bool:
        """Whether this thread holds the turn of a ticket."""
        with self._lock:
            holder = self._slot(ticket.device).holder
            return holder is not None and holder.due is ticket and holder.thread == threading.get_ident()

    def upcoming(self, device: str) -> tuple[Hashable, ...]:
        """The next models of a device, each once, in the order they would draw now; first the one that is drawing."""
        with self._lock:
            return self._upcoming(device)

    def close(self) -> None:
        """End all waits and refuse new tickets; turns that are held end by themselves."""
        with self._lock:
            self._closed = True
            devices = set(self._slots)
            for slot in self._slots.values():
                self._drop(slot.order.waiting)
        self._announce(devices)

    def _wait(self, waiter: _Waiter, tickets: Collection[Ticket]) -> Ticket:
        with self._lock:
            self._check_free(waiter.thread)
            mine = [ticket for ticket in tickets if ticket.waiter is None]
            try:
                for ticket in mine:
                    ticket.waiter = waiter
                self._serve({ticket.device for ticket in mine})
                while waiter.due is None:
                    check_stop()
                    self._check_open()
                    _check_waiting(mine)
                    waiter.changed.wait(self._tick_s)
            finally:
                for ticket in mine:
                    ticket.waiter = None
        self._announce({waiter.due.device})
        return waiter.due

    def _release(self, waiter: _Waiter) -> None:
        if waiter.due is None:
            return
        with self._lock:
            slot = self._slots[waiter.due.device]
            if slot.holder is not waiter:
                return  # it was given back
            slot.holder = None
            if not slot.order.waiting:
                slot.order.rest()
            self._serve({waiter.due.device})
        self._announce({waiter.due.device})

    def _serve(self, devices: Iterable[str]) -> None:
        """Give free slots to the next tickets that a thread waits for; needs the lock."""
        for device in devices:
            slot = self._slots[device]
            if slot.holder is None and not self._closed:
                ticket = slot.order.take(_is_waited_for, self._ready(device))
                if ticket is not None and ticket.waiter is not None:
                    ticket.gone = True
                    slot.holder, ticket.waiter.due = ticket.waiter, ticket
                    ticket.waiter.changed.notify()

    def _drop(self, tickets: Iterable[Ticket]) -> None:
        """Take tickets out of the order and wake the threads that wait for them; needs the lock."""
        for ticket in tickets:
            if not ticket.gone:
                ticket.gone = True
                self._slots[ticket.device].order.discard(ticket)
                if ticket.waiter is not None:
                    ticket.waiter.changed.notify()

    def _announce(self, devices: Iterable[str]) -> None:
        """Call `on_change` until it has the latest state, unless another thread is doing so."""
        for device in devices:
            while (upcoming := self._unannounced(device)) is not None:
                try:
                    self._on_change(device, upcoming)
                except Exception:  # of the listener's code; the queue goes on
                    log.exception("on_change failed for the queue of %s", device)
                finally:
                    self._slots[device].announcing = False

    def _unannounced(self, device: str) -> tuple[Hashable, ...] | None:
        with self._lock:
            slot, upcoming = self._slot(device), self._upcoming(device)
            if slot.announcing or slot.announced == upcoming:
                return None
            slot.announced, slot.announcing = upcoming, True
            return upcoming

    def _upcoming(self, device: str) -> tuple[Hashable, ...]:
        slot = self._slot(device)
        drawing = slot.holder and slot.holder.due
        models = dict.fromkeys([drawing.model] if drawing else [])
        for ticket in slot.order.foresee(self._ready(device), _DRAWINGS_AHEAD):
            if len(models) == _MODELS_AHEAD:
                break
            models[ticket.model] = None
        return tuple(models)

    def _ready(self, device: str) -> IsReady:
        """`is_ready` for one decision: asked once about each model, and one that fails is not ready."""

        @cache
        def ready(model: Hashable) -> bool:
            try:
                return self._is_ready(model, device)
            except Exception:  # of the code that was asked; the queue goes on
                log.exception("could not find out whether %s is ready on %s", model, device)
                return False

        return ready

    def _slot(self, device: str) -> _Slot:
        return self._slots.setdefault(device, _Slot(FairOrder(self._window)))

    def _check_open(self) -> None:
        if self._closed:
            raise LoadError("the queue is closed", hint="Make a new DiffusionGPT, or do not close this one yet.")

    def _check_free(self, thread: int) -> None:
        for device, slot in self._slots.items():
            if slot.holder is not None and slot.holder.thread == thread:
                raise RequestError(
                    f"this thread is already drawing on {device}",
                    hint="Ask for the next picture when this one is done, not in one of its callbacks.",
                )


def _is_waited_for(ticket: Ticket) -> bool:
    return ticket.waiter is not None and ticket.waiter.due is None


def _check_waiting(tickets: Collection[Ticket]) -> None:
    if all(ticket.gone for ticket in tickets):
        raise RequestError(
            "the request left the queue before its turn",
            hint="It was cancelled or has had its turn; send the request again.",
        )
