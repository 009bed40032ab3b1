"""Texts that must be readable in the picture, word for word: quoted with a reason, or named without quotes.

Quotation marks alone are not enough: people quote titles, nicknames, inches, and whole prompts. A reason is a
verb of writing, a thing that carries writing, a word for text, or writing in capitals.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from diffusiongpt.understanding.caseless import Caseless

_PAIRS = re.compile(
    r"(?P<straight>\")(?P<a>[^\"\n]{1,300})\"|“(?P<b>[^”\"\n]{1,300})[”\"]|„(?P<c>[^“”\n]{1,300})[“”]"
    r"|«\s?(?P<d>[^»\n]{1,300}?)\s?»|＂(?P<e>[^＂\n]{1,300})＂|‘(?P<f>[^’\n]{1,300}(?:’[a-z]{1,2}\b[^’\n]{0,200})*)’"
    r"|(?<![\w'’])'(?P<g>[^'\n]{1,300}(?:'(?:s|t|re|ll|ve|d|m)\b[^'\n]{0,200})*)'(?!\w)"
    r"|(?<![\w'’])'(?P<h>[A-Z][^'\n]{1,300})'(?=(?:on|in|at|with)\b)"
    r"|「(?P<i>[^」\n]{1,300})」|『(?P<j>[^』\n]{1,300})』|《(?P<title>[^》\n]{1,300})》"
)
_MARK = re.compile("[\"“„«＂‘'「『《]")
"""Marks that open a quotation."""

_INCHES = re.compile(r"(?<=\d)\s?(?:\"|″|''|”)(?!\w)")
_NUMBER_BEFORE = re.compile(r"(?<![A-Za-z])\d{1,4}(?:\.\d+)?(?:\s?\d/\d)?\s?$")
_MEASURED = re.compile(
    r"\s+(?:x|by|×|inch|tall|wide|long|high|monitor|screen|tv|display|laptop|wheel|pizza|frame|"
    r"print|disk|vinyl|record)\b",
    re.IGNORECASE,
)
"""What stands behind inches where an open quotation mark would be closed instead."""

_FEET = re.compile(r"(?<![\w.])\d{1,3}'(?=\s|\d{1,2}(?:\"|″|''|”)|-|$)")

SURFACES = (
    r"(?:sign|signage|signpost|signboard|banner|billboard|poster|flyer|placard|plaque|label|tag|"
    r"badge|sticker|logo|neon|t-?shirts?|shirts?|hoodie|jersey|cap"
    r"|mug|cup|cake|card|postcard|invitation|book cover|cover|spine|blackboard|chalkboard|"
    r"whiteboard|board|billboards|screen|monitor|display|wall|graffiti"
    r"|marquee|newspaper|headline|magazine|menu|ticket|stamp|tombstone|gravestone|tattoo|"
    r"speech bubble|thought bubble|bubble|dialogue box|text box|caption"
    r"|license plate|number plate|door ?mat|doormat|envelope|letter|note|scroll|parchment|flag|"
    r"window|storefront|shopfront|awning|keychain|bottle|jar|can"
    r"|box|package|packaging|bag|helmet|hat|button|pin|medal|trophy|receipt|calendar|certificate|"
    r"diploma|map|mailbox|sash|ribbon|icing|sticky note|memo|slide)s?"
)
"""Things that carry writing."""

_WORDS_FOR_TEXT = (
    r"(?:texts?|words?|letters?|lettering|letterings|typography|title|subtitle|titled|entitled|"
    r"caption|captioned|slogan|motto|tagline|headline|heading"
    r"|inscription|inscribed|engraved|etched|carved|embossed|printed|written|writing|wrote|"
    r"writes?|written on|spelled|spelt|spelling|spells?|says?|saying"
    r"|reads?|reading|labell?ed|signed|stamped|stencill?ed|embroidered|painted|message|phrase|"
    r"quote|quotation|monogram|initials|hashtag|watermark|logotype|brand"
    r"|font|warning|greeting|equation|formula|poem|lyrics|sentence|chanting|shouting|titre|texte|"
    r"mots?|t[i]tel|w[o]rte?|schriftzug|aufschrift|título|titulo|texto|palabras?|letrero|titolo|"
    r"scritta|testo)"
)
_CUE = re.compile(rf"\b(?:{_WORDS_FOR_TEXT}|{SURFACES})\b", re.IGNORECASE)
_CUE_AFTER = re.compile(
    rf"^[\s,.:;!?”\"']*(?:is |are |was |were |be )?(?:(?:in|with|as|by|using|on|across|above|below|"
    rf"over|at)\b[^.,;]{{0,40}}?\b(?:letters|lettering|font|text|script|type|typeface|calligraphy|"
    rf"neon|handwriting|bold|caps|capitals|{SURFACES})\b"
    rf"|(?:written|printed|engraved|painted|carved|inscribed|displayed|embossed|stitched|spelled|"
    rf"text|lettering)\b|(?:[a-z]+\s+){{0,2}}?{SURFACES}\b)",
    re.IGNORECASE,
)
_NAMING = re.compile(
    r"\b(?:called|named|nicknamed|known as|a\.?k\.?a\.?|so-called|dubbed|starring|movie|film|"
    r"series|show|novel|song|album|game|painting|band|character|from|like|by|style of|inspired by"
    r"|based on|the original|the classic|remake of|scene from|version of|sculpture|statue of|"
    r"opera|ballet|play|cover of)\s*(?:the\s+)?$",
    re.IGNORECASE,
)
_DESIGN = re.compile(
    r"\b(?:poster|flyer|logo|banner|cover|invitation|card|label|packaging|ticket|menu|brochure|sign)\b", re.IGNORECASE
)
"""Things whose point is to say what something is called."""

_CJK_CUE = re.compile(
    r"(?:写|寫|印|刻|绣|涂|喷|标|题|贴|画|显示|显现|浮现|出现|闪烁|播放|展示|展现|打|拼|组成|构成|形成|呈现|投射|念|读)(?:着|有|成|出|了|下|上|满|"
    r"作|为|明)?\s*(?:了?[一几][行句个段排些句])?"
    r"|文字|字样|字|词|句|标语|标题|题目|书名|招牌|牌|标牌|路牌|海报|横幅|条幅|封面|信息|警告|诗|口号|台词|对话|气泡|署名|落款|logo|LOGO|品牌|店名|"
    r"名称|名字|屏幕|黑板|广告语|slogan|内容[为是]?|[:：]\s*$"
)
_CJK_CUE_AFTER = re.compile(
    r"^\s*(?:的?(?:字样|字|文字|标语|标题|招牌|牌|标牌|木牌|横幅|海报|艺术字|书法|logo|LOGO|对联|门牌|封面|霓虹)|"
    r"这?[几两一二三四五六七八九十]个?(?:大|小)?字|几个(?:大|小)?字|写在|印在|刻在)"
)
_CJK_NAMING = re.compile(
    r"(?:叫|名叫|名为|称为|所谓的?|绰号|外号|电影|动画|小说|歌曲|游戏|电视剧|里的|中的|出自|来自|类似|模仿|雕塑|名画|名作|漫画)\s*$"
)
_CJK_TITLED = re.compile(r"(?:标题|书名|题目|写着|印着|刻着|写有|印有|文字|字样|题为|题着)[^，。]{0,6}$")
_CALLED = re.compile(r"\b(?:called|named)\s*$")
_JOINT = re.compile(r"\s*(?:,|、|和|与|及|and|or|&|/|\+|;|，)?\s*(?:and|then|below it|the words?)?\s*")
_SENTENCE = re.compile(r"[.;。；！!？?\n](?=\s|$|[^\d\s])")
_HAN = re.compile("[\u3400-\u9fff]")
_SPEAKS = re.compile(
    r"\b(?:no|without(?: any)?|not|don't|do not)\s+(?:any\s+)?(?:the\s+)?(?:text|words?|letters?|"
    r"writing|sign|caption|watermark|logo)s?\s*$",
    re.IGNORECASE,
)

_SAYS = (
    r"(?:that|which)?\s*(?:(?:clearly|boldly|simply|also)\s+)?(?:says?|saying|reads?|reading|"
    r"spells? out|spelling out|spells?|spelling|states?|stating|proclaims?|"
    r"proclaiming)(?:\s+(?:the\s+words?|in\s+[a-z]+|simply))?"
)
_WITH_TEXT = (
    r"(?:with\s+)?(?:the\s+|a\s+)?(?:big |large |bold |small |giant |red |white |golden |neon |"
    r"english )?(?:text|words?|caption|title|subtitle|headline|slogan|tagline|motto|inscription|"
    r"lettering|letters|message|phrase|heading|name)"
)
_STOP = (
    r"(?=\s*(?:[.,;!?]?\s*$|[,;\n]|[.!?](?:\s|$)|\s(?:in|on|at|with|above|below|under|across|over|"
    r"beneath|next to|near|by|hanging|written|printed|painted|standing|while|and (?:a|an|the|with|"
    r"below|above|underneath|in)|against|behind|outside|inside|for a|made of|made from)\b))"
)
_UNQUOTED = Caseless(
    rf"\b(?:{SURFACES})\b(?:\s+(?!that\b|which\b|says?\b|"
    rf"read)[\w'-]+){{0,4}}?\s*,?\s+{_SAYS}\s*[:,]?\s+(?P<said>[^\n\"“「『]{{1,120}}?){_STOP}"
    rf"|\b{_WITH_TEXT}\s+(?:that\s+)?(?:says?|saying|reads?|reading)\s*[:,]?\s+(?P<read>[^\n\"“「『]{{1,120}}?){_STOP}"
    rf"|\b(?:title|subtitle|caption|headline|slogan|tagline|motto|text|heading|inscription|"
    rf"logo text|sign text)\s*[:：]\s*(?P<colon>[^\n\"“「『]{{1,120}}?)(?=\s*(?:[,;\n]|[.](?:\s|$)|$))"
    rf"|\b(?:titled|entitled|captioned)\s+(?P<titled>[A-Z][^\n\"“「『]{{0,120}}?){_STOP}"
    rf"|\bthe\s+(?:words|phrase|caption|slogan|text|letters|headline|initials)\s+(?!(?:on|in|of|is|"
    rf"are|was|were|at|and|should|must|that|which|from|to|below|above|with|for|written|"
    rf"printed)\b)(?P<words>[^\n\"“「『]{{1,120}}?){_STOP}"
    rf"|\b(?:{SURFACES})\s+with\s+(?!(?:an?|the|some|something|words?|text|letters|names?|writing|"
    rf"it|his|her|no)\b)(?P<written>[^\n,;\"“「『]{{1,60}}?)\s+(?:written|printed|engraved|painted|"
    rf"carved|embroidered|stitched)\s+(?:on|in|across|into|over)\b"
    rf"|\bthe\s+word\s+(?!(?:on|in|of|is|are|was|at|and|should|must|that|which|from|to|with|for|"
    rf"written|art)\b)(?P<word>[\w'-]{{1,40}})"
    rf"|\b(?:spelling out|that spells(?: out)?|which spells(?: out)?)\s+(?P<spelt>[^\n\"“「『]{{1,60}}?){_STOP}",
    parts=(
        *("say", "read", "spell", "stat", "proclaim", ":", "：", "titled", "caption", "word", "phrase", "slogan"),
        *("text", "letter", "headline", "initial", "written", "printed", "engraved", "painted", "carved"),
        *("embroidered", "stitched"),
    ),
)
_CJK_SURFACE = (
    r"(?:牌|板|墙|纸|衫|衣服|衣|T恤|t恤|杯|旗|横幅|条幅|海报|屏幕|屏|书|卡|盒|标签|门|灯箱|石|碑|蛋糕|瓶|袋|帽|包装|招牌|封面|木|灯|信封|上面|上|"
    r"下方|顶部|底部|中间|背面|胸前|正面|旁边|黑板)"
)
_CJK_UNQUOTED = re.compile(
    rf"(?:{_CJK_SURFACE}[^，。；\n“「『\"]{{0,12}}?|^|"
    rf"(?<=[，。；、的张块个条面幅一件顶只本辆扇座堵枚]))(?:上?面?)(?:用[^，。；\n]{{1,8}}?)?(?:写着|写有|写了|写上|印着|印有|刻着|刻有|绣着|绣有|"
    rf"贴着|标着|上书|题着|显示着?)(?:中文|英文|大字|文字|字)?\s*[:：]?\s*"
    r"(?P<a>[^，。；！？、\n“”「」『』\"'‘’《》]{1,40}?[！!？?]?)(?=的?(?:牌子|招牌|标牌|木牌|路牌|横幅|条幅|海报|T恤|t恤|卡片|贺卡|杯子|"
    r"马克杯|旗|字样|门牌|黑板|纸条|纸|蛋糕|标签|灯牌|霓虹灯|盒子|书|封面|字|石碑|帽子|旗帜|屏幕)|[，。；、\n]|\s|$)"
    r"|(?:主标题|副标题|大标题|标题|标语|文字内容|文字|文案|题目|口号|广告语|店名|书名|招牌|落款|题字|slogan|Slogan)\s*(?:是|为|叫做|叫|写着|写|"
    r"内容是|内容为)?\s*[:：]\s*(?P<b>[^，。；\n“”「」『』\"'‘’《》]{1,60})"
    r"|(?:主标题|副标题|大标题|标题|标语|文字内容|文案|口号|广告语|店名|书名|题目|题字|文字)(?:是|为|叫做|叫|写着|写)\s*(?P<c>[^，。；、\n“”「」『』\"'‘’《》\s]{1,40})"
    r"|题为\s*(?P<d>[^，。；、的\n“”「」『』\"'‘’《》]{1,40})"
)
_CJK_GENERIC = re.compile(
    r"^(?:[一几两这那许很]|各种|密密麻麻|中文$|英文$|文字$|字$|大字$|什么|符文|古老|神秘|咒语|作业|日记|信$|诗$|歌词$|数字$|名字$|代码|公式$|什|满|"
    r"居中|醒目|红色|白色|黑色|在|位于|放在|要|用)"
)
_WRITER = re.compile(r"(?:她|他|孩|人|生|作家|女士|先生|师)[^，。；\n]{0,6}$")


@dataclass(frozen=True, kw_only=True)
class Quote:
    """A quoted passage.

    Attributes:
        start: Where its opening mark is.
        end: Behind its closing mark.
        words: What is between them.
        title: Whether the marks are those of a title of a work, 《》.
    """

    start: int
    end: int
    words: str
    title: bool = False


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """Texts to render, and where they stand.

    Attributes:
        texts: The texts, word for word.
        spans: Start and end of each in the prompt, quotation marks included.
    """

    texts: tuple[str, ...] = ()
    spans: tuple[tuple[int, int], ...] = ()


def quotes_in(text: str) -> list[Quote]:
    """Quoted passages, without inches, feet and apostrophes."""
    if not _MARK.search(text):
        return []
    masked = _mask(text)
    return [
        Quote(
            start=match.start(),
            end=match.end(),
            words=text[slice(*next(match.span(name) for name in "abcdefghij" if match[name] is not None))]
            if match["title"] is None
            else match["title"],
            title=match["title"] is not None,
        )
        for match in _PAIRS.finditer(masked)
    ]


def _mask(text: str) -> str:
    """A text of the same length in which marks of inches and feet are no quotation marks."""
    masked = list(text)
    for match in _FEET.finditer(text):
        masked[match.end() - 1] = "′"
    opened = False
    for match in re.finditer(r"[\"″”]|''", text):
        place = match.start()
        before = text[place - 1] if place else ""
        if match.group() == '"' and not opened and not before.isdigit():
            opened = True
        elif match.group() == '"' and opened and not _measured(text, place, opened=True):
            opened = False
        elif _measured(text, place, opened=opened):
            masked[place : match.end()] = "″" * (match.end() - place)
    return "".join(masked)


def _measured(text: str, place: int, *, opened: bool) -> bool:
    """Whether the mark at a place stands for inches: behind a number, and not closing what was opened."""
    if not _INCHES.match(text, place) or not _NUMBER_BEFORE.search(text[max(0, place - 12) : place]):
        return False
    return not opened or _MEASURED.match(text, place + 1) is not None


def read_texts(text: str, plain: str | None = None) -> Rendered:
    """The texts that a prompt wants to see in the picture.

    Args:
        text: The prompt as it was typed.
        plain: The same in simplified characters, in which words are looked for; places are the same.
    """
    plain = text if plain is None else plain
    quotes = quotes_in(text)
    found = [(one.start, one.end, one.words.strip()) for one in _with_reason(plain, quotes)]
    taken = [(one.start, one.end) for one in quotes]
    found += [one for one in _unquoted(text, plain) if not any(s < one[1] and one[0] < e for s, e in taken)]
    found = sorted((start, end, words) for start, end, words in found if words)
    return Rendered(texts=tuple(words for _, _, words in found), spans=tuple((start, end) for start, end, _ in found))


def wholly_quoted(text: str) -> str | None:
    """What a text says between quotation marks that enclose all of it; `None` if they do not."""
    stripped = text.strip().rstrip("。.!！ ").strip()
    for quote in quotes_in(stripped):
        if quote.start == 0 and quote.end == len(stripped) and not quote.title:
            return quote.words.strip()
    return None


def _with_reason(plain: str, quotes: list[Quote]) -> Iterator[Quote]:
    """The quotes that are to be read in the picture; in a row of several the first gives the reason for all."""
    end, reasoned = -1, False
    for quote in quotes:
        joined = reasoned and _JOINT.fullmatch(plain, end, quote.start) is not None
        end, reasoned = quote.end, _has_reason(plain, quote, joined=joined)
        if reasoned:
            yield quote


def _has_reason(plain: str, quote: Quote, *, joined: bool) -> bool:
    # sentences end a reason, and so does a comma, unless the verb stands right before it: says, "OPEN"
    clause, after = (
        _SENTENCE.split(plain[max(0, quote.start - 160) : quote.start])[-1],
        plain[quote.end : quote.end + 80],
    )
    if _SPEAKS.search(clause):
        return False
    if _HAN.search(clause[-12:] or after[:6]) or (not clause.strip() and _HAN.search(quote.words)):
        return _has_chinese_reason(clause[-24:], after, quote, joined=joined)
    if _NAMING.search(clause) or quote.title:
        return _DESIGN.search(clause) is not None and _CALLED.search(clause) is not None
    if joined or _CUE_AFTER.match(after) or _in_capitals(quote.words):
        return True
    return _CUE.search(clause[-90:]) is not None or (clause.rstrip().endswith(":") and bool(clause.strip(": ")))


def _has_chinese_reason(clause: str, after: str, quote: Quote, *, joined: bool) -> bool:
    if joined or _CJK_CUE_AFTER.match(after):
        return True
    if _CJK_NAMING.search(clause):
        return False
    if quote.title:
        return _CJK_TITLED.search(clause) is not None
    return _CJK_CUE.search(clause) is not None or _CUE.search(clause) is not None or _in_capitals(quote.words)


def _in_capitals(words: str) -> bool:
    letters = [letter for letter in words if letter.isalpha()]
    return len(letters) >= 2 and all(letter.isupper() for letter in letters)


def _unquoted(text: str, plain: str) -> Iterator[tuple[int, int, str]]:
    for match in _UNQUOTED.finditer(plain):
        name = next(name for name, value in match.groupdict().items() if value is not None)
        if not re.match(
            r"(?:in|on|like|as|as if|with|a|an|about|to|that|it|something|nothing)\b", match[name], re.IGNORECASE
        ):
            yield _span(text, match, name)
    if not _HAN.search(plain):
        return
    for match in _CJK_UNQUOTED.finditer(plain):
        name = next(name for name, value in match.groupdict().items() if value is not None)
        if _CJK_GENERIC.match(match[name]) or (name == "a" and _WRITER.search(plain[: match.start()])):
            continue
        yield _span(text, match, name)


def _span(text: str, match: re.Match[str], name: str) -> tuple[int, int, str]:
    start, end = match.span(name)
    return start, end, text[start:end].strip(" ,:：").strip()
