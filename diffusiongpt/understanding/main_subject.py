"""Which of the things that a prompt names the picture is about: the head of its first clause, not where it stands.

"In front of the pyramids, a robot dog with a flower" is about a dog: the pyramids are a place, the robot says which
dog, the flower comes with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise, zip_longest
from math import inf

from diffusiongpt.flow import SubjectClass
from diffusiongpt.understanding.lexicon import Mention
from diffusiongpt.understanding.numbers import CARDINALS

PLACE, PART, LATER = 0.25, 0.3, 0.85
"""Weight of a mention that says where, of one that says which or of what, and of each mention after the first. Chosen
on one half of the labelled prompts of `benchmarks/understanding.py`, which prints how often the other is right."""

_WHERE = frozenset([
    "in", "on", "at", "under", "below", "above", "over", "behind", "beside", "near", "by", "inside", "outside",
    "within", "beneath", "underneath", "against", "across", "along", "around", "among", "between", "through",
    "toward", "towards", "into", "onto", "from", "atop", "amid", "during", "past", "beyond",
])  # fmt: skip
_WHICH = frozenset(
    (
        "with",
        "like",
        "as",
        "without",
        "than",
        "for",
        "to",
        "made",
        "composed",
        "holding",
        "wearing",
        "shaped",
        "resembling",
        "imitating",
    )
)
_PICTURES = frozenset([
    "portrait", "photo", "photograph", "picture", "image", "painting", "illustration", "sketch", "drawing", "rendering",
    "render", "close-up", "closeup", "shot", "snapshot", "watercolor", "watercolour", "etching", "engraving", "woodcut",
    "depiction", "caricature", "headshot",
])  # fmt: skip
"""Names of pictures: that of a thing shows the thing."""

_SHOWS = _PICTURES | frozenset([
    "poster", "logo", "icon", "close", "up", "view", "group", "pair", "herd", "flock", "pack", "family", "couple",
    "bunch", "set", "pile", "figure", "silhouette", "crowd", "team", "series", "collection", "lot", "kind", "scene",
    "cartoon", "sculpture", "statue", "bust", "model", "sticker", "selfie", "wallpaper", "diorama", "miniature",
    "design", "version", "row", "skin", "body", "eyes", "head", "face", "tail", "wings", "texture", "shape", "spirit",
    "ghost", "wreckage", "remains", "section", "stretch", "piece", "corner",
])  # fmt: skip
_SHOWING = frozenset(
    (
        "of",
        "about",
        "depicting",
        "showing",
        "featuring",
        "depicts",
        "shows",
        "portraying",
        "representing",
        "called",
        "for",
    )
)
_STOPS = frozenset({",", ".", ";", ":", "。", "；", "、", "!", "?", "\n"})
_FORMS = frozenset([
    "sculpture", "statue", "bust", "figurine", "poster", "illustration", "logo", "sticker", "portrait", "group",
    "crowd", "toy", "doll", "icon", "design", "card", "cover", "puppet", "portraits", "sculptures", "雕塑", "雕像",
    "海报", "插画", "标志", "贴纸", "肖像", "头像", "图标", "封面", "特写", "玩偶", "公仔", "人像", "海报设计", "家族",
])  # fmt: skip
"""Names of pictures and figures: a picture of a fox on a poster is about the fox."""

_NUMBERS = frozenset(CARDINALS[1:10])
_ARTICLES = frozenset("a an the one two three four five some several many his her its their this that".split())  # noqa: SIM905 - a list to read
_HUMANLIKE = frozenset(("anthropomorphic", "personified", "humanized", "humanoid", "拟人", "拟人化", "人形"))

_MADE = (
    "构成",
    "组成",
    "制成",
    "材质",
    "做成",
    "打造",
    "雕刻成",
    "雕成",
    "拼成",
    "而成",
    "形状",
    "图案",
    "质感",
    "形成",
)
_PLACE_AFTER = (
    "里",
    "中",
    "上",
    "下",
    "内",
    "前",
    "旁",
    "外",
    "边",
    "后",
    "间",
    "背景",
    "之上",
    "之下",
    "附近",
    "深处",
    "对面",
    "顶",
    "表面",
    "脚下",
    "上空",
)
_LIKE = re.compile(r"(?<!雕|塑|头|肖|影|图|偶|神)像[^，。的]{0,6}$")
"""A comparison up to the noun in question: "像一座山一样"; 雕像 and 影像 are pictures."""

_PREPOSITION = re.compile(r"(?<![正还仍实存])在|从|(?<![看感遇直达])到")
"""Words that lead to a place; "正在" says that something is going on."""

_OWN_PART = re.compile(
    r"的(?:整个|巨大)?(?:身体|身躯|躯体|躯干|头|脸|背|翅膀|尾巴|眼睛|毛发|皮肤|羽毛|鳞片|轮廓|身上|全身)"
)
"""What belongs to a thing: a picture of a whale's body is about the whale."""

_PLACE_OF = re.compile(
    r"的[^，。、,.;；在是有着了的从被把]{1,4}?(?:里|中|内|上|下|前|旁|外|间|深处|中央|顶端)(?![\u4e00-\u9fff]?[的])"
)
"""What lies in something of it: "废弃阁楼的尘埃中" says where."""

_PICTURED = re.compile(
    r"[犬们]?的?[^，。、,.;；：:！？!?在是有着了的]{0,6}?(?:照片|相片|图片|图像|写真|画像|肖像|头像|插画|插图|海报|特写|漫画"
    r"|素描|(?:油|水彩|水墨|国|版|铅笔|炭笔|蜡笔|速写|像素)画|画作)"
)
"""What makes the thing before it the subject of a picture: "猫的照片" shows a cat."""

_ALIVE = frozenset(("character", "animal"))

_LIKENED = frozenset(("sized", "shaped", "like", "themed", "inspired", "patterned", "print"))
_OWN = frozenset(
    ("body", "head", "face", "back", "wings", "tail", "eyes", "eye", "fur", "skin", "hair", "feathers", "silhouette")
)
"""What belongs to a thing: a picture of a whale's body is about the whale, that of a children's book is not."""

_ANNOUNCING = frozenset([
    "image", "picture", "photo", "illustration", "poster", "ad", "advertisement", "painting", "animation", "interface",
    "render",
])  # fmt: skip
_ANNOUNCING_ENDS = frozenset("图片像报画面")
"""Last characters of 广告图, 照片, 图像, 海报, 插画 and 界面."""

MOST_ANNOUNCING = 24
"""Tokens within which a text announces what follows: "生成一张汽车广告图：", "Please create a poster of a car: "."""

_WORN_OR_HELD = re.compile(r"(?:穿着|身穿|身着|戴着|披着|拿着|手持|抱着|骑着|背着|长着|拥有|装扮成)[^，。的]{0,8}$")
"""What somebody wears, holds or has, up to the noun in question; it says which, not what."""

_CLASSIFIERS: Mapping[str, SubjectClass] = {
    "位": "character",
    "名": "character",
    "头": "animal",
    "匹": "animal",
    "只": "animal",
}
_NUMERALS = frozenset("一两二三四五六七八九十几")
_MEASURES = frozenset("只个位名头匹条座辆朵棵张架艘支把块件台根枚颗片本盏幅间口群对双")

CLASSES: Mapping[str, SubjectClass] = {"character": "character", "animal": "animal", "scene": "scene"}
"""Class of a subject node; of any other, `other`."""


def weigh_subjects(tokens: Sequence[str], mentions: Sequence[Mention]) -> list[float]:
    """How much each mention of a subject is what the picture is about, from 0 to 1.

    Args:
        tokens: The tokens of the prompt.
        mentions: Mentions of subjects, in order of appearance.
    """
    followed = zip_longest(mentions, mentions[1:])
    roles = [PART if one.words in _FORMS else _role(tokens, one, following) for one, following in followed]
    weights: list[float] = []
    for index, mention in enumerate(mentions):
        colon = _announced_at(tokens, mention)
        # what is announced takes its place; "a photo of a fox: soft light" announces no other subject
        announced = [one for one, role in zip(mentions, roles, strict=True) if one.start > colon and role > PART]
        role = PART if _gives_way(tokens, mention, announced) else roles[index]
        main = sum(weight > PART for weight in weights)
        weights.append(role * LATER**main)
    return weights


def class_of(
    tokens: Sequence[str], mentions: Sequence[Mention], weights: Sequence[float], guess: str | None = None
) -> SubjectClass:
    """The coarse class of what a picture is about, by the thing that it is most about.

    Args:
        tokens: The tokens of the prompt.
        mentions: Mentions of subjects.
        weights: Their weights, from `weigh_subjects`.
        guess: The subject node by meaning, for a prompt that names none.
    """
    counted = counted_class(tokens)
    if not mentions:
        return CLASSES.get(guess or "", counted or "other")
    best = max(range(len(mentions)), key=lambda index: weights[index])
    main = mentions[best]
    if _HUMANLIKE.intersection(tokens) or _HUMANLIKE.intersection(mention.words for mention in mentions):
        return "character"
    if weights[best] <= PART and _opens_with_unknown(tokens, main):
        return counted or CLASSES.get(guess or "", "scene" if main.node == "scene" and best == 0 else "other")
    return CLASSES.get(main.node, "other")


def counted_class(tokens: Sequence[str]) -> SubjectClass | None:
    """What the first measure word of a Chinese text counts, where it counts people or animals alone."""
    first = next((token for before, token in pairwise(tokens) if before in _NUMERALS and token in _MEASURES), "")
    return _CLASSIFIERS.get(first)


def _role(tokens: Sequence[str], mention: Mention, following: Mention | None) -> float:
    leads = following is not None and following.start == mention.end and following.words not in _FORMS
    if leads:
        return PART
    if mention.words and mention.words[0] > "\u2e80":
        return _chinese_role(tokens, mention, following)
    return PART if _says_which(tokens, mention) else _role_by_governor(tokens, mention)


def _says_which(tokens: Sequence[str], mention: Mention) -> bool:
    """Whether the words after an English noun make it say which, or of what: "group of", "dog's bowl", "dog-shaped"."""
    after = tokens[mention.end : mention.end + 2]
    if not after:
        return False
    if after[0] == "of" and mention.words.rstrip("s") in _SHOWS:
        return after[1:] != [] and after[1] not in _NUMBERS
    return after[0] in _LIKENED or (mention.words.endswith(("'s", "’s")) and after[0] not in _OWN)


def _role_by_governor(tokens: Sequence[str], mention: Mention) -> float:
    """The weight of an English noun by the word that governs it."""
    before = _phrase_before(tokens, mention.start)
    governor = before[-1] if before else ""
    if before == ["with"]:  # it opens a clause: "in the style of a woodcut, with a fox in the foreground"
        return 1.0
    if governor == "of" and not any(word.rstrip("s") in _SHOWS or word in _SHOWS for word in before[-2:-1]):
        return PART
    return PLACE if governor in _WHERE else PART if governor in _WHICH - _SHOWING else 1.0


def _announced_at(tokens: Sequence[str], mention: Mention) -> float:
    """Place of the colon after a mention in what announces a picture, "an ad for a coat: "; else infinity."""
    colon = next((at for at in range(mention.end, min(len(tokens), MOST_ANNOUNCING)) if tokens[at] in ":："), None)
    if colon is None:
        return inf
    said = tokens[:colon]
    named = not _ANNOUNCING.isdisjoint(said) or said[-1] in _ANNOUNCING_ENDS
    return colon if named and _STOPS.isdisjoint(said) else inf


def _gives_way(tokens: Sequence[str], mention: Mention, announced: Sequence[Mention]) -> bool:
    """Whether what is announced is the subject, and not a mention in the announcement.

    "A photo of a cat: a sofa, soft light" shows a cat, with details; "a photo of a sofa: a cat asleep on it" is about
    the cat, and "an ad for a coat: a street at night" about the street.
    """
    if not announced or not _is_pictured(tokens, mention):
        return bool(announced)
    return mention.node not in _ALIVE and any(one.node in _ALIVE for one in announced)


def _is_pictured(tokens: Sequence[str], mention: Mention) -> bool:
    """Whether the words around a mention say that the picture is one of it."""
    if _PICTURED.match("".join(tokens[mention.end : mention.end + 10])):
        return True
    before = _phrase_before(tokens, mention.start)
    return before[-1:] == ["of"] and not _PICTURES.isdisjoint(word.rstrip("s") for word in before[-2:-1])


def _phrase_before(tokens: Sequence[str], place: int) -> list[str]:
    """Tokens of the clause before a noun, up to the word that governs it, which comes last."""
    words: list[str] = []
    for index in range(place - 1, max(-1, place - 7), -1):
        token = tokens[index]
        if token in _STOPS:
            break
        if token in _WHERE or token in _WHICH or token in _SHOWING:
            words = [*(other for other in tokens[max(0, index - 2) : index] if other not in _STOPS), token]
            break
        if token in ("is", "are", "was", "were", "and", "while", "has", "have") or (
            token.endswith("ing") and len(token) > 5
        ):
            break
    return words


def _chinese_role(tokens: Sequence[str], mention: Mention, following: Mention | None) -> float:
    after = "".join(tokens[mention.end : mention.end + 8])
    clause = "".join(tokens[_clause_start(tokens, mention.start) : mention.start])
    opening = _PREPOSITION.split(clause)
    if after.startswith((*_PLACE_AFTER, "で", "に", "へ")) or _PLACE_OF.match(after):
        return PLACE
    if _OWN_PART.match(after) and len(opening) == 1:
        return 1.0
    if after.startswith((*_MADE, "を")) or (after.startswith(("的", "の")) and _leads_to(tokens, mention, following)):
        return PART
    if "由" in clause and not any(word in clause for word in _MADE):
        return PART
    if len(opening) > 1 and not _MEASURES.intersection(opening[-1]):
        return PLACE
    return PART if clause.endswith("比") or _LIKE.search(clause) or _WORN_OR_HELD.search(clause) else 1.0


def _leads_to(tokens: Sequence[str], mention: Mention, following: Mention | None) -> bool:
    """Whether "X的" says which Y or whose: Y follows closely in the same clause, and is not a picture of X."""
    if following is None or following.start - mention.end > 6 or following.words in _FORMS:
        return False
    between = tokens[mention.end : following.start]
    return _STOPS.isdisjoint(between) and not _PICTURED.match("".join(between))


def _clause_start(tokens: Sequence[str], place: int) -> int:
    while place > 0 and tokens[place - 1] not in _STOPS:
        place -= 1
    return place


def _opens_with_unknown(tokens: Sequence[str], main: Mention) -> bool:
    """Whether an article or a measure word leads to a noun that is not in the vocabulary, before the main mention."""
    opening = tokens[: main.start]
    return any(token in _ARTICLES or token in _MEASURES for token in opening) or not opening
