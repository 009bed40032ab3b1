"""Answers to questions about a picture, from what its record says, in English or in Chinese as the question is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from diffusiongpt.conversation.replies import courtesy, in_chinese, why
from diffusiongpt.understanding import is_small_talk, simplified

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffusiongpt.flow import Route
    from diffusiongpt.pictures import Generation


def _seed(about: Generation, *, zh: bool) -> str:
    return f"种子是 {about.seeds[0]}。" if zh else f"The seed was {about.seeds[0]}."


def _seconds(about: Generation, *, zh: bool) -> str:
    seconds = sum(about.timings.values())
    if zh:
        return f"用了 {seconds:.1f} 秒。" if seconds else "没有记录用了多久。"
    return f"It took {seconds:.1f} seconds." if seconds else "How long it took was not recorded."


def _parameters(about: Generation, *, zh: bool) -> str:
    listed = (f"{name} {value}" for name, value in about.params.items() if name != "prompt")
    return "，".join(listed) + "。" if zh else ", ".join(listed) + "."


def _prompt(about: Generation, *, zh: bool) -> str:
    prompt = about.params.get("prompt")
    return f"提示词是“{prompt}”。" if zh else f"The prompt was {prompt!r}."


def _licence(about: Generation, *, zh: bool) -> str:
    record = about.records[0]
    look = f"diffusiongpt zoo show {record.drawn_by}"
    if zh:
        return f"{record.drawn_by} 即 {record.repo}；许可证见“{look}”。"
    return f"{record.drawn_by} is {record.repo}; '{look}' has its licence."


def _price(about: Generation, *, zh: bool) -> str:
    if about.records[0].weights:
        return "在本机绘制，不花钱。" if zh else "It was drawn on this machine, which costs nothing."
    look = f"diffusiongpt zoo show {about.drawn_by}"
    return f"由在线服务绘制；价格见“{look}”。" if zh else f"It was drawn by a service; '{look}' has its price."


_FACTS: tuple[tuple[str, Callable[..., str]], ...] = (
    (r"\bseed|种子", _seed),
    (r"\bhow long|\bseconds|\btime|多久|时间|多长", _seconds),
    (r"\bsteps?\b|\bparam|\bsetting|\bsize|步|参数|设置|尺寸", _parameters),
    (r"\bprompt|提示", _prompt),
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
    zh = in_chinese(text)
    if about is None or is_small_talk(text):
        return _without_picture(text, zh=zh)
    plain = simplified(text)
    for pattern, fact in _FACTS:
        if re.search(pattern, plain, re.IGNORECASE):
            return fact(about, zh=zh)
    route = chosen or about.route
    if _OTHERS.search(plain):
        names = [one.expert for one in route.candidates[:5]]
        return f"候选专家有 {'、'.join(names)}。" if zh else f"Candidates were {', '.join(names)}."
    if zh:
        return f"由 {about.drawn_by} 绘制，种子 {about.seeds[0]}。{why(route)}"
    return f"{about.drawn_by} drew it with seed {about.seeds[0]}: {route.sentence()}"


def _without_picture(text: str, *, zh: bool) -> str:
    """The answer to thanks, and to a question before the first picture."""
    if is_small_talk(text):
        return courtesy(text)
    if zh:
        return "还没有画任何图片。先说要画什么，再说怎么改：“换成蓝色”“再来一张”。"
    return "Nothing was drawn yet. Say what to draw, and then how to change it: 'but blue', 'another one'."
