"""Zoo files of strangers: too large, too deep, endless, misspelt, mistagged, with text that steers a terminal."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from hostile import Attack
from hostile._command import call

KIND = "zoo file"
STEERING = ("\x1b]0;owned\x07", "\x9b31m", "\u202e", "\r", "\x00", "\x7f", "[/b]", "[red]", "\u2028", "\ud800")
KEYS = (
    "id",
    "repo",
    "tags",
    "settings",
    "license",
    "size_gb",
    "components",
    "description",
    "negative_prompt",
    "sources",
    "base",
    "kind",
    "revision",
    "architecture",
    "backend",
    "price",
    "languages",
    "trigger_words",
)
STRANGE: tuple[Any, ...] = (
    None,
    True,
    -1,
    10**39,
    1e308,
    float("inf"),
    float("nan"),
    "",
    "x" * 100_000,
    [],
    {},
    [[[]]],
    {"a": {"b": 1}},
    "../..",
    "/etc/passwd",
    "~root",
    "a\0b",
    ["x"] * 10_000,
    {str(n): n for n in range(2_000)},
)


def attacks(seed: int, count: int) -> Iterator[Attack]:
    """See `hostile`."""
    makers = (_laughs, _cycle, _digits, _strange, _deep, _wide, _tags, _garbled, _steering, _special, _extra, _long,
              _tree)  # fmt: skip
    for number in range(count):
        rng = random.Random(f"{seed} {KIND} {number}")  # noqa: S311  # a mess, not a secret
        maker = makers[number % len(makers)]
        yield Attack(KIND, f"{maker.__name__[1:]} {number}", partial(_meet, maker, rng))


def _meet(maker: Callable[[Path, random.Random], Path], rng: random.Random, folder: Path) -> None:
    """Give the file to the API and to a command, each as a stranger's."""
    from diffusiongpt.errors import ZooError
    from diffusiongpt.zoo import Zoo

    path = maker(folder, rng)
    try:
        Zoo.load(path)
    except ZooError as error:
        if not error.hint or len(str(error)) > 5_000:
            raise AssertionError(f"a poor error: {str(error)[:200]}") from None
    as_json = ["--json"] if rng.random() < 0.5 else []
    command = rng.choice(
        (["zoo", "list", "--zoo"], ["zoo", "tree", "--zoo"], ["zoo", "check"], ["zoo", "show", "fox", "--zoo"])
    )
    call(folder, *command, str(path), *as_json)


def _write(folder: Path, text: str) -> Path:
    path = folder / "zoo.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    return path


def _expert(**fields: Any) -> str:
    return "experts:\n  - " + json.dumps({"id": "fox", "repo": "somebody/fox", **fields}) + "\n"


def _laughs(folder: Path, rng: random.Random) -> Path:
    width, height = rng.randint(5, 20), rng.randint(8, 30)
    lines = [f"a0: &a0 [{', '.join(['x'] * width)}]"]
    mapping = rng.random() < 0.5
    for n in range(1, height):
        inner = [f"k{i}: *a{n - 1}" if mapping else f"*a{n - 1}" for i in range(width)]
        lines.append(f"a{n}: &a{n} " + ("{" if mapping else "[") + ", ".join(inner) + ("}" if mapping else "]"))
    return _write(folder, "\n".join(lines) + f"\nexperts: *a{height - 1}\n")


def _cycle(folder: Path, rng: random.Random) -> Path:
    depth = rng.randint(1, 15)
    return _write(folder, "experts: &a " + "[" * depth + "*a" + "]" * depth + "\n")


def _digits(folder: Path, rng: random.Random) -> Path:
    count = rng.choice((41, 400, 5_000, 100_000))
    number = rng.choice(("9" * count, "0x" + "f" * count, "0o" + "7" * count, "1e" + "9" * count, "-" + "1_" * count))
    return _write(folder, f"experts:\n  - id: fox\n    repo: a/b\n    {rng.choice(KEYS)}: {number}\n")


def _strange(folder: Path, rng: random.Random) -> Path:
    fields = {rng.choice(KEYS): rng.choice(STRANGE) for _ in range(rng.randint(1, 5))}
    return _write(folder, _expert(**fields))


def _deep(folder: Path, rng: random.Random) -> Path:
    depth = rng.choice((30, 1_000, 50_000))
    return _write(folder, rng.choice(("experts: " + "[" * depth, "x: {" * depth, "- " * depth, "? " * depth)))


def _wide(folder: Path, rng: random.Random) -> Path:
    count = rng.choice((30_000, 300_000))
    return _write(
        folder,
        rng.choice(
            (
                "experts: [" + "a, " * count + "]",
                "experts:\n  - {id: a, repo: a/b, tags: {styles: [" + "a, " * count + "]}}",
                "taxonomy: [" + "{}, " * count + "]",
                "{" + ", ".join(f"k{n}: 1" for n in range(count)) + "}",
                "#" * 17_000_000,
                "a: &a 1\n" + f"b: [{'*a, ' * count}]",
            )
        ),
    )


def _tree(folder: Path, rng: random.Random) -> Path:
    """A taxonomy that is long, deep, dense, or wordy, with experts on it."""
    count, many = rng.choice((50, 500, 5_000)), rng.choice((1, 20, 400))
    kinds = rng.choice((("subject",), ("style",), ("subject", "style")))
    parents = rng.choice(
        (lambda i: [f"n{i - 1}"] * (i > 0), lambda i: [f"n{j}" for j in range(max(0, i - 90), i)], lambda _: [])
    )
    nodes = [
        {
            "id": f"n{i}",
            "kind": kinds[i % len(kinds)],
            "parents": parents(i),
            "aliases": [f"w{i} {k}" for k in range(many)],
        }
        for i in range(min(count, 200_000 // many))
    ]
    tags = [rng.choice(("n1", "nosuch", f"n{count - 1}")) for _ in range(rng.choice((1, 50)))]
    experts = [
        {"id": f"e{i}", "repo": "a/b", "tags": {rng.choice(("subjects", "styles")): tags}}
        for i in range(rng.choice((1, 1_000)))
    ]
    return _write(folder, json.dumps({"taxonomy": nodes, "experts": experts}))


def _tags(folder: Path, rng: random.Random) -> Path:
    tag = rng.choice(
        (
            "!!python/object/apply:os.system ['true']",
            "!!int ''",
            "!!float x",
            "!!timestamp x",
            "!!binary '='",
            "!!set {a, b}",
            "!!omap [a]",
            "!x y",
            "!!bool 3",
            "!!null x",
            "2024-13-45",
            "2024-01-01",
            "!!merge x",
            "%YAML 9.9",
        )
    )
    return _write(folder, f"experts:\n  - id: fox\n    repo: a/b\n    {rng.choice(KEYS)}: {tag}\n")


def _garbled(folder: Path, rng: random.Random) -> Path:
    text = list(_expert(description="a fox", settings={"width": 512, "extra": {"eta": 1}}))
    for _ in range(rng.randint(1, 30)):
        text[rng.randrange(len(text))] = rng.choice("{}[]:,&*!|>'\"%@`#?-\t\n\0\x85é\ufeff")
    return _write(folder, "".join(text))


def _steering(folder: Path, rng: random.Random) -> Path:
    text = "".join(rng.choice((*STEERING, "fox ")) for _ in range(rng.randint(1, 12))) or "x"
    fields = {
        "description": text,
        "license": {"id": text[:100], "note": text},
        "trigger_words": [text],
        "sources": [text],
        "tags": {"styles": ["odd"]},
    }
    node = {"id": "odd", "kind": "style", "label": {"en": text, "zh": text}, "description": text, "aliases": [text]}
    return _write(folder, _expert(**fields) + "taxonomy:\n  - " + json.dumps(node) + "\n")


def _special(folder: Path, rng: random.Random) -> Path:
    path = folder / "pipe.yaml"
    kind = rng.randrange(4)
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.symlink_to("/dev/zero")
    elif kind == 2:
        path.mkdir()
    else:
        path.symlink_to(path)
    return path


def _extra(folder: Path, rng: random.Random) -> Path:
    name = rng.choice(
        ("output_type", "return_dict", "callback", "callback_on_step_end", "generator", "prompt", "x" * 1_000)
    )
    return _write(folder, _expert(settings={"extra": {name: rng.choice(STRANGE[:6])}}))


def _long(folder: Path, rng: random.Random) -> Path:
    size = rng.choice((10_000, 1_000_000, 10_000_000))
    return _write(
        folder,
        _expert(**{rng.choice(("id", "repo", "negative_prompt", "description", "revision", "backend")): "a" * size}),
    )
