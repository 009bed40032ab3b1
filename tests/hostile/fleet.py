"""A fleet whose replicas report what cannot be: the choice of a replica stays finite, and the others are used.

Strangers reach a fleet through the same server as any other (see `http_requests` and `talks`); what its replicas say
comes from processes of its own, of which one may be of another version or have a damaged memory.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from diffusiongpt.fleet import Demand, Fleet, Need, ReplicaState, read_report, replicas_for
from hostile import Attack
from hostile._strange import spoilt

KIND = "report of a replica"
GB = 1e9
NUMBERS = (
    0.0,
    -1.0,
    5e-324,
    1e308,
    -1e308,
    math.inf,
    -math.inf,
    math.nan,
    10**400,
    2**63,
    1e18,
    "1",
    None,
    True,
    [],
    {},
)


def attacks(seed: int, count: int) -> Iterator[Attack]:
    """See `hostile`."""
    for number in range(count):
        yield Attack(KIND, f"reports {number}", partial(_meet, f"{seed} {KIND} {number}"))


def _meet(seed: str, folder: Path) -> None:
    """Spoil reports, send and end requests in any order, and choose."""
    del folder
    rng = random.Random(seed)  # noqa: S311  # a mess, not a secret
    fleet, demand = Fleet(), Demand()
    need = Need(parts={"base": int(7 * GB), "part": int(GB)}, draw_s=2.0, device_bytes=8 * GB)
    names = [f"r{at}" for at in range(4)]
    fleet.report(read_report("sound", _sound(), "me"))
    refused = 0
    for number in range(120):
        name = rng.choice(names)
        try:
            fleet.report(read_report(name, _spoilt(rng), rng.choice(("me", "", "x" * 1_000))))
        except ValueError:
            refused += 1
        how = rng.random()
        if how < 0.5:
            fleet.send(rng.choice((*names, "sound", "gone")), need, f"q{number}")
        elif how < 0.7:
            fleet.end(rng.choice((*names, "sound")), f"q{rng.randrange(number + 1)}")
        elif how < 0.8:
            fleet.take_back(rng.choice((*names, "sound")), f"q{rng.randrange(number + 1)}")
        elif how < 0.85:
            fleet.leave(name)
        choice = fleet.choose(need)
        assert choice is not None, "the sound replica is not chosen, nor any other"
        assert 0 <= choice.wait_s < math.inf, choice
        assert 0 <= choice.bring_s < math.inf, choice
        demand.ask("x" * rng.choice((1, 10_000)), choice.wait_s)
    assert len(demand.worth_warming({})) <= 2
    assert replicas_for([choice.wait_s], 0.0, 10.0) >= 0
    print(f"{refused} of 120 reports are refused")  # noqa: T201


def _sound() -> dict[str, Any]:
    """What a replica reports."""
    state = ReplicaState(
        replica="", queue_s=1.0, held={"base": "host"}, coming={"part": 2.0}, device_bytes=24 * GB, free_bytes=9 * GB
    )
    beside = {"received": {"me": 1}, "ended": {"me": 0}, "requests": 1, "device": "cuda:0", "node": "n", "pid": 7}
    return {**asdict(state), **beside, "zoo_version": "z"}


def _spoilt(rng: random.Random) -> dict[str, Any]:
    """A report with numbers that cannot be, or strange values anywhere."""
    said = _sound()
    if rng.random() < 0.6:
        for name in rng.sample(sorted(said), rng.randint(1, 3)):
            said[name] = rng.choice(NUMBERS)
        if rng.random() < 0.4:
            said["held"] = {
                f"p{at}": rng.choice(("device", "host", "disk", "moon", 7)) for at in range(rng.choice((1, 500)))
            }
        if rng.random() < 0.4:
            said["coming"] = {f"p{at}": rng.choice(NUMBERS) for at in range(rng.choice((1, 500)))}
        return said
    made = spoilt(said, rng, rng.randint(1, 3))
    return made if isinstance(made, dict) else said
