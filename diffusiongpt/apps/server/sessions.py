"""Conversations that the server keeps between their turns, in bounds: how many, whose, how large, and for how long."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING

from anyio import sleep

from diffusiongpt.apps.server.failures import RefusedError

if TYPE_CHECKING:
    from diffusiongpt.conversation import Conversation
    from diffusiongpt.pictures import Generation

MOST_SESSIONS = 200
MOST_OF_CLIENT = 20
MOST_TURNS = 100
"""Conversations of all, and of one client, and turns of one conversation. Guards against abuse; none is measured."""


LOOK_S = 30.0
"""Seconds between two looks at whose time is up."""


@dataclass(eq=False)
class Session:
    """One conversation of one client.

    Attributes:
        client: Whose it is.
        talk: The conversation.
        turning: Held while a turn is drawn or taken back.
        until: When it is forgotten unless it goes on, on the monotonic clock.
        nbytes: Bytes of its pictures in memory.
    """

    client: str
    talk: Conversation
    turning: threading.Lock = field(default_factory=threading.Lock)
    until: float = 0.0
    nbytes: int = 0


class Sessions:
    """The conversations of a server; thread-safe. The ones that were quiet for longest go first.

    Args:
        keep_s: Seconds for which one is kept after its last turn.
        keep_bytes: Most bytes of pictures of all of them.
    """

    def __init__(self, keep_s: float, keep_bytes: int) -> None:
        self._keep_s = keep_s
        self._keep_bytes = keep_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Session] = OrderedDict()

    @contextmanager
    def begin(self, client: str, talk: Conversation) -> Iterator[str]:
        """Keep a new conversation if the block, which draws its first turn, succeeds; gives its id."""
        name = secrets.token_urlsafe(12)
        yield name
        session = Session(client, talk)
        with self._lock:
            self._kept[name] = session
            self._touch(name, session)

    @contextmanager
    def go_on(self, client: str, name: str) -> Iterator[Conversation]:
        """A conversation, for one more turn or one less; no other request has it meanwhile.

        Raises:
            RefusedError: If the client has no such conversation, or it is in use.
        """
        with self._lock:
            session = self._find(client, name)
            if not session.turning.acquire(blocking=False):
                raise RefusedError(
                    409, "this conversation is drawing already. Wait for its answer.", code="conversation_busy"
                )
        try:
            yield session.talk
        finally:
            with self._lock:
                session.turning.release()
                if name in self._kept:
                    self._touch(name, session)

    def check_room(self, talk: Conversation) -> None:
        """Refuse a further turn of a conversation that is as large as one may be.

        Raises:
            RefusedError: If it is.
        """
        if len(talk.turns) >= MOST_TURNS:
            what = f"{MOST_TURNS} turns"
        elif _bytes_of(talk) >= self._keep_bytes:
            what = f"{self._keep_bytes / 1e6:g} MB of pictures"
        else:
            return
        raise RefusedError(400, f"the conversation has {what}, the most that are kept. Begin a new one.", code="limit")

    def forget(self, client: str, name: str) -> None:
        """Keep a conversation no longer.

        Raises:
            RefusedError: If the client has no such conversation.
        """
        with self._lock:
            self._find(client, name)
            del self._kept[name]

    async def watch(self) -> None:
        """Forget conversations when their time is up, also while no request comes; ends when it is cancelled."""
        while True:
            await sleep(LOOK_S)
            with self._lock:
                now = monotonic()
                for name, one in list(self._kept.items()):
                    if one.until < now and not one.turning.locked():
                        del self._kept[name]

    def _find(self, client: str, name: str) -> Session:
        session = self._kept.get(name)
        if session is None or session.client != client or session.until < monotonic():
            raise RefusedError(404, "this conversation is not kept any more. Begin a new one.", code="not_found")
        return session

    def _touch(self, name: str, session: Session) -> None:
        """Note that a conversation went on, and forget what no longer has room: never itself, nor one that draws."""
        session.until = monotonic() + self._keep_s
        session.nbytes = _bytes_of(session.talk)
        self._kept.move_to_end(name)
        theirs = sum(one.client == session.client for one in self._kept.values())
        for other, one in list(self._kept.items())[:-1]:
            full = len(self._kept) > MOST_SESSIONS or sum(s.nbytes for s in self._kept.values()) > self._keep_bytes
            crowded = one.client == session.client and theirs > MOST_OF_CLIENT
            if (full or crowded) and not one.turning.locked():
                theirs -= one.client == session.client
                del self._kept[other]


def _bytes_of(talk: Conversation) -> int:
    """Bytes that the pictures of a conversation take in memory."""
    return sum(_size_of(turn.generation) for turn in talk.turns if turn.generation is not None)


def _size_of(generation: Generation) -> int:
    pictures = [*generation.images, *(one.image for one in generation.inputs)]
    return sum(one.width * one.height * len(one.getbands()) for one in pictures)
