"""Values that no honest program writes, put anywhere into one that an honest program did."""

from __future__ import annotations

import json
import random
from copy import deepcopy
from typing import Any

STRANGE: tuple[Any, ...] = (
    None, True, -1, 0, 1.5, 10**30, 2**63, 1e308, float("nan"), float("inf"), "", " ", "a\0b", "../../x", "/etc/passwd",
    "~root/x", "\x1b]0;x\x07", "\u202egnp", "\ud800", "[/b]", "{x}", "%s", "x" * 100_000, "ä" * 20_000, [], {},
    [[]] * 1_000, {"a": 1e308}, ["x"] * 60_000, {str(n): 0.5 for n in range(10_000)}, {"": {"": {"": None}}},
)  # fmt: skip


MOST = 3_000_000
"""Characters that a repetition may add; what is attacked is the product, not the memory of the attack."""


def spoilt(value: Any, rng: random.Random, times: int = 1) -> Any:
    """A copy of a JSON value with parts of it, anywhere, replaced, removed or repeated."""
    copy = json.loads(json.dumps(value))
    for _ in range(times):
        places = [one for one in _places(copy) if one]
        if not places:
            return _strange(rng)
        *way, last = rng.choice(places)
        inner = copy
        for part in way:
            inner = inner[part]
        how = rng.random()
        if how < 0.1:
            del inner[last]
        elif how < 0.2 and isinstance(inner, list):
            inner.extend([inner[last]] * min(rng.choice((1, 70, 3_000)), MOST // len(json.dumps(inner[last]))))
        elif how < 0.25 and isinstance(inner, dict):
            inner[rng.choice(("x", "", "\x1b[31m", "__class__"))] = _strange(rng)
        else:
            inner[last] = _strange(rng)
    return copy


def _strange(rng: random.Random) -> Any:
    """One of the strange values, which the next spoiling may spoil without the others."""
    return deepcopy(rng.choice(STRANGE))


def _places(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [way, *(place for key, child in children for place in _places(child, (*way, key)))]


def as_text(value: Any, rng: random.Random) -> bytes:
    """JSON of a value, now and then broken, too deep, with other bytes, or with digits without end."""
    whole = json.dumps(value).encode("utf-8", "surrogatepass")
    how = rng.random()
    if how < 0.85:
        return whole
    deep = rng.choice((500, 60_000))
    return rng.choice(
        (
            whole[: rng.randrange(len(whole))],
            b"\xef\xbb\xbf" + whole,
            b"\xff\xfe" + whole,
            b"[" * deep + b"]" * deep,
            b'{"a":' * deep,
            b"9" * 400_000,
            whole + b"\0" * 100,
            b"[" + b"0," * 3_000_000 + b"0]",
            b'{"\\ud800": "\\ud800"}',
        )
    )
