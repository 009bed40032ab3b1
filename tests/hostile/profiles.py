"""Profiles of a server in its settings: policies that are none, names that steer, and what clients make of them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from hostile import Attack
from hostile._command import call, environment
from hostile._strange import STRANGE, as_text, spoilt
from hostile.http_requests import post, problem_of

KIND = "profile"
NAMES = (
    "shop",
    "auto",
    "flat",
    "",
    " ",
    "\x1b[31m",
    "\u202e",
    "[/b]",
    "x" * 100_000,
    "a/b",
    "../x",
    "../../etc",
    "auto-fast",
    "é",
)
VALUES: tuple[Any, ...] = (*STRANGE[:20], 0.02, "24GB", "fast", "gpu", "1e400", [], {}, 10**400)


def attacks(seed: int, count: int) -> Iterator[Attack]:
    """See `hostile`."""
    for number in range(count):
        yield Attack(KIND, f"profiles {number}", partial(_meet, f"{seed} {KIND} {number}"))


def _meet(seed: str, folder: Path) -> None:
    """Start a server with them, list them, and ask for each."""
    from fixtures_server import running

    from diffusiongpt.settings import load_settings
    from diffusiongpt.studio import DiffusionGPT

    rng = random.Random(seed)  # noqa: S311  # a mess, not a secret
    text, names = _made(rng)
    zoo = folder / "zoo.yaml"
    zoo.write_text("schema_version: 1\nexperts:\n  - {id: flat, backend: fake, repo: me/flat}\n", encoding="utf-8")
    if rng.random() < 0.2:
        call(folder, "route", "a fox", "--zoo", str(zoo), *rng.choice(([], ["--json"])), DIFFUSIONGPT_PROFILES=text)
    with environment({"DIFFUSIONGPT_PROFILES": text}):
        settings = load_settings(home=folder / "home", hub_cache=folder / "hub")
    with DiffusionGPT(zoo, device="cpu", settings=settings) as studio, running(studio, body_timeout_s=1) as server:
        port = int(server.url.rpartition(":")[2])
        for path in ("/v1/models", "/sdapi/v1/sd-models"):
            problem = problem_of(port, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            assert problem is None, f"{path}: {problem}"
        for name in (*names, "auto"):
            for path in ("/v1/route", "/v1/images/generations"):
                body = json.dumps({"prompt": "a fox", "model": name}).encode()
                problem = problem_of(port, post(path, body))
                assert problem is None, f"{path} with {name[:20]!r}: {problem}"


def _made(rng: random.Random) -> tuple[str, list[str]]:
    """A value of the variable, and the names in it."""
    fields = ("max_price", "memory", "prefer", "commercial_use", "local_only", "max_seconds", "expert", "prompt", "x")
    if rng.random() < 0.3:
        whole = spoilt({"shop": {"commercial_use": True, "max_price": 0.02, "prefer": "fast"}}, rng, rng.randint(1, 2))
        return as_text(whole, rng).decode("utf-8", "replace").replace("\0", "")[:100_000], ["shop"]
    names = rng.sample(NAMES, rng.randint(1, 3))
    made = {name: {field: rng.choice(VALUES) for field in rng.sample(fields, rng.randint(0, 2))} for name in names}
    # no variable of the environment is longer
    return json.dumps(made).replace("\\u0000", "")[:100_000], names
