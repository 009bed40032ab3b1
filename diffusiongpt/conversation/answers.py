"""Answers to questions about a picture, from what its record says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusiongpt.flow import Route
    from diffusiongpt.pictures import Generation


def _seconds(about: Generation) -> str:
    seconds = sum(about.timings.values())
    return f"It took {seconds:.1f} seconds." if seconds else "How long it took was not recorded."


def _parameters(about: Generation) -> str:
    return ", ".join(f"{name} {value}" for name, value in about.params.items() if name != "prompt") + "."


def _licence(about: Generation) -> str:
    record = about.records[0]
    return f"{record.drawn_by} is {record.repo}; 'diffusiongpt zoo show {record.drawn_by}' has its licence."


def _price(about: Generation) -> str:
    if about.records[0].weights:
        return "It was drawn on this machine, which costs nothing."
    return "It was drawn by a service; 'diffusiongpt zoo show' has its price."


_FACTS: tuple[tuple[str, Callable[[Generation], str]], ...] = (
    (r"\bseed|种子", lambda about: f"The seed was {about.seeds[0]}."),
    (r"\bhow long|\bseconds|\btime|多久|时间|多长", _seconds),
    (r"\bsteps?\b|\bparam|\bsetting|\bsize|步|参数|设置|尺寸", _parameters),
    (r"\bprompt|提示", lambda about: f"The prompt was {about.params.get('prompt')!r}."),
    (r"\blicen[cs]e|\bcommercial|许可|商用", _licence),
    (r"\bcosts?\b|\bprice|\bpay\b|\bfree\b|钱|费|价", _price),
)
"""Words of a question, and what answers it."""

_OTHERS = re.compile(r"\bother|\belse\b|\bwhich models|\bexperts\b|哪些|还有|别的", re.IGNORECASE)


def answer(text: str, about: Generation | None = None, chosen: Route | None = None) -> str:
    """What is known of a picture, chosen by the words of a question.

    Args:
        text: The question.
        about: The picture; `None` if none was drawn yet.
        chosen: The route by which its expert was chosen.
    """
    if about is None:
        return "Nothing was drawn yet. Say what to draw, and then how to change it: 'but blue', 'another one'."
    for pattern, fact in _FACTS:
        if re.search(pattern, text, re.IGNORECASE):
            return fact(about)
    route = chosen or about.route
    if _OTHERS.search(text):
        return f"Candidates were {', '.join(one.expert for one in route.candidates[:5])}."
    return f"{about.drawn_by} drew it with seed {about.seeds[0]}: {route.sentence()}"
