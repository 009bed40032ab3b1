"""Votes that poison: what a picture, a file of votes or a program may claim, and the route after it.

After each attack a route must come within its time, with finite scores; the attack is refused, or counts for little.
"""

from __future__ import annotations

import json
import math
import random
from typing import TYPE_CHECKING, Any

from fixtures_routing import expert, router_of, zoo_of

from diffusiongpt.errors import DiffusionGPTError
from diffusiongpt.flow import Request
from diffusiongpt.votes import Shown, Vote, VoteStore
from diffusiongpt.votes.exchange import import_file
from hostile import Attack
from hostile._clock import CLOCK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KIND = "votes that poison"
ROUTE_S = 5.0
"""Seconds that a route may take after an attack: two bounds of 1.5 s, and what it costs itself."""

NUMBERS: tuple[Any, ...] = (
    0, -1, 1e308, -1e308, 5e-324, math.inf, -math.inf, math.nan, 10**400, 2**70, True, None, "1", "", [], {}, 0.5,
)  # fmt: skip
TEXTS: tuple[Any, ...] = (
    "", " ", "\0", "\ud800", "a\x1b[31m", "\u202e", "../../etc/passwd", "a" * 10_000, "a " * 1_000_000, 7, None, [], {},
)  # fmt: skip
FIELDS = ("evidence", "weight", "shown", "prompt", "winner", "voter", "ballot", "time", "id", "source")
SIZES = (3, 129, 1000, 10_000, 50_000)


def attacks(seed: int, count: int) -> Iterator[Attack]:
    """Different attacks, the same for the same seed."""
    chance = random.Random(seed)  # noqa: S311 - not a secret
    makers = (_record, _line, _table, _crowd)
    for number in range(count):
        maker = makers[number % len(makers)]
        name, run = maker(random.Random(chance.random()))  # noqa: S311
        yield Attack(KIND, f"{number} {name}", run)


def _record(chance: random.Random) -> tuple[str, Callable[[Path], None]]:
    """A vote as a program or the record of a picture makes it, with one wrong field."""
    field = chance.choice(
        ["evidence", "weight", "prompt", "shown", "winner", "voter", "ballot", "time", "id", "source"]
    )
    value: Any = chance.choice(NUMBERS if field == "weight" else TEXTS)
    if field == "evidence":
        size = chance.choice(SIZES)
        value = {f"node_{chance.randrange(10**9)}": chance.choice([0.9, 1.0, *NUMBERS[2:6]]) for _ in range(size)}
    if field == "shown":
        value = [{"expert": f"e{i}", "seed": chance.choice(NUMBERS)} for i in range(chance.choice(SIZES[:4]))]

    def run(folder: Path) -> None:
        record = {**_sound().to_record(), "id": "poison", field: value}
        _then_route(folder, lambda store: store.add(Vote.from_record(record)))

    return f"record with {field} {str(value)[:40]!r}", run


def _line(chance: random.Random) -> tuple[str, Callable[[Path], None]]:
    """A line of JSON with one wrong value somewhere."""
    record = {"kind": "vote", **_sound().to_record()}
    key = chance.choice(list(record))
    shape = chance.choice(["deep", "long", "number", "text", "missing", "repeated"])
    text = {
        "deep": json.dumps(record)[:-1] + f', "{key}": ' + "[" * 50_000 + "}",
        "long": json.dumps({**record, key: "x" * chance.choice([300, 10**6])}),
        "number": json.dumps(record)[:-1] + f', "{key}": ' + "9" * chance.choice([400, 10_000]) + "}",
        "text": json.dumps({**record, key: chance.choice(TEXTS)}),
        "missing": json.dumps({name: value for name, value in record.items() if name != key}),
        "repeated": "\n".join([json.dumps(record)] * chance.choice([2, 1000])),
    }[shape]

    def run(folder: Path) -> None:
        (folder / "votes.jsonl").write_text(text)
        _then_route(folder, lambda store: import_file(store, folder / "votes.jsonl"))

    return f"line with {key} {shape}", run


def _table(chance: random.Random) -> tuple[str, Callable[[Path], None]]:
    """A table of votes with cells that are none."""
    separator = chance.choice([",", ";", "\t", "|", ""])
    cells = [str(chance.choice([*NUMBERS[:8], *TEXTS[:8], '"', "a\nb", "=1+1"])) for _ in range(6)]
    header = separator.join(("prompt", "winner", "loser", "weight", "time", "outcome"))
    text = f"{header}\n" + "\n".join([separator.join(cells)] * chance.choice([1, 50]))

    def run(folder: Path) -> None:
        (folder / "votes.csv").write_bytes(text.encode("utf-8", "surrogatepass"))
        _then_route(folder, lambda store: import_file(store, folder / "votes.csv"))

    return f"table separated by {separator!r} with {cells[0][:20]!r}", run


def _crowd(chance: random.Random) -> tuple[str, Callable[[Path], None]]:
    """Sound votes, each alone, that name a crowd of experts and nodes."""
    experts, nodes, size = chance.choice([50, 300, 3000]), chance.choice([1, 100]), chance.choice([20, 60, 300])

    def run(folder: Path) -> None:
        votes = []
        for number in range(size):
            pair = [f"stranger-{(number * 7 + i) % experts}" for i in range(2)]
            evidence = {f"n{number}_{i}": 1.0 for i in range(nodes)}
            shown = tuple(Shown(expert=name) for name in pair)
            votes.append(
                Vote(prompt=f"{number} " * 50, shown=shown, outcome="both_bad", evidence=evidence, weight=1000.0)
            )
        _then_route(folder, lambda store: store.merge(votes))

    return f"{size} votes on {experts} experts and {nodes} nodes each", run


def _sound() -> Vote:
    return Vote(prompt="a fox", shown=(Shown(expert="a"), Shown(expert="b")), outcome="win", winner="a", id="sound")


def _then_route(folder: Path, attack: Callable[[VoteStore], object]) -> None:
    """Attack a store that has one sound vote, then route.

    Raises:
        DiffusionGPTError: If the attack is refused, after the route.
    """
    store = VoteStore(folder / "votes.db")
    store.add(_sound())
    refused = None
    try:
        attack(store)
    except DiffusionGPTError as error:
        refused = error
    router = router_of(zoo_of(expert("a"), expert("b")), folder / "votes.db")
    begun = CLOCK()
    route = router.route(Request(prompt="a fox"))
    seconds = CLOCK() - begun
    assert seconds < ROUTE_S, f"the route took {seconds:.1f} s"
    assert all(math.isfinite(one.score) and math.isfinite(one.std) for one in route.candidates), route.candidates
    assert "sound" in {vote.id for vote in store.all()}, "a vote is lost"
    router.preferences.wait()
    store.close()
    if refused is not None:
        raise refused
