"""Texts that must be readable in the picture, word for word: quoted with a reason, or named without quotes.

Quotation marks alone are not enough: people quote titles, nicknames, inches, and whole prompts. A reason is a
verb of writing, a thing that carries writing, a word for text, or writing in capitals.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from diffusiongpt.understanding.negation import without_denials
from diffusiongpt.understanding.quotes import Quote, quotes_in
from diffusiongpt.understanding.unquoted import SURFACES, unquoted_in

_WORDS_FOR_TEXT = (
    r"(?:texts?|words?|letters?|lettering|letterings|typography|title|subtitle|titled|entitled|"
    r"caption|captioned|slogan|motto|tagline|headline|heading"
    r"|inscription|inscribed|engraved|etched|carved|embossed|printed|written|writing|wrote|"
    r"writes?|written on|spelled|spelt|spelling|spells?|says?|saying"
    r"|reads?|reading|labell?ed|signed|stamped|stencill?ed|embroidered|painted|message|phrase|"
    r"quote|quotation|monogram|initials|hashtag|watermark|logotype|brand"
    r"|font|warning|greeting|numbers?|digits?|characters?|alphanumeric|narration|inscribe|(?:brand|product|company|shop|store|"
    r"organi[sz]ation|event|place|street) name|english|chinese|japanese|korean|french|german|spanish|russian|arabic|"
    r"equation|formula|poem|lyrics|sentence|chanting|shouting|titre|texte|"
    r"mots?|t[i]tel|w[o]rte?|schriftzug|aufschrift|título|titulo|texto|palabras?|letrero|titolo|"
    r"scritta|testo)"
)
_CUE = re.compile(rf"\b(?:{_WORDS_FOR_TEXT}|{SURFACES})\b", re.IGNORECASE)
_CUE_AFTER = re.compile(
    rf"^[\s,.:;!?”\"']*(?:is |are |was |were |be )?(?:(?:in|with|as|by|using|on|across|above|below|"
    rf"over|at)\b[^.,;]{{0,40}}?\b(?:letters|lettering|font|text|script|type|typeface|calligraphy|"
    rf"neon|handwriting|bold|caps|capitals|{SURFACES})\b"
    rf"|(?:written|printed|engraved|painted|carved|inscribed|displayed|embossed|stitched|spelled|"
    rf"text|lettering)\b|on (?:it|them|top)\b|(?:[a-z]+\s+){{0,2}}?{SURFACES}\b)",
    re.IGNORECASE,
)
_CUE_ELSEWHERE = re.compile(
    r"\b(?:que dice|diga|letras?|cartel|frase|lema|pancarta|rótulo|affiche|pancarte|écrit[es]*|panneau|enseigne|"
    r"marqué|indiquant|disant|schild|steht|plakat|beschriftet|beschriftung|spruch|banderole|scritt[oa]|insegna|"
    r"cartello|escrit[oa]|placa|legenda|napis|tekst|yazı\w*|tabela)\b"
    r"|надпис|написан|текст|слов[оа]м?|вывеск|табличк|плакат|заголов|лозунг|название"
    r"|글자|글씨|문구|적힌|적혀|쓰인|쓰여|써\s?있|간판|제목|텍스트|로고|현수막|포스터"
    r"|نص|مكتوب|كلمة|عبارة|لافتة|عنوان|شعار",
    re.IGNORECASE,
)
"""Verbs of writing, things that carry writing and words for text in other languages, before a quote or after it."""

_JA_CUE = re.compile(
    r"看板|タイトル|题名|表纸|ポスター|ロゴ|吹き出し|セリフ|ラベル|文言|ネオン|カード|札|垂れ幕|のれん|黒板|ノート|メニュー|本の名"
)
_JA_CUE_AFTER = re.compile(
    r"^(?:と|って|の文字が?|が)?(?:[^\W、。]{0,8}?に)?(?:大きく|小さく|手書きで)?"
    r"(?:书[いかき]|刻|印|プリント|描か|表示|记|入っ|入り|掲げ)"
    r"|^(?:の|という|といった|と言う|と)?(?:本の|小说の|雑志の|杂志の)?(?:文字|看板|ロゴ|タイトル|ポスター|表纸|ラベル"
    r"|文言|言叶|单语|単语|セリフ|台词|吹き出し|字|札|标识|ネオン|Tシャツ|プレート)"
    r"|^[^。]{0,30}吹き出し"
)
"""The same in Japanese, in the characters that `simplified` leaves."""

_JA_NAMING_AFTER = re.compile(r"^(?:という名|の世界|のワンシーン|の一场面|风|のような|みたいな)")
_JA_NAMING = re.compile(r"(?:映画|アニメ|ゲーム|曲|ドラマ|マンガ|漫画|小说)\s*$")
_NAMING = re.compile(
    r"\b(?:called|named|nicknamed|known as|a\.?k\.?a\.?|so-called|dubbed|starring|movie|film|"
    r"series|show|novel|song|album|game|painting|band|from|like|by|style of|"
    r"(?<!english )(?<!chinese )(?<!single )character|inspired by"
    r"|based on|the original|the classic|remake of|scene from|version of|sculpture|statue of|"
    r"opera|ballet|play|cover of)\s*(?:the\s+)?$",
    re.IGNORECASE,
)
_DESIGN = re.compile(
    r"\b(?:poster|flyer|logo|banner|cover|invitation|card|label|packaging|ticket|menu|brochure|sign)\b", re.IGNORECASE
)
"""Things whose point is to say what something is called."""

_CJK_CUE = re.compile(
    r"(?:写|寫|印|刻|绣|铭|挂|涂|喷|标|题|贴|画|显示|显现|浮现|出现|闪烁|播放|展示|展现|打|拼|组成|构成|形成|呈现|投射|念|读)(?:着|有|成|出|了|下|上|满|"
    r"作|为|明)?\s*(?:了?[一几][行句个段排些句])?"
    r"|文字|字样|字|词|句|标语|标题|题目|书名|招牌|牌|标牌|路牌|海报|横幅|条幅|封面|信息|警告|诗|口号|台词|对话|气泡|署名|落款|logo|LOGO|品牌|店名|"
    r"中文|英文|日文|韩文|[宋黑楷]体|[行草隶楷篆]书|书法|手写|毛笔|上书|书写|姓名|职位|电话|地址|价格|编号|日期|"
    r"名称|名字|屏幕|黑板|广告语|slogan|霓虹灯?|灯牌|灯箱|[上下]联|横批|匾|便签|便利贴|纸条|弹幕|内容[为是]?|[:：]\s*$"
)
_CJK_CUE_AFTER = re.compile(
    r"^\s*(?:的?(?:字样|字(?![手脸领路帐架形型母])|文字|标语|标题|招牌|牌|标牌|木牌|横幅|海报|艺术字|书法|logo|LOGO|对联|门牌|封面|霓虹)|"
    r"这?[几两一二三四五六七八九十]个?(?:大|小)?字|几个(?:大|小)?字|写在|印在|刻在)"
    r"|^[—-]{0,2}[^，。；“]{0,20}?(?:文字|字幕|汉字|中文|英文|字体|书法|[大小体]字|写[于在]|[宋黑楷]体|[行草隶楷篆]书)"
)
_CJK_NAMING = re.compile(
    r"(?:叫|名叫|名为|称为|所谓的?|绰号|外号|电影|动画|小说|歌曲|游戏|电视剧|里的|中的|出自|来自|类似|模仿|雕塑|名画|名作|漫画)\s*$"
)
_CJK_TITLED = re.compile(r"(?:标题|书名|题目|写着|印着|刻着|写有|印有|文字|字样|题为|题着)[^，。]{0,6}$")
_CALLED = re.compile(r"\b(?:called|named)\s*$")
_JOINT = re.compile(r"\s*(?:,|、|和|与|及|and|or|&|/|\+|;|，|と)?\s*(?:and|then|below it|the words?|by)?\s*")
_SENTENCE = re.compile(r"(?:[.;。；！!？?]|(?<![:：])\n)(?=\s|$|[^\d\s])")
_HAN = re.compile("[\u3400-\u9fff]")
_KANA = re.compile("[\u3041-\u30fa]")
_MOST_AFTER = 40
"""Characters behind a quote in which another language may have its verb of writing."""

_SPEAKS = re.compile(
    r"\b(?:no|without(?: any)?|not|don't|do not)\s+(?:any\s+)?(?:the\s+)?(?:text|words?|letters?|"
    r"writing|sign|caption|watermark|logo)s?\s*$",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """Texts to render, and where they stand.

    Attributes:
        texts: The texts, word for word.
        spans: Start and end of each in the prompt, quotation marks included.
    """

    texts: tuple[str, ...] = ()
    spans: tuple[tuple[int, int], ...] = ()


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
    # whoever quotes one text quotes them all, except behind a label
    unquoted = unquoted_in(text, plain, labelled=bool(found))
    found += [one for one in unquoted if not any(s < one[1] and one[0] < e for s, e in taken)]
    found = sorted((start, end, words) for start, end, words in found if words)
    return Rendered(texts=tuple(words for _, _, words in found), spans=tuple((start, end) for start, end, _ in found))


def without_texts(text: str, texts: Iterable[str]) -> str:
    """A text without the words that are to be written in the picture."""
    for words in texts:
        text = text.replace(words, " ")
    return text


def _with_reason(plain: str, quotes: list[Quote]) -> Iterator[Quote]:
    """The quotes that are to be read in the picture; in a row of several the first gives the reason for all."""
    end, reasoned = -1, False
    for quote in quotes:
        joined = reasoned and _JOINT.fullmatch(plain, end, quote.start) is not None
        end, reasoned = quote.end, joined or _has_reason(plain, quote)
        if reasoned:
            yield quote


def _has_reason(plain: str, quote: Quote) -> bool:
    # sentences end a reason, and so does a comma, unless the verb stands right before it: says, "OPEN"
    clause = _SENTENCE.split(plain[max(0, quote.start - 160) : quote.start])[-1]
    after = plain[quote.end : quote.end + 80]
    if _SPEAKS.search(clause):
        return False
    clause = without_denials(clause)
    if _KANA.search(clause[-12:] + after[:8]):
        return _has_japanese_reason(clause[-24:], after, quote)
    if _HAN.search(clause[-12:] or after[:6]) or (not clause.strip() and _HAN.search(quote.words)):
        return _has_chinese_reason(clause[-24:], after, quote)
    if _NAMING.search(clause) or quote.title:
        return _DESIGN.search(clause) is not None and _CALLED.search(clause) is not None
    return _has_other_reason(clause, after, quote)


def _has_japanese_reason(clause: str, after: str, quote: Quote) -> bool:
    if _JA_CUE_AFTER.match(after):
        return True
    if _JA_NAMING_AFTER.match(after) or _JA_NAMING.search(clause):
        return False
    return any(cue.search(clause) for cue in (_JA_CUE, _CJK_CUE)) or _in_capitals(quote.words)


def _has_chinese_reason(clause: str, after: str, quote: Quote) -> bool:
    if _CJK_CUE_AFTER.match(after):
        return True
    if _CJK_NAMING.search(clause):
        return False
    if quote.title:
        return _CJK_TITLED.search(clause) is not None
    return any(cue.search(clause) for cue in (_CJK_CUE, _CUE)) or _in_capitals(quote.words)


def _has_other_reason(clause: str, after: str, quote: Quote) -> bool:
    if _CUE_AFTER.match(after) or _in_capitals(quote.words) or _CUE.search(clause[-90:]):
        return True
    if clause.rstrip().endswith(":") and clause.strip(": "):
        return True
    return _CUE_ELSEWHERE.search(f"{clause[-90:]} {_SENTENCE.split(after)[0][:_MOST_AFTER]}") is not None


def _in_capitals(words: str) -> bool:
    letters = [letter for letter in words if letter.isalpha()]
    return len(letters) >= 2 and all(letter.isupper() for letter in letters)
