"""Ranking tables of strangers, and stores whose sound-looking rows are made to mislead: weights, times, chances, ids.

What a fit takes out of a store has passed the checks of a vote, and a table the checks of its file; here the extremes
that pass, rows that were written past the checks, and files with any number changed. Routes come within their time,
with finite scores, and every sound vote still counts.
"""

from __future__ import annotations

import gc
import json
import math
import random
import sqlite3
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fixtures_routing import expert, router_of, zoo_of

from diffusiongpt.errors import DiffusionGPTError
from diffusiongpt.flow import Request
from diffusiongpt.votes import Rating, Shown, Vote, VoteStore
from hostile import Attack
from hostile._clock import CLOCK

if TYPE_CHECKING:
    from diffusiongpt.routing import Router

KIND = "ranking table"
ROUTE_S = 5.0
"""Seconds that a route may take: it waits for 1.5 s for the votes, and once more for a fit."""

EXPERTS = ("a", "b", "c")
WEIGHTS = (5e-324, 1e-300, 1e-9, 1.0, 999.0, 1000.0)
CHANCES = (5e-324, 1e-300, 1e-12, 0.5, 1.0)
TIMES = (
    "0001-01-01T00:00:00+00:00",
    "9999-12-31T23:59:59.999999+00:00",
    "2026-01-01T00:00:00+14:00",
    "1970-01-01",
)
NUMBERS = (math.inf, -math.inf, math.nan, 1e308, -1e308, 5e-324, -1.0, 0.0, 1e7)


def attacks(seed: int, count: int) -> Iterator[Attack]:
    """See `hostile`."""
    makers = (_extremes, _past_the_checks, _file, _extremes, _ratings, _ids)
    for number in range(count):
        maker = makers[number % len(makers)]
        yield Attack(KIND, f"{maker.__name__[1:]} {number}", partial(_meet, maker, f"{seed} {KIND} {number}"))


def _meet(maker: Callable[[VoteStore, random.Random, Path], None], seed: str, folder: Path) -> None:
    """Poison, route with the process that is there and with a new one, and count what is left."""
    rng = random.Random(seed)  # noqa: S311  # a mess, not a secret
    store = VoteStore(folder / "votes.db")
    shown = (Shown(expert="a"), Shown(expert="b"))
    store.merge(
        [Vote(prompt=f"a fox {at}", shown=shown, outcome="win", winner="a", id=f"sound{at}") for at in range(70)]
    )
    router = _router(folder)
    _route(router)
    refused = None
    try:
        maker(store, rng, folder)
    except DiffusionGPTError as error:
        refused = error
    routers = [router]
    del router
    for _ in range(2):
        # each is a process of its own where people use it, which ends before the next one begins
        one = routers.pop() if routers else _router(folder)
        for voter in ("me", "stranger", None):
            _route(one, voter)
        _settle(one)
        _route(one)
        _settle(one)
        one.preferences.store.close()
        del one
        _ended()
    sound = {vote.id for vote in store.all() if vote.id.startswith("sound")}
    assert len(sound) == 70, f"{70 - len(sound)} votes are lost"
    store.close()
    if refused is not None:
        raise refused


def _router(folder: Path) -> Router:
    return router_of(zoo_of(*map(expert, EXPERTS)), folder / "votes.db")


def _route(router: Router, voter: str | None = "me") -> None:
    begun = CLOCK()
    route = router.route(Request(prompt="a fox", voter=voter))
    seconds = CLOCK() - begun
    assert seconds < ROUTE_S, f"the route took {seconds:.1f} s"
    assert all(math.isfinite(one.score) and math.isfinite(one.std) for one in route.candidates), route.candidates
    assert all(math.isfinite(part) for one in route.candidates for part in one.parts.values()), route.candidates


def _settle(router: Router) -> None:
    """Wait until all is read and fitted, which a busy machine would else do, and write, after the attack."""
    with suppress(DiffusionGPTError):
        router.table()
    router.preferences.wait()


def _ended() -> None:
    """Wait for the reader of a router that is gone, which lingers for half a second, and its table with it."""
    for thread in threading.enumerate():
        if thread.name == "diffusiongpt-votes":
            thread.join(5)
    gc.collect()


def _vote(rng: random.Random, **own: Any) -> Vote:
    pair = rng.sample(EXPERTS, 2)
    facts = {
        "prompt": rng.choice(("a fox", "x" * 30_000, "", "\u0301" * 200)),
        "shown": tuple(Shown(expert=name, propensity=rng.choice(CHANCES)) for name in pair),
        "outcome": "win",
        "winner": pair[0],
        "weight": rng.choice(WEIGHTS),
        "voter": rng.choice(("me", "stranger")),
        "time": rng.choice(TIMES),
        "evidence": rng.choice(({}, {"anime": 1.0}, {"anime": 5e-324}, {f"n{at}": 1.0 for at in range(100)})),
    }
    return Vote(**{**facts, **own})


def _extremes(store: VoteStore, rng: random.Random, folder: Path) -> None:
    """Votes at the limits of what passes, all for one expert, or in one ballot."""
    del folder
    ballot = rng.choice((None, "one"))
    store.merge([_vote(rng, id=f"x{at}", ballot=ballot) for at in range(rng.choice((1, 20, 200)))])


def _ratings(store: VoteStore, rng: random.Random, folder: Path) -> None:
    """Ratings by judges whose numbers are all alike, or as far apart as passes."""
    del folder
    values = rng.choice(((0.0,), (1e6, -1e6), (5e-324, 0.0), (1e-9, 1e6), (math.pi,)))
    with suppress(DiffusionGPTError):
        store.merge(
            [
                Rating(
                    prompt=f"a fox {at % 7}",
                    expert=rng.choice(EXPERTS),
                    rating=rng.choice(values),
                    source=rng.choice(("human", f"judge{at % 40}")),
                    voter=rng.choice(("me", "stranger")),
                    time=rng.choice(TIMES),
                    id=f"r{at}",
                )
                for at in range(rng.choice((1, 30, 300)))
            ]
        )


def _past_the_checks(store: VoteStore, rng: random.Random, folder: Path) -> None:
    """Rows that another program wrote."""
    store.merge([_vote(rng, id=f"x{at}") for at in range(20)])
    column, value = rng.choice(
        (
            ("weight", rng.choice(NUMBERS)),
            ("time", rng.choice(("", "yesterday", "9" * 400, "2026-13-45"))),
            ("shown", json.dumps([{"expert": "a", "propensity": rng.choice((0, -1, 2, 1e308))}, {"expert": "b"}])),
            ("shown", json.dumps([{"expert": "a"}] * 30_000)),
            ("evidence", '{"anime": 1e999}'),
            ("evidence", json.dumps({f"n{at}": 1.0 for at in range(5_000)})),
            ("voter", "\udcff"),
            ("prompt", "x" * 3_000_000),
            ("winner", "nobody"),
            ("ballot", "one"),
            ("seconds", rng.choice(NUMBERS)),
            ("number", rng.choice((2**63 - 1, -5, 0))),
        )
    )
    with closing(sqlite3.connect(folder / "votes.db")) as connection, suppress(sqlite3.Error, UnicodeEncodeError):
        whose = "id = 'x3'" if column == "number" else "id LIKE 'x%'"
        connection.execute(f"UPDATE votes SET {column} = ? WHERE {whose}", (value,))  # noqa: S608  # ours
        connection.commit()


def _ids(store: VoteStore, rng: random.Random, folder: Path) -> None:
    """Experts, voters and ids by the thousand, or that look alike."""
    del folder
    kind = rng.choice(("experts", "voters", "alike"))
    if kind == "experts":
        names = [f"s{at}" for at in range(400)]
        votes = [
            _vote(rng, id=f"x{at}", shown=(Shown(expert=names[at]), Shown(expert="a")), winner=names[at])
            for at in range(400)
        ]
    elif kind == "voters":
        votes = [_vote(rng, id=f"x{at}", voter=f"v{at}") for at in range(1_500)]
    else:
        pair = ("a", "a\u200b")
        votes = [_vote(rng, id=f"x{at}\u0301", shown=tuple(map(_shown, pair)), winner="a\u200b") for at in range(50)]
    store.merge(votes)


def _shown(name: str) -> Shown:
    return Shown(expert=name)


def _file(store: VoteStore, rng: random.Random, folder: Path) -> None:
    """A table of a stranger, imported; any of its numbers may have been changed."""
    del store
    router = _router(folder)
    data = bytearray(router.table().as_bytes())
    router.preferences.wait()
    for _ in range(rng.randint(0, 5)):
        at = rng.randrange(0, len(data) - 8)
        if rng.random() < 0.6:
            data[at : at + 8] = struct.pack("<d", rng.choice(NUMBERS))
        else:
            data[at : at + 4] = rng.randbytes(4)
    path, own = folder / "theirs.npz", folder / "own"
    path.write_bytes(data[: rng.choice((len(data), len(data), rng.randrange(len(data))))])
    own.mkdir()
    fresh = _router(own)
    fresh.preferences.start_from(path, router.table().priors)
    for one in (fresh, _router(own)):
        _route(one)
        _settle(one)
        one.preferences.store.close()
