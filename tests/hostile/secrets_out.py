"""Every secret setting through the ways in which things fail: nothing that is printed or written may hold one."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from urllib.parse import quote

from hostile import Attack
from hostile._command import call, environment

KIND = "secret"
SETTINGS = (
    "HF_TOKEN",
    "DIFFUSIONGPT_HUB_TOKEN",
    "OPENAI_API_KEY",
    "DIFFUSIONGPT_OPENAI_API_KEY",
    "IDEOGRAM_API_KEY",
    "STABILITY_API_KEY",
    "DIFFUSIONGPT_VOTES",
    "HF_ENDPOINT",
    "OPENAI_BASE_URL",
    "ANTHROPIC_API_KEY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "SOME_PASSWORD",
)
AROUND = ("", "\n", "\r\n", " ", "\t", "\u00a0", "é", "\x1b[31m", "\n\n", "“", " and more")
DRAWN = ("generate", "a fox", "--zoo", "tiny", "--steps", "1", "--out")


def attacks(seed: int, count: int) -> Iterator[Attack]:
    """See `hostile`."""
    for number in range(count):
        rng = random.Random(f"{seed} {KIND} {number}")  # noqa: S311  # what is looked for, and of no account
        name = SETTINGS[number % len(SETTINGS)]
        way = _WAYS[(number // len(SETTINGS)) % len(_WAYS)]
        yield Attack(KIND, f"{name} {way.__name__[1:]} {number}", partial(_meet, name, way, rng))


def _meet(name: str, way: Callable[[Path, random.Random], None], rng: random.Random, folder: Path) -> None:
    """Set one secret, let something fail, and look for the secret in all that is left."""
    secret = "".join(rng.choices("abcdefghjkmnpqrstuvwxyz23456789", k=rng.randint(12, 40)))
    if name.endswith(("VOTES", "URL", "ENDPOINT", "PROXY")) and rng.random() < 0.5:
        secret += rng.choice(("@", "%", "&", "+"))
    value = _value(name, secret, rng)
    with environment({name: value}):
        try:
            way(folder, rng)
        finally:
            _check_files(folder, secret)


def _value(name: str, secret: str, rng: random.Random) -> str:
    coded = quote(secret, safe="")
    if name == "DIFFUSIONGPT_VOTES":
        return rng.choice(
            (
                f"postgresql+psycopg://me:{coded}@127.0.0.1:9/d",
                f"postgresql://127.0.0.1:9/d?password={coded}",
                f"nosuch://me:{coded}@h/d",
                f"postgresql+psycopg://me:{coded}@127.0.0.1:x/d",
            )
        )
    if name.endswith(("ENDPOINT", "URL")):
        return f"http://me:{coded}@127.0.0.1:9{rng.choice(('', '/v1', '/ x', ':y'))}"
    if name.endswith("PROXY"):
        return f"{rng.choice(('http', 'socks5', 'nosuch'))}://me:{coded}@127.0.0.1:9"
    around = rng.choice(AROUND).replace("\0", "")
    return f"{around}{secret}{around}"


def _check_files(folder: Path, secret: str) -> None:
    wanted = {secret.encode(), quote(secret, safe="").encode()}
    for file in folder.rglob("*"):
        if file.is_file() and any(one in file.read_bytes() for one in wanted):
            raise AssertionError(f"a secret is in {file.relative_to(folder)}")


def _route(folder: Path, rng: random.Random) -> None:
    call(folder, "route", "a fox", "--zoo", "tiny", *rng.choice(([], ["--json"])))


def _votes(folder: Path, rng: random.Random) -> None:
    call(folder, "votes", "export", *rng.choice(([], [str(folder / "votes.csv")])))


def _draw(folder: Path, rng: random.Random) -> None:
    call(folder, *DRAWN, str(folder / "out"), *rng.choice(([], ["--json"])))


def _pull(folder: Path, rng: random.Random) -> None:
    zoo = folder / "zoo.yaml"
    zoo.write_text("experts:\n  - {id: fox, repo: somebody/fox, size_gb: 0.1}\n", encoding="utf-8")
    call(
        folder,
        "generate",
        "a fox",
        "--zoo",
        str(zoo),
        "--steps",
        "1",
        "--out",
        str(folder / "out"),
        *rng.choice(([], ["--json"])),
        HF_ENDPOINT="http://127.0.0.1:9",
    )


def _hosted(folder: Path, rng: random.Random) -> None:
    zoo = folder / "zoo.yaml"
    zoo.write_text(
        "experts:\n  - {id: cloud, backend: openai, repo: openai/gpt-image-1, price: {usd: 0.01}}\n", encoding="utf-8"
    )
    call(
        folder,
        "generate",
        "a fox",
        "--zoo",
        str(zoo),
        "--max-price",
        "1",
        "--out",
        str(folder / "out"),
        *rng.choice(([], ["--json"])),
    )


def _llm(folder: Path, rng: random.Random) -> None:
    call(
        folder,
        "route",
        "a fox",
        "--zoo",
        "tiny",
        "--llm",
        "openai:m",
        *rng.choice(([], ["--json"])),
        OPENAI_BASE_URL="http://127.0.0.1:9",
    )


_WAYS = (_route, _votes, _draw, _pull, _hosted, _llm)
