"""How what was said reaches a vote store in a server: at once while it answers, else by way of the outbox."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from threading import Condition, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any

from diffusiongpt.errors import VoteError, VotesUnreachableError
from diffusiongpt.safe_text import logger
from diffusiongpt.votes.outbox import Message
from diffusiongpt.votes.vote import Rating, Undo, Vote, now

if TYPE_CHECKING:
    from diffusiongpt.votes.database import Database
    from diffusiongpt.votes.outbox import Outbox

PATIENCE_S = 2.0
"""Seconds in which a server has to take a vote before it waits in the outbox. A stated bound: one across the world
takes less than one. Whoever votes waits so long at most after the server has last answered."""

RETRY_S = 1.0
"""Seconds between two tries to deliver what waits."""

LOOK_S = 1.0
"""Seconds between two looks whether another process has left something in the outbox."""

LINGER_S = 0.5
"""Seconds for which the thread waits for more before it ends."""

LEAVE_S = 2.0
"""Seconds for which closing a store waits for its thread, which a server that hangs may hold up."""

BATCH = 200
"""Messages that are delivered in one transaction, while which no other process can write."""

_log = logger(__name__)


@dataclass(frozen=True, kw_only=True)
class QueueState:
    """What waits for the server of a vote store, on this machine.

    Attributes:
        path: File that it waits in.
        waiting: Votes, ratings and undoings that wait.
        nbytes: Their bytes.
        oldest: When the first of them was said, ISO 8601; empty if nothing waits.
        refused: Those that the server has refused for what they say, and which are kept in the file.
        refusal: Why the last of those was refused.
        delivered: Those that this process has delivered.
        problem: Why nothing can be delivered, as this process knows; empty if it can, or has not been tried.
    """

    path: str
    waiting: int = 0
    nbytes: int = 0
    oldest: str = ""
    refused: int = 0
    refusal: str = ""
    delivered: int = 0
    problem: str = ""


class _Job:
    """One thing to be done at once; all but the first are set by the thread that does it."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work
        self.done = False
        self.result: Any = None
        self.error: Exception | None = None


class Delivery:
    """Records what is said in a server, and keeps in the outbox what that cannot take now. Threads may share one.

    A thread of its own asks the server, because one that hangs may take as long as it likes. Whoever votes waits for
    `PATIENCE_S` at most, or behind others for as long as it answers these; while anything waits in the outbox, what
    comes is put behind it, so that all arrives in order. Whichever process comes first delivers it. Messages leave the
    outbox after the server has recorded them, and are recorded once, by their ids, also if a process is killed in
    between.

    Args:
        database: The vote store.
        outbox: Where messages wait.

    Attributes:
        outbox: The same.
        delivered: Messages that have waited and that this process has delivered.
    """

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self.outbox = outbox
        self._start()

    def _start(self) -> None:
        """Without a thread and with locks that nothing holds: at first, and in a forked child."""
        self._process = os.getpid()
        self._changed = Condition()
        self._jobs: deque[_Job] = deque()
        self._thread: Thread | None = None
        self._waits = self._woken = self._hurry = self._closed = False
        self._asked = False
        self._failures = 0
        self._problem: VoteError | None = None
        self.delivered = 0
        self._looked = self._answered = 0.0

    def insert(self, entry: Vote | Rating) -> None:
        """Record a vote or a rating, or keep it.

        Raises:
            VoteError: If the store refuses it, or it can be neither recorded nor kept.
        """
        try:
            self._attempt(partial(self._database.insert, entry))
        except VotesUnreachableError as error:
            self._keep(Message.of(entry), error)

    def retract(self, entry_id: str) -> Vote | Rating | Undo:
        """Retract a vote or a rating, or keep the retraction.

        Raises:
            VoteError: If there is no such vote, or it was retracted before.
        """
        at = now()
        try:
            done: Vote | Rating = self._attempt(partial(self._database.retract, entry_id, at))
        except VotesUnreachableError as error:
            known = self.outbox.find(entry_id)
            voter = known.voter if known is not None else ""
            self._keep(Message(kind="retract", id=entry_id, voter=voter, time=at), error)
            return known or Undo(entry=entry_id, time=at)
        return done

    def undo(self, voter: str) -> Vote | Rating | Undo:
        """Retract the last vote or rating of a voter, or keep the retraction.

        Raises:
            VoteError: If the voter has none.
        """
        at = now()
        try:
            done: Vote | Rating = self._attempt(partial(self._database.undo, voter, at))
        except VotesUnreachableError as error:
            last = self.outbox.last_of(voter)
            if last is not None:
                self._keep(Message(kind="retract", id=last.id, voter=voter, time=at), error)
                return last
            self._keep(Message(kind="undo", voter=voter, time=at), error)
            return Undo(voter=voter, time=at)
        return done

    def keeps(self, entry_id: str) -> bool:
        """Whether an entry or its retraction waits; what cannot be read keeps nothing, see `_holds_any`."""
        try:
            return self.outbox.holds(entry_id) or self.outbox.retracts(entry_id)
        except VoteError:
            return False

    def look(self) -> None:
        """Deliver what another process may have left, in a thread; cheap, so that it may be called often."""
        self._renew()
        if monotonic() - self._looked < LOOK_S:
            return
        self._looked = monotonic()
        if self._holds_any():
            self._wake()

    def flush(self, seconds: float) -> bool:
        """Wait until nothing waits any more, a try to deliver it has failed, or the time is over; whether all is."""
        if not self._holds_any():
            return True
        until = monotonic() + seconds
        self._wake(hurry=True)
        with self._changed:
            failures = self._failures
            self._changed.wait_for(lambda: not self._waits or self._failures > failures, until - monotonic())
            return not self._waits

    def state(self) -> QueueState:
        """What waits, and what became of the rest.

        Raises:
            VoteError: If the outbox cannot be read.
        """
        held = self.outbox.held()
        problem = "" if self._problem is None else str(self._problem)
        return QueueState(
            path=str(self.outbox.path),
            waiting=held.waiting,
            nbytes=held.nbytes,
            oldest=held.oldest,
            refused=held.refused,
            refusal=held.reason,
            delivered=self.delivered,
            problem=problem,
        )

    def close(self) -> None:
        """Deliver nothing more; what waits is for the next process."""
        with self._changed:
            self._closed, thread = True, self._thread
            self._changed.notify_all()
        if thread is not None and self._process == os.getpid():
            # it returns its connection, unless its server hangs
            thread.join(LEAVE_S)

    # What whoever votes does: have it done, or put it into the outbox

    def _attempt(self, work: Callable[[], Any]) -> Any:
        """Have something done by the server.

        Raises:
            VotesUnreachableError: If it does not answer in time, or something waits already.
            VoteError: If it refuses that, or what waits.
        """
        self._renew()
        if self._holds_any() and not self._was_delivered():
            problem = self._problem
            if problem is not None and not problem.retryable:
                raise problem
            raise VotesUnreachableError(f"votes wait for {self._database.name}" if problem is None else str(problem))
        job, begun = _Job(work), monotonic()
        with self._changed:
            self._jobs.append(job)
            self._awake()
            # whoever comes while others vote waits for as long as the server answers them
            while not job.done and (left := max(begun, self._answered) + PATIENCE_S - monotonic()) > 0:
                self._changed.wait(left)
            if not job.done:
                if job in self._jobs:
                    self._jobs.remove(job)
                raise VotesUnreachableError(f"no answer from {self._database.name} within {PATIENCE_S:g} s")
        if job.error is not None:
            raise job.error
        return job.result

    def _was_delivered(self) -> bool:
        """Have what waits delivered; whether that was done. Only the first try of a process is waited for."""
        first, self._asked = not self._asked, True
        self._wake(hurry=first)
        return first and self.flush(PATIENCE_S)

    def _keep(self, message: Message, because: VotesUnreachableError) -> None:
        try:
            self.outbox.put(message)
        except VoteError as error:
            if self.keeps(message.id):
                raise  # it is there already
            raise VotesUnreachableError(f"{because}; and {error}", hint=error.hint) from error
        self._asked = True
        if not self._waits:
            _log.warning("%s; votes wait in %s until they can be sent", because, self.outbox.path)
        self._wake()

    def _holds_any(self) -> bool:
        """Whether anything waits. One that cannot be read holds nothing: votes that a server takes need none."""
        try:
            return self.outbox.holds_any()
        except VoteError as error:
            _log.warning("%s", error)
            return False

    # The thread: asks the server

    def _renew(self) -> None:
        if self._process != os.getpid():
            self._start()

    def _wake(self, *, hurry: bool = False) -> None:
        with self._changed:
            self._waits = self._woken = True
            self._hurry = self._hurry or hurry
            self._awake()

    def _awake(self) -> None:
        """Have the thread look again; with the lock held."""
        self._closed = False
        if self._thread is None or not self._thread.is_alive():
            # a daemon: a process must be able to end while a server hangs
            self._thread = Thread(target=self._run, name="diffusiongpt-delivery", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _run(self) -> None:
        pause = 0.0
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._jobs or self._closed or self._hurry, pause if self._waits else LINGER_S
                )
                if self._closed or not (self._jobs or self._waits):
                    self._thread = None
                    return
                job = self._jobs.popleft() if self._jobs else None
                self._hurry = False
            if job is not None:
                self._do(job)
            else:
                pause = 0.0 if self._deliver() else RETRY_S

    def _do(self, job: _Job) -> None:
        try:
            job.result = job.work()
        except Exception as error:  # noqa: BLE001 - it is raised where the job came from
            job.error = error
        with self._changed:
            job.done = True
            if not isinstance(job.error, VotesUnreachableError):
                self._answered = monotonic()
            self._changed.notify_all()

    def _deliver(self) -> bool:
        """Try to deliver what waits longest; whether that worked."""
        problem: VoteError | None = None
        waits = True
        with self._changed:
            self._woken = False
        try:
            outcomes = self._database.deliver(partial(self.outbox.batch, BATCH))
            self.delivered += self.outbox.settle(outcomes)
            for _, refused in outcomes:
                if refused is not None:
                    _log.warning("a vote that waited was refused, and is kept in %s: %s", self.outbox.path, refused)
            waits = self.outbox.holds_any()
        except Exception as error:  # noqa: BLE001 - of whatever kind, votes go on waiting, and the next try may work
            problem = error if isinstance(error, VoteError) else VoteError(f"{type(error).__name__}: {error}")
            if not problem.retryable and (self._problem is None or self._problem.retryable):
                _log.warning("votes in %s cannot be delivered: %s", self.outbox.path, error)
        with self._changed:
            # what was put in after the last look waits as well
            self._problem, self._waits = problem, waits or self._woken
            self._failures += problem is not None
            self._changed.notify_all()
        return problem is None
