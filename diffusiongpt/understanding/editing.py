"""Whether a text asks to change a picture, and which one."""

from __future__ import annotations

import re
from dataclasses import dataclass

from diffusiongpt.understanding.caseless import Caseless
from diffusiongpt.understanding.wording_elsewhere import CHANGES_ELSEWHERE

_PICTURE = r"(?:image|picture|photo(?:graph)?|pic|drawing|painting|illustration|logo|screenshot|artwork|portrait|one)"
_POINTED = (
    rf"(?:this|that|the (?:attached|uploaded|provided|given|above|original|previous|last|latest|"
    rf"current|same)|my (?:uploaded )?|the "
    rf"(?:first|second|third|fourth|1st|2nd|3rd|4th|left|right|other))\s*{_PICTURE}"
)
_POINTED_ALONE = (
    r"(?:it|this|that|these|those|everything|him|her(?:self)?|them|his|its|their|"
    r"the\s+(?!(?:picture|image)\s+of\b)(?:(?:old|young|big|small|little|left|right|first|second|"
    r"third|last|whole|entire|red|blue|green|black|white)\s+)?[\w-]+)"
)
_POLITE = (
    r"(?:(?:please|now|then|and|ok(?:ay)?|can you|could you|would you|i want you to|i'd like you to|just|also)[\s,]+)*"
)
_CHANGES = (
    r"(?:edit|retouch|modify|restyle|upscale|colou?ri[sz]e|recolou?r|change|remove|erase|delete|"
    r"replace|swap|crop|brighten|darken|blur|sharpen|restore|enhance"
    r"|extend|expand|outpaint|inpaint|relight|rotate|flip|mirror|fix|clean up|cut out|enlarge|"
    r"resize|adjust|convert|transform|turn|make|give|add|put|move|get rid of|keep|dress)"
)
_SURE = (
    r"(?:edit|retouch|modify|restyle|upscale|colou?ri[sz]e|recolou?r|remove|erase|delete|replace|"
    r"swap|crop|brighten|darken|blur|sharpen|restore|enhance|outpaint|inpaint|relight|get rid of|"
    r"cut out|change)"
)
_ORDERS = re.compile(
    rf"^\s*{_POLITE}(?:{_SURE}\s+(?:all\s+)?(?P<sure>(?:the|this|that|my|his|her|its|their|it|them|"
    rf"a|an|any|all|everything|(?!(?:of|in|for|meet|maker|agent)\b)[\w-]+)(?:\s+[\w-]+)?)"
    rf"|(?:turn|convert|transform|make|give|keep|dress|rotate|flip|mirror|extend|expand|fix|adjust|"
    rf"enlarge|resize|clean up|move)\s+(?P<object>{_POINTED}|{_POINTED_ALONE})(?=\s|[.,;!?]|$)"
    r"|(?:add|put)\s+[^.,;]{1,60}?\s+(?:to|on|onto|in|into|behind|around|over)\s+(?P<onto>(?:the|"
    r"this|that|my|his|her|its|their|it|him|them)\b(?:\s+[\w-]+)?)"
    r"|add\s+(?:(?:an?|some|more|the|two|three)\s+[^.,;]{1,40}|(?!to\b|up\b)[\w-]+(?:\s+[\w-]+){0,2})[.!]?\s*$)",
    re.IGNORECASE,
)
_CREATES = re.compile(
    r"^\s*(?:(?:please|now|can you|could you)[\s,]+)*(?:make|give|turn|keep)\s+(?:me|us|a|an|some|"
    r"the\s+(?:picture|image|photo)\s+of|it\s+(?:rain|snow)\b|the\s+(?:[\w-]+\s+){1,3}(?:out of|"
    r"from)\b)",
    re.IGNORECASE,
)
_SAME = re.compile(r"^\s*(?:now\s+)?(?P<same>the same\b[^.;,]{1,40}?)\s*,?\s+(?:but|except|only)\b", re.IGNORECASE)
_MENTIONS = Caseless(rf"\b(?P<pointed>{_POINTED})\b")
_CJK_POLITE = r"(?:(?:请|麻烦|帮我|给我|现在|然后|再|你|能不能|能否|可以|可不可以|帮忙|稍微)[，,\s]*)*"
_CJK_CHANGE = (
    r"(?:改成|改为|改|染成|刷成|换成|换为|换|变成|变为|变|去掉|去除|移除|删掉|删除|抹掉|擦掉|加上|加|添加|涂成|调成|调|转成|转换成|转为|放大|缩小|裁剪|修复|P成|p成|"
    r"P掉|p掉|做成|画成|移到|戴上|穿上)"
)
_CJK_ORDERS = re.compile(
    rf"^\s*{_CJK_POLITE}(?:(?:把|将)(?P<object>[^，。；\n]{{1,24}}?)(?:都|全部)?{_CJK_CHANGE}"
    rf"|(?:去掉|去除|移除|删掉|删除|抹掉|擦掉|P掉|p掉|抠掉)(?P<removed>[^，。；\n]{{1,20}})"
    rf"|给(?!我|你|大家|您|咱|一)(?P<onto>[^，。；\n]{{1,12}}?)(?:加上?|戴上?|换上?|穿上?|添上?|画上?|配上?)"
    rf"|让(?P<let>背景|天空|它|他|她|画面|光线|颜色)[^，。；\n]{{0,16}}(?:变|更|成)"
    rf"|(?:修改|编辑|改一?下?|修一?下?|修复|上色|放大)(?P<edited>(?:这|那|我|上传|图|原图|照片)[^，。；\n]{{0,12}})"
    rf"|(?:背景|天空)变成|(?:背景|天空)?(?:换成|改成|改为|调成|转成))"
)
_CJK_MENTIONS = re.compile(
    r"(?P<pointed>(?:这张|这幅|那张|那幅|上一张|刚才那张|我的这张|上传的)(?:图片|图像|照片|图|画)|第[一二三四五\d]张|原图).{0,12}?(?:改成|"
    r"换成|变成|变为|去掉|加上|改为|里|中|为基础|风格)|(?P<plain>图中的?|图里的?|照片里的?)"
)


@dataclass(frozen=True, kw_only=True)
class Edit:
    """Whether a picture is to be changed, and what the text refers to, in its own words."""

    wanted: bool = False
    refers_to: str = ""


def read_edit(text: str) -> Edit:
    """Read a text in simplified characters and without quoted passages."""
    pointed = _MENTIONS.search(text) or _CJK_MENTIONS.search(text)
    ordered = None if _CREATES.match(text) else _ORDERS.match(text)
    ordered = ordered or _CJK_ORDERS.match(text) or _SAME.match(text) or CHANGES_ELSEWHERE.match(text)
    if ordered is None and pointed is None:
        return Edit()
    if pointed is not None:
        words = next(group for group in pointed.groups() if group)
    else:
        words = next((group for group in ordered.groups() if group), "") if ordered else ""
    if (
        ordered is None
        and not re.search(
            rf"\b{_CHANGES}\b|\bbut\b|\bwith(?:out)?\b|\bstyle\b|\bversion of\b|\b(?:in|from|of) (?:this|"
            rf"the attached|the uploaded|my)\b",
            text,
            re.IGNORECASE,
        )
        and not re.search("[\u4e00-\u9fff]", text)
    ):
        return Edit(refers_to=words.strip())
    return Edit(wanted=True, refers_to=words.strip())
