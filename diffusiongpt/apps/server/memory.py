"""What a server remembers for a while: drafts to be finished, and pictures to be voted on, without their pixels."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any, Generic, TypeVar

from diffusiongpt.apps.server.failures import RefusedError
from diffusiongpt.pictures import Comparison, Generation

_MOST = 1_000
"""Results that are remembered; the oldest go first. A route is some tens of kilobytes."""

T = TypeVar("T")


class Remembered(Generic[T]):
    """Things under ids that cannot be guessed, for a while; thread-safe.

    Args:
        what: What they are, for messages.
        keep_s: Seconds for which one is remembered.
        most: Most of them; the oldest go first.
    """

    def __init__(self, what: str, keep_s: float, most: int = _MOST) -> None:
        self._what = what
        self._keep_s = keep_s
        self._most = most
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[float, T]] = OrderedDict()

    def keep(self, thing: T) -> str:
        """Remember one; returns its id."""
        name = secrets.token_urlsafe(12)
        now = monotonic()
        with self._lock:
            self._kept[name] = (now + self._keep_s, thing)
            while len(self._kept) > self._most or next(iter(self._kept.values()))[0] < now:
                self._kept.popitem(last=False)
        return name

    def find(self, name: str) -> T:
        """The one of an id.

        Raises:
            RefusedError: If it is not remembered.
        """
        with self._lock:
            until, thing = self._kept.get(name, (0.0, None))
        if thing is None or until < monotonic():
            raise RefusedError(404, f"this {self._what} is not remembered any more. Draw again.", code="not_found")
        return thing


@dataclass(frozen=True)
class Draft:
    """What a draft was drawn from.

    Attributes:
        prompt: Its prompt.
        options: Its arguments, with the seed that it was drawn with.
        finished_by: Id of the expert that the route chose, which draws when it is finished.
    """

    prompt: str
    options: Mapping[str, Any]
    finished_by: str


class Chosen:
    """The last choice of each client; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, str] = OrderedDict()

    def put(self, client: str, choice: str) -> None:
        """Remember what a client chose."""
        with self._lock:
            self._kept[client] = choice
            self._kept.move_to_end(client)
            while len(self._kept) > _MOST:
                self._kept.popitem(last=False)

    def get(self, client: str) -> str | None:
        """What a client chose; `None` if it did not."""
        with self._lock:
            return self._kept.get(client)


class Ballots:
    """Results and comparisons that may be voted on.

    Args:
        keep_s: Seconds for which they may.
    """

    def __init__(self, keep_s: float) -> None:
        self._kept: Remembered[Generation | Comparison] = Remembered("ballot", keep_s)

    def keep(self, drawn: Generation | Comparison) -> str:
        """Remember what was drawn without its pixels; returns the id of the ballot."""
        if isinstance(drawn, Generation):
            return self._kept.keep(_without_pixels(drawn))
        shown = tuple(_without_pixels(one) for one in drawn.generations)
        return self._kept.keep(Comparison(generations=shown, votes=drawn.votes, voter=drawn.voter))

    def find(self, name: str) -> Generation | Comparison:
        """What a ballot is about.

        Raises:
            RefusedError: If it is not remembered.
        """
        return self._kept.find(name)


def _without_pixels(generation: Generation) -> Generation:
    return replace(generation, images=(), inputs=(), redraws=None)
