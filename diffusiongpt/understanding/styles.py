"""A style that a text names as one, although the taxonomy has no words for it: "Nordic-style", "安藤忠雄风格"."""

from __future__ import annotations

import re

_NO_STYLES = frozenset([
    "hair", "life", "free", "same", "similar", "writing", "fashion", "seating", "buffet", "clothing", "dress",
    "this", "that", "any", "no", "some", "own", "sense", "family", "cooking", "swimming", "overall", "different",
    "various", "the", "a", "new", "各种", "不同", "同样", "相同", "同一", "类似", "多种", "什么",
    "这种", "那种", "换个", "换一个", "换种",
    "换一种", "改变", "变换", "穿衣", "生活", "整体", "采用", "整体采用", "画面", "画面为",
])  # fmt: skip
"""Words before "style" that name none."""

_OF = re.compile(r"\bin (?:the |an? )?style of (?P<named>[^,.;\n]{2,60})", re.IGNORECASE)
_STYLE = re.compile(
    r"[ -]styled?\b(?!\s*(?:of|clothes|clothing|dress|shirt|hat|jacket|suit|shoes|sofa|skirt|coat|hair)\b)",
    re.IGNORECASE,
)
_NAMED_BEFORE = re.compile(
    r"(?:^|[,.;:]|\b(?:in|with|of|using|has|have|adopts?|adopting|presents?|presenting|an?|the|"
    r"overall))\s*(?P<named>[\w'’][\w'’-]*(?: [\w'’-]+){0,3})$",
    re.IGNORECASE,
)
_LEADING = re.compile(r"^(?:an? |the |overall |in |with |of |using )+", re.IGNORECASE)
_CHINESE = re.compile(
    r"(?P<named>[\u4e00-\u9fffA-Za-z0-9·・]{2,16}?)(?:艺术风格|风格|画风|スタイル)(?!的?(?:黑色|白色|红色)?(?:连衣裙|礼服|"
    r"晚礼服|衣服|裙子|外套|帽子|服装|西装|发型))"
)


def other_style(text: str) -> str:
    """The words by which a text names a style; empty if it names none as such."""
    for match in _OF.finditer(text):
        return match["named"].strip().casefold()
    for match in _STYLE.finditer(text):
        before = _NAMED_BEFORE.search(text[max(0, match.start() - 50) : match.start()])
        words = _LEADING.sub("", before["named"]).casefold() if before else ""
        if words and words.split()[-1] not in _NO_STYLES:
            return words
    for match in _CHINESE.finditer(text):
        if match["named"] not in _NO_STYLES:
            return match["named"].casefold()
    return ""
