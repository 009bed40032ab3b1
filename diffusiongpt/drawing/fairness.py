"""Which place has the next turn: fair between clients, reordered a little where that saves a swap of models."""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Generic, TypeVar

IsReady = Callable[[Hashable], bool]
"""Whether a model could draw at once."""


@dataclass(eq=False)
class Place:
    """A place in a queue; two places are equal only if they are the same.

    Attributes:
        model: The model that will draw.
        client: The client that asks.
        work: Amount of work, at least 1, in units of the smallest request.
        tag: Start tag, in the same units of work; set by the order.
        number: Number of places that entered before it; set by the order.
    """

    model: Hashable
    client: Hashable
    work: int = 1
    tag: int = field(default=0, init=False)
    number: int = field(default=0, init=False)


_P = TypeVar("_P", bound=Place)


class FairOrder(Generic[_P]):
    """The order in which one device serves its queue; no threads, no clock, the same for the same arrivals.

    Start-time fair queueing (Goyal, Guo, Vin 1996): a place is tagged with the virtual time or with the end of its
    client's last work, whichever is later; the fair order is that of the tags, then of arrival; the virtual time is
    the greatest tag that stood first when one was taken.

    Among the first `window` places in fair order, the first of the model just taken, or else the first of a model
    that is ready, goes before those in front of it. A place that was passed `window` times in this way is passed no
    more.

    The bound: let a place be tagged `d` after the virtual time (0 for a client that has nothing waiting and had
    nothing just now), with `p` places before it in fair order. Then at most

        p + C * d + window

    places are taken before it while it may be taken, where `C` other clients enter something meanwhile: those `p`,
    for each unit of `d` one later place of each other client, and the passes. Without work of its
    own in front (`d = 0`), no number of later arrivals makes it wait longer. A place that is removed only shortens
    this: the later places of its client move up by one, each to the tag of the one before it.

    Args:
        window: How far the order may be changed, at least 1; with 1 it is the fair order.
    """

    def __init__(self, window: int = 8) -> None:
        self._window = window
        self._waiting: list[_P] = []
        self._passed: Counter[_P] = Counter()
        self._ends: dict[Hashable, int] = {}
        self._arrivals = count()
        self._last: Hashable = None
        self.virtual_time = 0

    @property
    def waiting(self) -> tuple[_P, ...]:
        """All places, in fair order."""
        return tuple(self._waiting)

    def add(self, place: _P) -> None:
        """Add a place to the queue; this sets its tag."""
        before = next((other for other in reversed(self._waiting) if other.client == place.client), None)
        end = 0 if before is None else before.tag + before.work
        place.tag = max(self.virtual_time, self._ends.get(place.client, 0), end)
        place.number = next(self._arrivals)
        insort(self._waiting, place, key=_fair)

    def discard(self, place: _P) -> None:
        """Remove a place, if it still waits; the later ones of its client move up."""
        if place not in self._waiting:
            return
        # Each later place of the client starts where the one before it would have: the client loses nothing by it.
        tag = place.tag
        for later in self._waiting[self._waiting.index(place) + 1 :]:
            if later.client == place.client:
                tag, later.tag = later.tag, tag
        self._remove(place)
        self._waiting.sort(key=_fair)

    def take(self, may: Callable[[_P], bool], is_ready: IsReady) -> _P | None:
        """Take the next of the places that may be taken; `None` if none may."""
        first = list(islice(filter(may, self._waiting), self._window))
        if not first:
            return None
        place = self._choose(first, self._passed, self._last, is_ready)
        # Not the tag of the place taken: a client that arrives now would stand behind all the places it passed.
        self.virtual_time = max(self.virtual_time, first[0].tag)
        self._ends[place.client] = max(self._ends.get(place.client, 0), place.tag + place.work)
        # An end before the virtual time no longer delays its client, so forgetting it keeps the table small.
        self._ends = {client: end for client, end in self._ends.items() if end > self.virtual_time}
        self._last = place.model
        self._remove(place)
        return place

    def rest(self) -> None:
        """Forget what clients had: nothing is being drawn and nothing waits, so all start even."""
        self._ends.clear()

    def foresee(self, is_ready: IsReady, limit: int) -> Iterator[_P]:
        """The next places, `limit` at most, as they would be taken if nothing changed."""
        # the same choice on copies, so that what is announced is what will happen
        waiting, passed, last = self._waiting[: limit + self._window], self._passed.copy(), self._last
        for _ in range(min(limit, len(waiting))):
            place = self._choose(waiting[: self._window], passed, last, is_ready)
            waiting.remove(place)
            last = place.model
            yield place

    def _choose(self, first: Sequence[_P], passed: Counter[_P], last: Hashable, is_ready: IsReady) -> _P:
        """The next of the first places; counts the places that it passes."""
        # The first place that may not be passed again limits the choice: none behind it can go first.
        limit = next((at for at, place in enumerate(first) if passed[place] >= self._window), len(first))
        able = first[: limit + 1]
        same = (place for place in able if place.model == last)
        ready = (place for place in able if is_ready(place.model))
        chosen = next(same, None) or next(ready, able[0])
        passed.update(able[: able.index(chosen)])
        return chosen

    def _remove(self, place: _P) -> None:
        self._waiting.remove(place)
        self._passed.pop(place, None)


def _fair(place: Place) -> tuple[int, int]:
    return place.tag, place.number
