"""What is worth keeping, and what is loaded before it is requested."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from diffusiongpt.cache import (
    DEVICE_DEPTH,
    GDSF,
    HOST_DEPTH,
    LRU,
    PROTECTED,
    Tier,
    Usage,
    Wanted,
    needed_soon,
    next_to_device,
    next_to_host,
)


def model(name: str, nbytes: int = 10, **shared: int) -> Wanted:
    """A model with its own part, which has the same name, and others that it shares."""
    return Wanted(model=name, parts={name: nbytes, **shared})


def tier(budget: int = 100, *, soon: Mapping[object, int] | None = None, **there: int) -> Tier:
    """A tier with these parts, the first one used longest ago."""
    made = Tier(name="host", budget=budget, ceiling=None, policy=LRU(), upcoming=soon or {})
    for now, (key, nbytes) in enumerate(there.items()):
        made.reserve(key, nbytes)
        made.start(key)
        made.admit(key, nbytes, reload_s=1.0, now=now)
    return made


def usage(*, nbytes: int = 10, reload_s: float = 1.0, uses: int = 1, last_used: float = 0, floor: float = 0) -> Usage:
    """What is known about a resident."""
    return Usage(nbytes=nbytes, reload_s=reload_s, uses=uses, last_used=last_used, floor=floor)


ROOT = Path(__file__).parents[2]
QUEUE = [model(name) for name in "abcdefghijkl"]


def test_the_nearest_is_brought_first() -> None:
    """Of the coming models, the one that is needed first among the missing ones is next."""
    move = next_to_host(QUEUE, tier(b=10), tier(a=10))
    assert move is not None
    assert (move.model, dict(move.missing), move.victims) == ("c", {"c": 10}, ())


def test_the_one_that_draws_is_not_prefetched() -> None:
    """The model at the head is loaded by the lease that draws with it."""
    assert next_to_host(QUEUE[:1], tier(), tier()) is None
    assert next_to_device(QUEUE[:1], tier(a=10), tier()) is None


def test_the_host_gets_as_many_as_its_depth() -> None:
    """Not the one after."""
    there = dict.fromkeys("abcdefgh"[:HOST_DEPTH], 10)
    move = next_to_host(QUEUE, tier(**there), tier())
    assert move is not None
    assert move.model == QUEUE[HOST_DEPTH].model
    assert next_to_host(QUEUE, tier(**there, **move.missing), tier()) is None


def test_the_device_gets_as_many_as_its_depth() -> None:
    """Not the one after."""
    there = dict.fromkeys("abcdefgh"[:DEVICE_DEPTH], 10)
    move = next_to_device(QUEUE, tier(b=10, c=10), tier(**there))
    assert move is not None
    assert move.model == QUEUE[DEVICE_DEPTH].model
    assert next_to_device(QUEUE, tier(b=10, c=10), tier(**there, **move.missing)) is None


def test_the_device_waits_for_the_host() -> None:
    """What is not in host memory cannot be copied from there."""
    assert next_to_device(QUEUE, tier(c=10), tier(a=10)) is None
    assert next_to_device([model("a"), model("b", text=5)], tier(b=10), tier(a=10)) is None


def test_a_model_on_the_device_needs_nothing() -> None:
    """This holds even if the host tier has freed it."""
    device = tier(a=10, b=10)
    assert next_to_host(QUEUE[:2], tier(), device) is None
    assert next_to_device(QUEUE[:2], tier(), device) is None


def test_only_the_missing_part_of_a_sharing_model_is_brought() -> None:
    """What two models share is loaded once, and stays when room is made for the second."""
    queue = [model("a", text=5), model("b", text=5)]
    host = next_to_host(queue, tier(20, text=5, old=10), tier(a=10, text=5))
    assert host is not None
    assert (dict(host.missing), host.victims) == ({"b": 10}, ("old",))
    device = next_to_device(queue, tier(b=10), tier(20, text=5, old=10))
    assert device is not None
    assert (dict(device.missing), device.victims) == ({"b": 10}, ("old",))


def test_what_is_on_its_way_is_not_brought_twice() -> None:
    """Room is made neither from a model that is in use, nor from a part that arrives for another one."""
    host, device = tier(b=10), tier(a=10)
    host.reserve("c", 10)
    device.reserve("b", 10)
    move = next_to_host(QUEUE, host, device)
    assert move is not None
    assert move.model == "d"
    assert next_to_device(QUEUE, host, device) is None


def test_nothing_leaves_that_is_due_no_later() -> None:
    """Look-ahead evicts what is not needed, then what is needed last, and otherwise waits."""
    soon = needed_soon(QUEUE)
    later = next_to_host(QUEUE, tier(30, soon=soon, b=10, h=10, f=10), tier(a=10))
    assert later is not None
    assert (later.model, later.victims) == ("c", ("h",))
    idle = next_to_host(QUEUE, tier(30, soon=soon, b=10, h=10, idle=10), tier(a=10))
    assert idle is not None
    assert idle.victims == ("idle",)
    assert next_to_host(QUEUE, tier(20, soon=soon, b=10, c=10), tier(a=10)) is None


def test_nothing_leaves_that_is_in_use() -> None:
    """On the device, the next model is loaded only if it fits together with the one that draws."""
    device = tier(19, a=10)
    device.pin("a")
    assert next_to_device(QUEUE, tier(b=10), device) is None


@pytest.mark.parametrize("move", [next_to_host, next_to_device])
def test_a_model_larger_than_the_budget_is_left_out(move: object) -> None:
    """It is loaded when it is requested, and evicts nothing before that."""
    queue = [model("a"), model("b", 40)]
    if move is next_to_host:
        assert next_to_host(queue, tier(39, idle=10), tier(a=10)) is None
    else:
        assert next_to_device(queue, tier(b=40), tier(39, idle=10)) is None


def test_a_part_is_needed_as_soon_as_its_first_model() -> None:
    """Only needs within the protected requests count."""
    soon = needed_soon([model("a"), model("b", text=5), model("c", text=5), model("a")])
    assert soon == {"a": 0, "b": 1, "text": 1, "c": 2}
    assert max(needed_soon(QUEUE).values()) == PROTECTED
    assert QUEUE[PROTECTED + 1].model not in needed_soon(QUEUE)


def test_worth_grows_with_uses_and_seconds_and_shrinks_with_bytes() -> None:
    """With GDSF, a byte is worth the time it saves."""
    worth = GDSF().worth
    base = worth(usage())
    assert worth(usage(uses=2)) > base
    assert worth(usage(reload_s=2.0)) > base
    assert worth(usage(nbytes=20)) < base
    assert worth(usage(floor=1.0)) == base + 1.0
    assert worth(usage(last_used=99)) == base
    assert worth(usage(nbytes=0)) > base


def test_a_long_load_is_worth_more_than_short_ones_of_the_same_seconds_and_bytes() -> None:
    """Short loads hide behind drawings."""
    worth = GDSF().worth
    assert worth(usage(nbytes=30, reload_s=9.0)) > worth(usage(nbytes=10, reload_s=3.0))


def test_many_uses_count_for_less_each() -> None:
    """A model that was once popular is not kept for that reason."""
    worth = GDSF().worth
    assert worth(usage(uses=3)) - worth(usage(uses=2)) < worth(usage(uses=2)) - worth(usage(uses=1))


def test_what_ships_waits_for_a_fifth_of_what_lru_waits(tmp_path: Path) -> None:
    """In simulated time, on a trace shorter than that of `benchmarks/cache_trace.py`, in the worst of its settings."""
    figures, options = tmp_path / "figures.json", ["--seeds", "2", "--requests", "1000", "--json"]
    command = [sys.executable, ROOT / "benchmarks" / "cache_trace.py", *options, figures]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    table = json.loads(figures.read_text(encoding="utf-8"))["whole models"]
    assert table["GDSF, protect 8, look-ahead (ships)"]["worst"] < 0.2
    assert table["GDSF, protect 8"]["worst"] > 0.7


def test_lru_knows_only_when() -> None:
    """With LRU, only the time of the last use counts."""
    assert LRU().worth(usage(last_used=2, uses=1)) > LRU().worth(usage(last_used=1, uses=99, reload_s=99.0))
