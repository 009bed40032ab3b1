"""Prompts: markup of other tools, quotes and brackets without end, numbers, scripts, and texts that are slow to read.

Whatever is typed, it is read within its time into values of the closed vocabulary, the same twice, and every check of
content answers. `MOST_CHARS` of each kind of text are tried, since patterns that are slow are slow on long texts.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

from hostile import Attack
from hostile._clock import CLOCK

KIND = "prompt"
READ_S = 5.0
"""Seconds in which the longest prompt is routed."""

PIECES = (
    "a fox", "no ", "not ", "without ", "no people, ", "photo of ", "(", ")", "((", "[", "]", ":1.2)", "<lora:x:3>",
    "<lora:", "BREAK ", "AND ", "--ar 16:9 ", "--no ", "::2 ", "Negative prompt: ", "Steps: 20, ", "Seed: 1, ",
    "Size: 512x512, ", "Size: 9999999x1, ", "\n", '"', "'", "“", "”", "«", "「", "」", "『",
    "a sign that says ", "标题 ",
    "写着", "没有", "不要", "一只狐狸", "16:9", '24"', "1/3", "10^9", "9" * 40, "-1", "1e400", "4k", "64x64 pixel art ",
    "three ", "三百万", "0 ", "²", "½", "#ff0000 ", "#gggggg ", "{a|b}", "__wild__", "\u202e", "\u200b", "\u0301",
    "🦊", "👩‍👩‍👧‍👦", "ก็", "नमस्ते ", "שלום ", "مرحبا ", "\ufffc", "\t", "...", ",,,", ";", "|",
    "\\", "%s", "{}", "$(", "<think>",
    "</think>", "```json", "[/b]", "\u2028", "http://x.example/?a=b ",
    "nude", "n u d e ", "n.u" + ".d.e", "ｎｕｄｅ", "1girl, ",
)  # fmt: skip
MOST_CHARS = 32_000


def attacks(seed: int, count: int) -> Iterator[Attack]:
    """See `hostile`."""
    makers = (_mixed, _mixed, _repeated, _nested, _any_characters, _infotext)
    for number in range(count):
        rng = random.Random(f"{seed} {KIND} {number}")  # noqa: S311  # a mess, not a secret
        maker = makers[number % len(makers)]
        text = maker(rng)[:MOST_CHARS]
        options: dict[str, Any] = {"safety": rng.choice(("off", "standard", "strict"))}
        if rng.random() < 0.3:
            options["negative_prompt"] = _mixed(rng)[:MOST_CHARS]
        if rng.random() < 0.2:
            options["rewrite"] = False
        yield Attack(KIND, f"{maker.__name__[1:]} {number}", partial(_meet, text, options))


@cache
def _studio() -> Any:
    from tempfile import mkdtemp

    from diffusiongpt.settings import load_settings
    from diffusiongpt.studio import DiffusionGPT

    home = Path(mkdtemp())
    return DiffusionGPT("default", settings=load_settings(home=home, hub_cache=home / "hub", device="cpu"))


def _meet(text: str, options: dict[str, Any], folder: Path) -> None:
    """Route it twice."""
    del folder
    from diffusiongpt.flow import MAX_SIDE, MIN_SIDE

    studio = _studio()
    begun = CLOCK()
    route = studio.route(text, memory="24GB", **options)
    seconds = CLOCK() - begun
    assert seconds < READ_S, f"it took {seconds:.1f} s"
    understood = route.understanding
    nodes = {*studio.zoo.taxonomy.nodes, *studio.zoo.taxonomy.needs}
    assert {one.node for one in (*understood.subjects, *understood.styles)} <= nodes, "it is not in the vocabulary"
    assert all(0 <= p <= 1 for p in understood.evidence.values()), understood.evidence
    sides = [side for side in (understood.width, understood.height) if side is not None]
    assert all(MIN_SIDE <= side <= MAX_SIDE for side in sides), sides
    assert understood.object_count is None or 0 < understood.object_count < 10**6, understood.object_count
    assert len(route.prompt) <= 2 * MOST_CHARS, f"{len(route.prompt)} characters of {len(text)}"
    again = studio.route(text, memory="24GB", **options)
    assert again.prompt == route.prompt, "it is read otherwise the second time"
    assert again.expert == route.expert, "it is routed otherwise the second time"
    print(route.explain())  # noqa: T201  # what the product shows


def _mixed(rng: random.Random) -> str:
    return "".join(rng.choices(PIECES, k=rng.choice((3, 10, 100, 2_000))))


def _repeated(rng: random.Random) -> str:
    piece = "".join(rng.choices(PIECES, k=rng.randint(1, 3)))
    return rng.choice(("", "a fox ")) + piece * (MOST_CHARS // max(len(piece), 1)) + rng.choice(("", "x", "!"))


def _nested(rng: random.Random) -> str:
    opened, closed = rng.choice(("()", "[]", "<>", "{}", "「」", "“”", '""', "''"))
    depth = rng.choice((10, 1_000, 15_000))
    inner = rng.choice(PIECES)
    return opened * depth + inner + closed * rng.choice((depth, depth - 1, 0))


def _any_characters(rng: random.Random) -> str:
    blocks = ((0x20, 0x7F), (0xA0, 0x24F), (0x300, 0x36F), (0x600, 0x6FF), (0x2000, 0x206F), (0x3000, 0x30FF),
              (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xFE00, 0xFFEF), (0x1F300, 0x1FAFF), (0xE0000, 0xE007F))  # fmt: skip
    chosen = rng.sample(blocks, k=rng.randint(1, 3))
    return "".join(chr(rng.randint(*rng.choice(chosen))) for _ in range(rng.choice((5, 300, 20_000))))


def _infotext(rng: random.Random) -> str:
    keys = (
        "Steps",
        "Sampler",
        "CFG scale",
        "Seed",
        "Size",
        "Model hash",
        "Lora hashes",
        "Denoising strength",
        "Clip skip",
    )
    values = ("20", "-1", "9" * 30, "1e999", "nan", "512x512", "0x0", '"x: 1, y: 2"', "", "a" * 500, "{}", "\ud7ff")
    line = ", ".join(f"{rng.choice(keys)}: {rng.choice(values)}" for _ in range(rng.choice((1, 8, 1_000))))
    negative = rng.choice(("", "\nNegative prompt: " + _mixed(rng)))
    return f"{_mixed(rng)}{negative}\n{line}"
