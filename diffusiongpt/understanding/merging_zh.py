"""Changes of a description in Chinese that an order asks for, each empty where that asks for something else.

Traditional characters are found as simplified ones; what stays of a description has its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from diffusiongpt.understanding.cues import cues, each_of, parts
from diffusiongpt.understanding.languages import simplified

_COUNT = r"(?:[一两二三四五六七八九十几\d]+\s?[个只条张朵棵辆座位匹头本把件顶副双间栋艘群对碗杯盘])"
_HOLDS = r"(?:戴|穿|拿|抱|背|带|系|骑|举|拴|披|握|提|撑|打|牵|遛|养|有|长)着?"
_PLAIN = r"[^，。、的和与及在]"


def _find(pattern: str, description: str) -> re.Match[str] | None:
    return re.search(pattern, simplified(description))


def _spliced(description: str, span: tuple[int, int], new: str) -> str:
    return f"{description[: span[0]]}{new}{description[span[1] :]}"


def _behind(description: str, words: str) -> str:
    return f"{description.rstrip(' ,，.。')}，{words}"


def _thing(words: str) -> str:
    """A thing without what only points at it."""
    plain = re.sub(rf"^(?:{_COUNT}|它的?|他的?|她的?|那[个只条张顶]?|这[个只条张顶]?|所有的?|里面的?)", "", words)
    return plain or words


def _recolored(description: str, order: str) -> str:
    found = parts("colored_zh", order)
    if found is None:
        return ""
    thing, color = _thing(found["what"]), found["color"]
    colors = cues("a_color_zh").pattern
    named = _find(
        rf"(?P<color>(?:{colors}|[红蓝绿黄紫粉橙金银黑白灰棕褐青]))?(?P<of>的?){re.escape(simplified(thing))}",
        description,
    )
    if named is None:
        return _behind(description, f"{color}的{thing}")
    of = named["of"] if named["color"] else "的"
    return _spliced(description, named.span(), f"{color}{of}{thing}")


def _exchanged(description: str, order: str) -> str:
    found = parts("replaced_zh", order)
    if found is None:
        return ""
    old = _thing(found["old"])
    counted = bool(re.match(_COUNT, found["new"]))
    named = _find(rf"{_COUNT + '?' if counted else ''}{re.escape(simplified(old))}", description)
    if named:
        return _spliced(description, named.span(), found["new"])
    if old in ("背景", "天空", "前景", "地面"):
        return _behind(re.sub(rf"，{old}是[^，。]+", "", description), f"{old}是{found['new']}")
    return _behind(description, f"{found['new']}{old}") if found["new"].endswith("的") else ""


def _grounded(description: str, order: str) -> str:
    found, before = parts("ground_zh", order), _find(r"[^，。的一]{1,5}(?=背景)", description)
    return _spliced(description, before.span(), found["new"].removesuffix("的")) if found and before else ""


def chinese_becoming(description: str, order: str) -> str:
    """The description with its main thing turned into another."""
    found = parts("becomes_zh", order)
    if found is None:
        return ""
    ends = "坐站躺趴睡在跑走飞戴穿拿骑看，。"
    counted = rf"{_COUNT}[^{ends}]{{1,6}}(?=[{ends}]|$)" if re.match(_COUNT, found["what"]) else ""
    main = (counted and _find(counted, description)) or _find(r"(?<=[上里中]的)[^，。的]{1,6}(?=，|。|$)", description)
    return _spliced(description, main.span(), found["what"]) if main else ""


def _removed(description: str, order: str) -> str:
    found = parts("removed_zh", order) or parts("removed_last_zh", order)
    if found is None:
        return ""
    what = found["what"] or found.get("thing", "")
    left = _cut(description, simplified(_thing(what)))
    return _behind(description, f"没有{what}") if left == description else left


def _cut(description: str, thing: str) -> str:
    """The description without a thing, and without the words that tie it to the rest."""
    phrase = rf"{_COUNT}?(?:{_PLAIN}{{1,4}}的|{_PLAIN}{{1,3}}?)??{re.escape(thing)}"
    side = r"(?:上|里|中|内|下|前|后|边|旁|旁边|上面|下面|里面|前面|后面|中间)"
    for pattern in (
        rf"，(?:上面|下面|旁边|前面|后面|身边|背景里?|里面)?(?:还|也)?有?{phrase}(?=，|。|$)",
        rf"(?:坐|站|躺|趴|睡|靠|停|放|走|飞|挂)?在{phrase}{side}?(?=，|。|$|的)的?",
        rf"(?:和|与|及|以及|跟|、|还有){phrase}",
        rf"{phrase}(?:和|与|及|以及|跟|、)",
        rf"{_HOLDS}{phrase}的?",
    ):
        match = _find(pattern, description)
        if match is None:
            continue
        left = _spliced(description, match.span(), "").strip("，。 ")
        if len(left) > 1 and not left.endswith("的"):
            return left
    return description


def _given(description: str, order: str) -> str:
    found = parts("given_zh", order)
    if found is None or not re.search("[给戴穿系披拴背举拿抱骑]", simplified(order)):
        return ""
    who, what = _thing(found["who"]), found["what"]
    verb = next((one for one in re.findall("[戴穿系披拴背举拿抱骑]", simplified(order[len(found["who"]) :]))), "有")
    having = f"{verb}着{what}" if verb != "有" else f"有{what}"
    if found["who"] in ("它", "他", "她", "它们", "他们", "她们"):
        counted = _find(_COUNT, description)
        return (
            _spliced(description, (counted.end(), counted.end()), f"{having}的")
            if counted
            else _behind(description, having)
        )
    named = _find(
        rf"(?P<count>{_COUNT})?(?P<kind>{_PLAIN}{{0,4}}?的?)(?P<who>{re.escape(simplified(who))})", description
    )
    if named is None:
        return _behind(description, f"{who}{having}")
    place = named.end("count") if named["count"] else named.start("who")
    return _spliced(description, (place, place), f"{having}的")


def _counted(description: str, order: str) -> str:
    found = parts("counted_zh", order)
    if found is None:
        return ""
    measure, noun = re.escape(simplified(found["measure"])), re.escape(simplified(found["noun"]))
    named = _find(rf"(?P<number>[一两二三四五六七八九十\d]+)\s?{measure}(?=[^，。]{{0,6}}?{noun})", description)
    return _spliced(description, named.span("number"), found["number"]) if named else ""


def _at_another_moment(description: str, order: str) -> str:
    """The description with another time of day, weather, season, shape or view, and without the one it had."""
    plain = simplified(order)
    for group in each_of("moments_zh"):
        if not re.fullmatch(rf"(?:在|是|到|要)?(?:一个)?\S{{0,2}}?(?:{group})(?:的|里|时分?|时候|场景|版)?", plain):
            continue
        match = _find(
            rf"，(?:在)?\S{{0,2}}?(?:{group})(?:的|里|时分?)?(?=，|。|$)|(?:在)?(?:{group})(?:里|时)?的|在(?:{group})",
            description,
        )
        left = _spliced(description, match.span(), "").strip("，。 ") if match else ""
        return _behind(left or description, order)
    return _by_degree(description, order)


def _by_degree(description: str, order: str) -> str:
    """The description with a degree of all of it, and without the opposite of that."""
    for view, words in (("farther", "远景"), ("closer", "近景")):
        if cues(view).fullmatch(simplified(order)):
            return _behind(re.sub("，[远近]景", "", description), words)
    match = re.fullmatch(r"整体(?P<much>.+)一些", order)
    if match is None:
        return ""
    return _behind(re.sub(rf"，整体(?:{'|'.join(_OPPOSITES.get(match['much'], ('-',)))})一些", "", description), order)


_OPPOSITES = {
    "亮": ("暗",), "暗": ("亮",), "大": ("小",), "小": ("大",), "冷": ("暖",), "暖": ("冷",), "柔和": ("清晰", "锐利"),
    "清晰": ("柔和",), "素": ("鲜明",), "鲜明": ("素",), "近": ("远",), "远": ("近",),
    "简洁": ("丰富",), "丰富": ("简洁",),
}  # fmt: skip


def _added(description: str, order: str) -> str:
    """What is added, or happens, behind the description."""
    if found := parts("added_zh", order):
        return _behind(description, f"有{found['what']}")
    if found := parts("placed_zh", order):
        return _behind(description, f"{found['where']}有{found['what']}")
    plain = re.sub("^(?:把|将|让)(?:它|他|她)?", "", order)
    return _behind(description, plain) if plain != order else ""


CHINESE_CHANGES: tuple[Callable[[str, str], str], ...] = (
    _counted,
    _grounded,
    _recolored,
    _removed,
    _exchanged,
    _given,
    _at_another_moment,
    _added,
)
"""In the order in which they are tried."""
