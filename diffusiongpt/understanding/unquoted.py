"""Texts to render that are named without quotes: "a sign that says open", "headline: Summer Sale", 标题：城市之光."""

from __future__ import annotations

import re
from collections.abc import Iterator

from diffusiongpt.understanding.caseless import Caseless

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
    r"diploma|map|mailbox|sash|ribbon|icing|sticky note|memo|slide|invite|leaflet|brochure|sweater|"
    r"sweatshirt|apron|patch|keycap|nameplate|name tag)s?"
)
"""Things that carry writing."""

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
    r"beneath|next to|near|by|"
    r"hanging|glowing|flickering|blinking|floating|shining|written|printed|painted|standing|while|and (?:a|an|the|with|"
    r"below|above|underneath|in)|against|behind|outside|inside|for a|made of|made from)\b))"
)
_LABELS = (
    r"(?:title|sub-?titles?|sub-?line|sub-?head(?:ing|line)?|caption|headline|slogan|tagline|motto|heading|inscription"
    r"|(?:top |bottom |body |main |logo |sign |button |banner )?text|call to action|cta"
    r"|(?:brand|company|shop|store|event|restaurant) name"
    r"|untertitel|titel|überschrift|aufschrift|(?:sous-)?titre|texte|(?:sub)?título|texto|titolo|testo"
    r"|заголовок|подзаголовок|текст|надпись|제목|부제|문구|텍스트"
    r"|サブタイトル|タイトル|キャッチコピー|テキスト|见出し)"
)
"""Labels of texts, before a colon."""

_NO_TEXT = re.compile(r"(?:in|with|as|like|at|none|no|not|n/a|see|from)\b", re.IGNORECASE)
"""What follows a label and says how the text looks, or that it is missing."""

_NOT_SAID = re.compile(r"(?:in|on|like|as|as if|with|a|an|about|to|that|it|something|nothing)\b", re.IGNORECASE)
"""What follows a verb of saying where nothing is to be written."""

_AND_BELOW = re.compile(
    r"\s+(?:at|on)\s+the\s+(?:top|front|left)\s*,?\s*(?:and|,)\s+(?P<below>[^\n\"“「『,;]{1,80}?)\s+(?:at|on)\s+the\s+"
    r"(?:bottom|back|right)\b",
    re.IGNORECASE,
)
"""A second text, in the sentence of the first: "the text X at the top and Y at the bottom"."""

_VERBS = (
    r"needs?|looks?|ha[sd]|have|remains?|itself|effects?|information|contents?|layout|naturally|clearly|should|feels?|"
    r"stays?|appears?|becomes?|serves?|blends?|logos?|elements?|areas?|style|size|colou?r|while|can|may|will|gets?|seems?|"
    r"fits?|reads|runs|sits|stands|takes?|uses?|follows?|wraps?|shines?|glows?"
)
"""What follows a word for text that is spoken of, and not quoted."""

_MADE = "printed|painted|carved|embroidered|stitched"
"""How writing and motifs alike get onto a thing."""

_UNQUOTED = Caseless(
    rf"\b(?:{SURFACES})\b(?:\s+(?!that\b|which\b|says?\b|"
    rf"read)[\w'-]+){{0,4}}?\s*,?\s+{_SAYS}\s*[:,]?\s+(?P<said>[^\n\"“「『]{{1,120}}?){_STOP}"
    rf"|\b{_WITH_TEXT}\s+(?:that\s+)?(?:says?|saying|reads?|reading)\s*[:,]?\s+(?P<read>[^\n\"“「『]{{1,120}}?){_STOP}"
    rf"|\b{_LABELS}\s*[:：]\s*(?P<colon>[^\n\"“「『]{{1,120}}?)(?=\s*(?:[,;\n、。]|[.](?:\s|$)|$))"
    rf"|\b(?:{SURFACES})\s+(?:with|bearing)\s+the\s+names?\s+(?P<name>[^\n\"“「『]{{1,60}}?){_STOP}"
    rf"|\b(?:titled|entitled|captioned)\s+(?P<titled>[A-Z][^\n\"“「『]{{0,120}}?){_STOP}"
    rf"|\bthe\s+(?:words|phrase|caption|slogan|text|letters|headline|initials)\s+(?!(?:{_VERBS}|on|in|of|is|"
    rf"are|was|were|at|and|should|must|that|which|from|to|below|above|with|for|written|"
    rf"printed)\b)(?P<words>[^\n\"“「『]{{1,120}}?){_STOP}"
    rf"|\b(?:{SURFACES})\s+with\s+(?!(?:an?|the|some|something|words?|text|letters|names?|writing|"
    rf"it|his|her|no)\b)(?:(?P<written>[^\n,;\"“「『]{{1,60}}?)\s+(?:written|engraved)|"
    # flowers are printed and painted too, a name begins with a capital
    rf"(?P<printed>(?-i:[A-Z]|\d+(?!\d|\s+(?!(?:{_MADE})\b)[a-z]))[^\n,;\"“「『]{{0,60}}?)\s+(?:{_MADE}))\s+(?:on|in|across|into|over)\b"
    rf"|\bthe\s+word\s+(?!(?:on|in|of|is|are|was|at|and|should|must|that|which|from|to|with|for|"
    rf"written|art)\b)(?P<word>[\w'-]{{1,40}})"
    rf"|\b(?:spelling out|that spells(?: out)?|which spells(?: out)?)\s+(?P<spelt>[^\n\"“「『]{{1,60}}?){_STOP}",
    parts=(
        *(
            "name",
            "say",
            "read",
            "spell",
            "stat",
            "proclaim",
            ":",
            "：",
            "titled",
            "caption",
            "word",
            "phrase",
            "slogan",
        ),
        *("text", "letter", "headline", "initial", "written", "printed", "engraved", "painted", "carved"),
        *("embroidered", "stitched"),
    ),
)
_CJK_SURFACE = (
    r"(?:牌|板|墙|纸|衫|衣服|衣|T恤|t恤|杯|旗|横幅|条幅|海报|屏幕|屏|书|卡|盒|标签|门|灯箱|石|碑|蛋糕|瓶|袋|帽|包装|招牌|封面|木|灯|信封|上面|上|"
    r"下方|顶部|底部|中间|背面|胸前|正面|旁边|黑板)"
)
_CJK_LABELS = (
    r"(?:主标题|副标题|大标题|小标题|标题|标语|文字内容|标题文字|文字|文案|内文|正文|题目|口号|广告语|宣传语|祝福语|店名|书名|刊名|招牌|落款|署名|题字|字幕|"
    r"上联|下联|横批|品牌名称?|公司名称?|店铺名称?|活动名称|slogan|Slogan)"
)
"""Labels of texts, before a colon."""

_CJK_UNQUOTED = re.compile(
    rf"(?:{_CJK_SURFACE}[^，。；\n“「『\"]{{0,12}}?|^|"
    rf"(?<=[，。；、的张块个条面幅一件顶只本辆扇座堵枚]))(?:上?面?)(?:用[^，。；\n]{{1,8}}?)?(?:(?<!书)写着|写有|写了|写上|印着|印有|刻着|刻有|"
    rf"绣着|绣有|标着|上书|题着|显示着?(?![器屏出的]))(?:中文|英文|大字|文字|字)?\s*[:：]?\s*"
    r"(?P<a>[^，。；！？、\n“”「」『』\"'‘’《》]{1,40}?[！!？?]?)(?=的?(?:牌子|招牌|标牌|木牌|路牌|横幅|条幅|海报|T恤|t恤|卡片|贺卡|杯子|"
    r"马克杯|旗|字样|门牌|黑板|纸条|纸|蛋糕|标签|灯牌|霓虹灯|灯笼|盒子|书|封面|[一二两三四五六七八九十几]个?[大小]?字|字|石碑|帽子|旗帜|屏幕)|[，。；、\n]|\s|$)"
    rf"|{_CJK_LABELS}\s*(?:是|为|叫做|叫|写着|写|"
    r"内容是|内容为)?\s*[:：]\s*(?P<b>[^，。；\n“”「」『』\"'‘’《》]{1,60})"
    r"|(?:主标题|副标题|大标题|标题|标语|文字内容|文案|口号|广告语|店名|书名|题目|题字|文字)(?:是|为|叫做|叫|写着|写)\s*(?P<c>[^，。；、\n“”「」『』\"'‘’《》\s]{1,40})"
    r"|(?<![主问话课])题为\s*(?P<d>[^，。；、的\n“”「」『』\"'‘’《》]{1,40})"
)
_CJK_GENERIC = re.compile(
    r"^(?:[一几两这那许很的着了]|各种|密密麻麻|中文$|英文$|文字$|字$|大字$|什么|符文|古老|神秘|咒语|作业|日记|信$|诗$|歌词$|数字$|名字$|代码|公式$|什|满|"
    r"居中|醒目|红色|白色|黑色|在|位于|放在|要|用)"
)
_HAN = re.compile("[\u3400-\u9fff]")
_THING = re.compile(
    "(?:图案|花纹|纹样|纹理|纹路|图形|图腾|界面|内容|公式|日期|笔记|文件|标识|信息|符号|[对春]联|照片|兔子|花朵?)$|^(?:[红白黑绿蓝黄金银紫粉橙灰棕]色[和与及]?)+$"
)
"""Ends of what is drawn or stuck on something, and not written there; the colours of a text."""

_LEADS_TO_QUOTE = re.compile('[^，。；、\n]{0,12}[“"「『‘]')
_WRITER = re.compile(r"(?:她|他|孩|人|生|作家|女士|先生|师)[^，。；\n]{0,6}$")


def unquoted_in(text: str, plain: str, *, labelled: bool = False) -> Iterator[tuple[int, int, str]]:
    """Start, end and words of each text.

    Args:
        text: The prompt as it was typed.
        plain: The same in simplified characters, in which words are looked for.
        labelled: Whether only texts behind a label and a colon count, since others are in quotes.
    """
    for match in _UNQUOTED.finditer(plain):
        name = _group_of(match)
        if labelled and name != "colon":
            continue
        if (_NO_TEXT if name == "colon" else _NOT_SAID).match(match[name]):
            continue
        yield _span(text, match, name)
        if below := _AND_BELOW.match(plain, match.end(name)):
            yield _span(text, below, "below")
    if not _HAN.search(plain):
        return
    for match in _CJK_UNQUOTED.finditer(plain):
        name = _group_of(match)
        if labelled and name not in ("b", "c"):
            continue
        if _CJK_GENERIC.match(match[name]) or (name == "a" and _WRITER.search(plain[: match.start()])):
            continue
        if _THING.search(match[name]) or _LEADS_TO_QUOTE.match(plain, match.end(name)):  # 写着白色的大字“开业”
            continue
        yield _span(text, match, name)


def _group_of(match: re.Match[str]) -> str:
    return next(name for name, value in match.groupdict().items() if value is not None)


def _span(text: str, match: re.Match[str], name: str) -> tuple[int, int, str]:
    start, end = match.span(name)
    return start, end, text[start:end].strip(" ,:：").strip()
