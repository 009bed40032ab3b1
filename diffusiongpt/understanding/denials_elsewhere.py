"""What a prompt in Japanese, Korean, Russian, Arabic or a Romance or Germanic language says must not be there."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diffusiongpt.understanding.caseless import Caseless
from diffusiongpt.understanding.languages import is_other_language

_KANA = re.compile("[\u3041-\u30fa]")
_JAPANESE = re.compile(
    r"(?P<items>(?!何气|仕方|间违|申し訳|际限|数)[一-龥ァ-ヶー々]{1,12})(?:の|が|は|も)?"
    r"(?:(?:いない|ない)(?=[のでに、。\s一-龥ァ-ヶ]|$)|(?:无し|なし|抜き)(?=[のでに、。\s]|$))"
    r"|(?P<put_on>[一-龥ァ-ヶー々]{1,12})を(?:かぶって|被って|着て|持って|つけて|付けて|はいて|履いて|かけて)い?ない"
    r"|(?P<left_out>[一-龥ァ-ヶー々]{1,12})(?:を|は)(?:入れない|描かない|いらない|不要|无しで)"
)
_LATIN = Caseless(
    r"\b(?:sin(?=[^.]*\b(?:un|una|el|la|los|las|del|con|de|en)\b)|(?<!comic )"
    r"sans(?![- ]?serif|\s+(?:from|the|fonts?|typeface)\b)|ohne|senza|zonder|"
    r"sem(?!\s+(?:images?|micro\w+|scans?|photo\w*|pictures?|views?|style|section|and|of|in|with|showing)\b))\s+"
    r"(?:un[ae]?\s+|d[eu]s?\s+|eine[nmrs]?\s+|ningun[ao]?s?\s+|nessun[ao]?\s+)?"
    r"(?P<items>[^\W\d_][\w'’-]*(?:\s+(?:ni|ou|et|oder|und|o|y|e)\s+[^\W\d_][\w'’-]*)?)"
)
_NAME = re.compile(r"S(?:ans|ANS|em|EM)\b")
"""Names in English texts: of a font, of a figure, of a microscope."""

_OTHERS = re.compile(
    r"\bбез\s+(?P<russian>\w+(?:\s+и\s+\w+)?)|(?P<korean>[가-힣]+?)(?:이|가|은|는|도)?\s*(?:없이|없는|제외)(?![가-힣])"
    r"|(?:بدون|من دون|بلا)\s+(?P<arabic>[^\s،,.]+)"
)


def denials_elsewhere(text: str) -> Iterator[re.Match[str]]:
    """Where a text denies something in these languages; the one group that matched is what it denies."""
    yield from (one for one in _LATIN.finditer(text) if not _NAME.match(one.group()) or is_other_language(text))
    if not text.isascii():
        if _KANA.search(text):
            yield from _JAPANESE.finditer(text)
        yield from _OTHERS.finditer(text)
