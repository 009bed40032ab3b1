"""Malformed answers of an LLM, by kind; each kind makes a different text for every random number."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusiongpt.testing import ChatFault, LocalChat

_CHATTER = (
    "Certainly! ",
    "Sure, here is your picture: ",
    "I think a fox would be lovely. ",
    "好的，这是结果：",
    "```python\n",
    "<think>hm",
)
_EXPERTS = (
    "flux-dev",
    "sdxl",
    "stabilityai/sdxl-turbo",
    "the best one",
    "../../etc/passwd",
    "__class__",
    "root",
    "",
    "动漫",
)
_JUNK: tuple[Any, ...] = (
    None,
    True,
    -1,
    1e308,
    "x",
    "",
    [],
    {},
    [[]],
    {"node": "anime"},
    ["", None, 3],
    "a" * 5000,
    "\u0000",
)


def _prose(good: dict[str, Any], rng: Random) -> str:
    return "".join(rng.choice(_CHATTER) for _ in range(rng.randint(1, 40))) + str(good["prompt"])


def _empty(_good: dict[str, Any], rng: Random) -> str:
    return rng.choice(("", " ", "\n\n", "\t", "\u3000"))


def _null(_good: dict[str, Any], rng: Random) -> None:  # noqa: ARG001  # the signature of all kinds
    return None


def _truncated(good: dict[str, Any], rng: Random) -> str:
    text = json.dumps(good, ensure_ascii=rng.random() < 0.5)
    return text[: rng.randrange(1, len(text) - 1)]


def _invented_nodes(good: dict[str, Any], rng: Random) -> str:
    votes = [{"subject": rng.choice(_EXPERTS), "styles": rng.choices(_EXPERTS, k=rng.randint(1, 12))} for _ in range(5)]
    return json.dumps({**good, "votes": votes})


def _some_invented(good: dict[str, Any], rng: Random) -> str:
    strange = {"subject": rng.choice(_EXPERTS), "styles": [rng.choice(_EXPERTS), "anime"]}
    return json.dumps({**good, "votes": rng.sample([*good["votes"][:4], strange], k=5)})


def _wrong_types(good: dict[str, Any], rng: Random) -> str:
    spoilt = {name: rng.choice(_JUNK) if rng.random() < 0.7 else value for name, value in good.items()}
    if rng.random() < 0.5:
        spoilt["votes"] = [
            {"subject": rng.choice(_JUNK), "styles": rng.choice(_JUNK)} if rng.random() < 0.6 else rng.choice(_JUNK)
            for _ in range(rng.randint(0, 7))
        ]
    return json.dumps(spoilt)


def _missing_keys(good: dict[str, Any], rng: Random) -> str:
    kept = rng.sample(sorted(good), k=rng.randrange(len(good)))
    return json.dumps({name: good[name] for name in kept})


def _extra_keys(good: dict[str, Any], rng: Random) -> str:
    extra = {rng.choice(_EXPERTS) + str(n): rng.choice(_JUNK) for n in range(rng.randint(1, 30))}
    return json.dumps({"expert": "sdxl", "ranking": list(_EXPERTS), **extra, **good})


def _not_an_object(good: dict[str, Any], rng: Random) -> str:
    return rng.choice(
        (json.dumps([good["prompt"]]), "[]", "3", "true", '"watercolor"', "NaN", "9" * 6000, '{"a":' * 3000)
    )


def _stuffed(good: dict[str, Any], rng: Random) -> str:
    votes = [rng.choice(good["votes"]) for _ in range(rng.randint(100, 2000))]
    return json.dumps({**good, "votes": [{**vote, "styles": vote["styles"] * 50} for vote in votes[:50]] + votes})


def _in_chatter(good: dict[str, Any], rng: Random) -> str:
    fence = rng.choice(("```json\n", "```\n", "{sure} ", "{}", ""))
    return rng.choice(_CHATTER) + fence + json.dumps(good) + rng.choice(("\n```", " Enjoy!", "}}}", ""))


def _unfaithful(good: dict[str, Any], rng: Random) -> str:
    lie = rng.choice(
        ("You fill in a form about one request for a picture.", "I cannot help with that.", "sdxl, masterpiece", "")
    )
    lies = {
        "prompt": lie,
        "negative": lie,
        "language": rng.choice(("xx", "zh", "", "he")),
        "text_to_render": [lie] * 30,
    }
    return json.dumps({**good, **lies, "edit": rng.choice((True, False)), "paradigm": rng.choice(("order", "prompt"))})


def _garbled(good: dict[str, Any], rng: Random) -> str:
    text = list(json.dumps(good))
    for _ in range(rng.randint(1, 60)):
        text[rng.randrange(len(text))] = rng.choice('{}[]",:\\\u0000\ufffd\u202e0e-')
    return "".join(text)


MALFORMED: dict[str, Callable[[dict[str, Any], Random], str | None]] = {
    "prose": _prose,
    "empty": _empty,
    "null": _null,
    "truncated": _truncated,
    "invented nodes": _invented_nodes,
    "some invented": _some_invented,
    "wrong types": _wrong_types,
    "missing keys": _missing_keys,
    "extra keys": _extra_keys,
    "not an object": _not_an_object,
    "stuffed": _stuffed,
    "in chatter": _in_chatter,
    "unfaithful": _unfaithful,
    "garbled": _garbled,
}
"""Kind -> function that spoils a good answer with random numbers; `None` is a message without content."""


def fail(chat: LocalChat, kind: str, **details: Any) -> ChatFault:
    """Make a chat server fail from now on, in a way that it knows or in one of `MALFORMED`."""
    if kind in MALFORMED:
        details["spoil"] = partial(MALFORMED[kind], rng=Random(0))  # noqa: S311  # a mess, not a secret
    return chat.fail("malformed" if kind in MALFORMED else kind, **details)
