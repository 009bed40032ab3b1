"""What a prompt says must not be there: each denial reaches as far as its noun, and names are left alone.

"Photograph without people of an old library" denies people, not the library; "a no smoking sign" denies nothing, nor
do "not only a cat", "No Man's Sky" or "it is not far".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from diffusiongpt.embedding import CJK
from diffusiongpt.understanding.caseless import Caseless
from diffusiongpt.understanding.denials_elsewhere import denials_elsewhere

NAMES = re.compile(
    # signs and rules: a picture of the sign has the sign in it
    r"\bno[- ](?:smoking|parking|entry|entrance|trespassing|fishing|swimming|stopping|standing|"
    r"littering|loitering|hunting|camping|diving|exit|vacancy"
    r"|vacancies|u-?turns?|left turn|right turn|thoroughfare|outlet|dogs allowed|pets allowed|"
    r"dogs|bicycles|cell ?phones?|photography|food or drinks?|soliciting|signal)"
    r"(?=\s+(?:sign|symbol|zone|icon|sticker|area|poster|notice|board|signpost|logo|warning)s?\b)"
    r"|(?<!\w)(?:an?|the|this|that|his|her|my|their|our|your|one|two|three|some|old|red|"
    r"big)\s+no[- ][a-z-]+(?:\s+[a-z-]+){0,2}?\s+(?:sign|symbol|zone|icon|sticker|area|poster|"
    r"notice|policy|look|style|rule)s?\b"
    r"|\bdo not (?:disturb|enter|touch|cross|feed)\b|\bkeep (?:out|off)\b"
    # names and titles
    r"|\bNo(?:\.|°|º)\s?\d+\b|\bno\.? ?\d+\b|\bnumber no\b|\b(?:Dr|Doctor)\.? No\b|"
    r"\bNo Man['’]s (?:Sky|Land)\b|\bno man['’]s land\b|\bNo Country for Old Men\b|\bNo Way Home\b"
    r"|\bNo Time to Die\b|\b(?-i:No Face)\b|\bNo-?Face\b|\bno-(?!one\b)[a-z]+\b(?!\s+(?:background))|"
    r"\bforget-me-nots?\b|\btouch-me-nots?\b|\bnot-for-profit\b|\b(?:sugar|gluten|duty|hands|free|"
    r"cruelty)[- ]free\b"
    r"|\bNoh?\s+(?:theatre|theater|mask|play|drama)\b|\bWithout a Trace\b"
    # idioms
    r"|\bnot (?:only|just|merely|simply)\b|\bnot far (?:from|away)\b|\blast but not least\b|"
    r"\bwhether or not\b|\b(?:why|if|or) not\b|\bno (?:matter|doubt|longer|less than|fewer than|"
    r"more than|other than|sooner|wonder|ordinary|mere|stranger)\b"
    r"|\bin no time\b|\bwithout (?:a )?(?:doubt|hesitation|fail|question|warning|a care|effort|"
    r"end|exception|further ado|moving|looking|touching|falling|stopping|losing)\b|"
    r"\bnothing but\b|\bno big deal\b|\blike no (?:other|one)\b|\bsecond to none\b",
    re.IGNORECASE,
)
"""Names, signs and idioms with a word of denial that deny nothing."""

CJK_NAMES = re.compile(
    r"不锈钢|不倒翁|无花果|无人机|无人驾驶|无线|无限|无数|无尽|无边|无垠|无比|无论|无袖|无影|无框|无缝|无穷|"
    r"无声|无名|无敌|无忧|无奈|无辜|无助|无所|无精打采|无意|"
    r"无畏|无暇|无瑕|无形|毫无|无中生有|无脸男"
    # 别 in other words
    r"|[分特告级区离类辨识差派性个送惜诀久临饯话作鉴各甄判]别|有别于|"
    r"别墅|别具|别出心裁|别开生面|别致|别扭|别针|别名|别称|别人|别处|别样|别提"
    r"|没有什么比|没有尽头|不仅仅?|不但|不得不|不要紧|不知|不同|不断|不规则|不远|不久|不朽|不可思议|不见不散|"
    r"不好意思|禁止(?:吸烟|入内|停车|通行|进入|拍照|触摸|"
    r"游泳|攀爬|鸣笛|掉头|左转|右转|饮食|打扰|钓鱼|驶入|喧哗|践踏|乱扔垃圾)(?=的?(?:标志|标识|标牌|牌|"
    r"牌子|图标|告示|警示|招牌|符号|字样))|紫禁|禁止符号"
)

_BREAKS = (
    r"of|in|on|at|with|by|from|near|under|over|behind|beside|for|to|into|onto|through|during|"
    r"around|against|along|between|above|below|inside|outside|beneath|next|like|as"
    r"|but|while|when|where|which|that|who|so|because|then|instead|only|just|please|is|are|was|"
    r"were|be|can|should|must|will|to be|appears?|allowed|visible|wearing|standing|sitting|"
    r"walking|showing|made|at all|anywhere|whatsoever"
)
_EMPTY_NOUNS = r"(?:signs?|traces?|hints?|kinds?|sorts?|types?|pieces?|forms?|depictions?|presence|sight)\s+of\s+"
_ITEM = rf"(?:(?!(?:{_BREAKS}|and|or|nor|an?|the)\b)[\w'’#/.-]*[\w'’#]\s*?){{1,4}}?"
_END = rf"(?=\s+(?:{_BREAKS}|and|or|nor)\b|\s*[.,;:!?()，。；！？\n\]]|\s*$|\s+--|\s*\")"
_MORE = (
    rf"(?:\s*(?:,\s*(?:no|and no|or no|nor|or)|\bor|\bnor|\band no|/)\s+(?:any\s+|an?\s+|"
    rf"the\s+)?{_ITEM}{_END}|\s+and\s+(?:any\s+)?(?:(?!(?:{_BREAKS}|and|or|an?|the|bright|lots|"
    rf"many|some|one|two|three)\b)[\w'’-]+\s*?){{1,2}}?(?=\s*[.,;!?\n]|\s*$))"
)
_DETERMINER = r"(?:(?:any|an?|the|your|more|other|visible|single|kind of|sort of)\s+)*"
_INCLUDE = (
    r"(?:do(?:es)?\s+not|don['’]?t|doesn['’]?t|never|must not|should not|shouldn['’]?t|cannot|"
    r"can['’]?t)\s+(?:include|add|draw|show|use|put|have|contain|want|make|paint|render|depict|"
    r"like|need)(?:\s+(?:in|it|me|him|her))?"
)
_DENIED = Caseless(
    rf"(?P<from>\b(?:without|w/o|with\s+no|with\s+zero|free\s+of|free\s+from|devoid\s+of|lacking|minus|"
    rf"(?<!is )(?<!are )(?<!was )neither|"
    rf"(?:(?:is|are|was|were)\s+not|(?:is|are|was|were)n['’]t|not)\s+(?:wearing|holding|carrying)|"
    rf"(?<=, )hold(?=\s+the\b)|anything\s+but(?=\s+an?\b)|"
    rf"(?:excluding|exclude|avoid(?:ing)?)|no|not(?=\s+(?:an?\s+|any\s+|in\s+)?[\w'-]+)|rather\s+than|"
    rf"instead\s+of|except(?:\s+for)?|less(?=\s+[\w-]+(?:,|\s+and|\s+but)?\s+more\b)|{_INCLUDE})\s+)"
    rf"(?:in\s+)?{_DETERMINER}(?:{_EMPTY_NOUNS})?(?P<items>{_ITEM}{_END}(?:{_MORE}){{0,6}})"
)
_FREE_OF = Caseless(r"(?<![\w-])(?P<items>[a-z]{3,})-free(?![\w-])")
_NO_PEOPLE = Caseless(r"\b(?:no[ -]one|no\s?body|not a (?:soul|person)(?: in sight)?)\b")
_PREDICATE = re.compile(
    r"(?:\b(?:is|are|was|were|be|been|am|does|do|did|has|have|had|can|could|will|would|should|"
    r"must|may|might|it['’]s|that['’]s|if|or|and)\s*$|\w['’](?:s|re|ve|ll)\s*$)",
    re.IGNORECASE,
)
_NOT_A_THING = frozenset([
    "yet", "sure", "so", "too", "very", "quite", "even", "only", "just", "all", "always", "every", "much", "many",
    "more", "less", "exactly", "necessarily", "really", "to", "be", "the", "a", "an", "in", "at", "on", "of", "it",
    "this", "that", "than", "such", "enough", "far", "near", "long", "sad", "happy", "angry", "afraid", "alone",
    "here", "there", "now", "again", "been", "being", "able",
])  # fmt: skip
_STATIVE = re.compile(r"(?:ing|ed)$")

_CJK_DENIED = re.compile(
    rf"(?P<from>请?(?:不要|别要|千万别|别)(?:有|出现|画|加|包含|使用|用|是|做成|任何)*|"
    rf"(?:并|也|却|都|毫)?没有(?:出现|任何|一点)*|"
    rf"不含(?:有)?|不带|不包含|不能(?:出现|有|包含)(?:任何)?|不得(?:出现|有)(?:任何)?|"
    rf"不应(?:出现|有)|不出现|不需要|不想要|不喜欢|而?(?:不是|"
    rf"并非|而非)|避免(?:出现|使用)?|去除|去掉|排除|除去|禁止(?:出现)?|无(?=[人字水印文背边框衣物车阴影多余]))"
    rf"(?P<items>[{CJK}A-Za-z0-9、和或及与 -]{{1,30}}?)(?=的|"
    rf"[.,;!?，。；！？\n)）]|出现|存在|在|而|但|却|也|都|就|以及|要|$)"
)
_CJK_NON = re.compile(
    rf"(?:(?<=[,，。;；、\s])|^)非(?!洲|常|凡|法|遗|典|主流|官方|虚构|对称|线性|人|得|要)"
    rf"(?P<items>[{CJK}A-Za-z0-9]{{1,12}}?)(?=的|风格?|[.,;!?，。；！？、\n\s]|$)"
)
_CJK_EXCEPT = re.compile(
    rf"除了?(?P<items>[{CJK}A-Za-z0-9、和]{{1,15}}?)(?:以外|之外|外)(?!\s*[,，]?\s*(?:还|也|又|再|另|都|不|没|别|无))"
)
_CJK_VERB = re.compile(
    r"^(?:看(?!板)|说|发(?!型|光|髻)|张[开嘴]|抬|动(?!漫|画|物|车|作)|注意|意识|打[开扰]|"
    r"完全|关[上闭注]|锁上|立刻|吃|去|来|想|显[得出]|停|"
    r"走(?!廊)|睡|哭|笑(?!脸)|回头|回应|受|被|让|感[到觉]|露出|因为|直接|真|变[成得化]|"
    r"那么|这么|再|很|太(?!阳)|能|会|继续|离开|在|拥抱|"
    r"生气|得到|过|到|刻[字上])"
)
_ORDERS = re.compile("不要|别|避免|不能|不得|禁止|不需要|不想要|不应")
_QUALITY = re.compile(
    "别|其[他它余]|多余|额外|任何|(?:太|过于?|过分|很|非常).+|.{0,3}色|[红黄蓝绿黑白紫粉橙灰]|模糊|扭曲|变形|杂乱|恐怖|阴暗|"
    "鲜艳|刺眼|复杂|花哨|现代|古老|写实|明显|真实|夸张|奇怪|血腥|暴力|难看|破旧"
)
_NOUN = re.compile(rf"的[{CJK}A-Za-z]{{1,8}}(?=[.,;!?，。；！？、\n\s]|$)")
"""Orders deny a thing with its quality, 不要红色的汽车; others deny what a thing has, 没有帽子的猫."""

_PUT_ON = re.compile("^(?:佩戴|戴|穿|系|背)(?:着|上|了)?")
_LISTED = Caseless(r"\b(?:exclude|excluding|avoid|without)\s*:\s*(?P<items>[^.;\n]{1,200})")


@dataclass(frozen=True, kw_only=True)
class Denial:
    """Something that must not be in the picture.

    Attributes:
        start: Where the denial begins.
        end: Where it ends.
        words: What is denied.
    """

    start: int
    end: int
    words: str


def denials_in(text: str) -> list[Denial]:
    """What a text denies, in order; the text is in simplified characters and without quoted passages."""
    nothing, denied = [*_NO_PEOPLE.finditer(text)], [*_DENIED.finditer(text)]
    chinese, plain = [], [*_FREE_OF.finditer(text), *_LISTED.finditer(text), *denials_elsewhere(text)]
    if not text.isascii():
        chinese = [*_CJK_DENIED.finditer(text)]
        plain += [*_CJK_NON.finditer(text), *_CJK_EXCEPT.finditer(text)]
    if not (nothing or denied or chinese or plain):
        return []
    kept = [match.span() for match in (*NAMES.finditer(text), *CJK_NAMES.finditer(text))]
    empty = [match for match in nothing if not _inside(match.span(), kept)]
    found = [Denial(start=match.start(), end=match.end(), words="people") for match in empty]
    spans = [match.span() for match in empty]
    found += [one for match in denied if (one := _english(text, match, kept, spans))]
    found += [
        Denial(start=match.start(), end=match.end(), words=next(filter(None, match.groups())).strip(" ,"))
        for match in plain
        if not _inside(match.span(), kept)
    ]
    for match in chinese:
        if not _inside(match.span("from"), kept) and not _inside(match.span("from"), _denied(found)):
            found += _chinese(text, match)
    return sorted(found, key=lambda one: one.start)


def _english(
    text: str, match: re.Match[str], kept: list[tuple[int, int]], spans: list[tuple[int, int]]
) -> Denial | None:
    """What an English phrase denies; `None` if it denies nothing."""
    if _overlaps(match.span("from"), kept) or _inside(match.span("from"), spans) or not _is_thing(text, match):
        return None
    end = min([match.end(), *(start for start, _ in kept if start >= match.start("items"))])
    words = re.sub(r",? (?:no|nor|or no|and no) ", ", ", " ".join(text[match.start("items") : end].split()).strip(" ,"))
    return Denial(start=match.start(), end=end, words=words) if words else None


def _chinese(text: str, match: re.Match[str]) -> list[Denial]:
    words, end = match["items"].strip(), match.end()
    if _ORDERS.search(match["from"]) and _QUALITY.fullmatch(words) and (noun := _NOUN.match(text, end)):
        words, end = f"{words}{noun.group()}", noun.end()
    words = _PUT_ON.sub("", words) or words
    if not words or _is_chinese_verb(match, words):
        return []
    return [Denial(start=match.start(), end=end, words=words)]


def without_denials(text: str) -> str:
    """A text with spaces where it denies something."""
    letters = list(text)
    for one in denials_in(text):
        letters[one.start : one.end] = " " * (one.end - one.start)
    return "".join(letters)


def _is_thing(text: str, match: re.Match[str]) -> bool:
    """Whether a thing or a style is denied, and not what something does or is."""
    opening, items = match["from"].lower().split(), match["items"].split()
    first = items[0].lower().strip("'’")
    if opening[-1] in ("wearing", "holding", "carrying"):
        return first not in _NOT_A_THING
    if opening[0] == "no":
        return first not in _NOT_A_THING and not re.fullmatch(r"\d+", first)
    if opening[0] != "not":
        return first not in _NOT_A_THING
    between = text[match.end("from") : match.start("items")].lower().split()
    if "an" in between or "a" in between or "any" in between or "in" in between:
        return (
            not _PREDICATE.search(text[: match.start()])
            or re.search(
                r"\b(?:it|this|that|picture|image)['’ ]?(?:s|is|be)?\s*$", text[: match.start()], re.IGNORECASE
            )
            is not None
        )
    return (
        first not in _NOT_A_THING
        and not _STATIVE.search(first)
        and re.search(r"(?:^|[,;.(]|\bbut|\band|please)\s*$", text[: match.start()], re.IGNORECASE) is not None
    )


def _is_chinese_verb(match: re.Match[str], words: str) -> bool:
    """Whether what is denied is an action: 没有张嘴, 没有抬头."""
    if match["from"].endswith(("别", "不要")) and words.startswith("太"):  # 别太卡通
        return False
    return ("没有" in match["from"] or match["from"].endswith(("别", "不要"))) and _CJK_VERB.match(words) is not None


def _inside(span: tuple[int, int], spans: list[tuple[int, int]]) -> bool:
    return any(start <= span[0] < end for start, end in spans)


def _overlaps(span: tuple[int, int], spans: list[tuple[int, int]]) -> bool:
    return any(start < span[1] and span[0] < end for start, end in spans)


def _denied(denials: list[Denial]) -> list[tuple[int, int]]:
    return [(one.start, one.end) for one in denials]
