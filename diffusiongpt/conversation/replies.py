"""What a conversation replies to a turn, in Chinese where the turn is in Chinese, else in English."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from diffusiongpt.understanding import language_of

if TYPE_CHECKING:
    from diffusiongpt.flow import Route
    from diffusiongpt.pictures import Generation


def in_chinese(text: str) -> bool:
    """Whether a turn is to be answered in Chinese."""
    return language_of(text).startswith("zh")


def drawn(text: str, generation: Generation) -> str:
    """Which expert drew, and why that one."""
    said = _drawn(text, generation)
    if len(generation.route.candidates) == 1:
        return said
    if in_chinese(text):
        return f"{said}{why(generation.route)}"
    return f"{said} Chosen: {generation.route.sentence()}"


def another(text: str, generation: Generation) -> str:
    """Of a variation."""
    return (
        f"同样的画面，另一张：{drawn(text, generation)}"
        if in_chinese(text)
        else f"Another one of the same: {drawn(text, generation)}"
    )


def edited(text: str, generation: Generation) -> str:
    """Of an edit by an expert that edits."""
    if in_chinese(text):
        return f"已按要求修改：{drawn(text, generation)}"
    return f"Changed the picture as you said: {drawn(text, generation)}"


def no_editor(text: str, description: str, generation: Generation) -> str:
    """Of an edit where no expert edits."""
    if in_chinese(text):
        return f"这里没有能按指令修改图片的专家，于是按“{description}”重新绘制。{drawn(text, generation)}"
    return (
        f"No expert here changes pictures by instruction, so it was drawn again as {description!r}. "
        f"{drawn(text, generation)}"
    )


def painted(text: str, generation: Generation, where: tuple[int, int] | None) -> str:
    """Of a part that a mask marks; `where` is the picture and the turn, if it is not the last one."""
    if in_chinese(text):
        place = "" if where is None else f"第 {where[1] + 1} 轮第 {where[0] + 1} 张图中"
        return f"重画了{place}蒙版标出的部分，其余不变。{drawn(text, generation)}"
    place = "" if where is None else f" in picture {where[0] + 1} of turn {where[1] + 1}"
    return f"Drew what the mask marks{place}; the rest of the picture stays. {drawn(text, generation)}"


def chosen(text: str, turn: int, picture: int, pictures: int) -> str:
    """Of a turn that only says which picture is meant."""
    if in_chinese(text):
        place = f"的第 {picture + 1} 张图" if pictures > 1 else "的图"
        return f"回到第 {turn + 1} 轮{place}；接下来的修改从它开始。"
    place = f"picture {picture + 1} of turn {turn + 1}" if pictures > 1 else f"the picture of turn {turn + 1}"
    return f"Back to {place}; what you say next goes on from it."


def missing(text: str, number: int, pictures: Sequence[int]) -> str:
    """Of a turn that speaks of a picture that there is not.

    Args:
        text: The turn.
        number: The number that it names, -1 for one before the first.
        pictures: How many pictures each turn so far showed.
    """
    count = pictures[-1] if pictures[-1] > 1 else len(pictures)
    if in_chinese(text):
        wrong = "第一张之前没有图片。" if number < 0 else f"没有第 {number} 张图。"
        return f"{wrong}目前有 {count} 张；请说“第一张”“最后一张”等。"
    wrong = "No picture was drawn before the first one." if number < 0 else f"Picture {number} was not drawn."
    so_far = "There is one" if count == 1 else f"There are {count}"
    return f"{wrong} {so_far} so far; say which you mean, such as 'the first one' or 'the last one'."


def why(route: Route) -> str:
    """The choice by its scores, in Chinese; `Route.sentence` is in English."""
    first, *others = route.candidates
    if not others:
        return "只有它可以绘制。"
    listed = f"{first.expert} 得分 {first.score:+.2f}，其次是 {others[0].expert}（{others[0].score:+.2f}）"
    return f"候选专家共 {len(route.candidates)} 位：{listed}。"


_THANKS = re.compile(r"\b(?:thank\w*|thx|ty|cheers)\b|谢|辛苦", re.IGNORECASE)


def courtesy(text: str) -> str:
    """Of thanks and praise."""
    if in_chinese(text):
        return "不客气！还想改什么，直接说就行。" if _THANKS.search(text) else "好的！还想改什么，直接说就行。"
    return f"{'You are welcome!' if _THANKS.search(text) else 'Good!'} Say what to change, or what to draw next."


def _drawn(text: str, generation: Generation) -> str:
    if in_chinese(text):
        return f"由 {generation.drawn_by} 绘制，种子 {generation.seeds[0]}。"
    return f"{generation.drawn_by} drew it with seed {generation.seeds[0]}."
