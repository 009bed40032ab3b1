"""The taxonomy nodes that a text names, by the words people use for them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache, lru_cache
from importlib import resources

from diffusiongpt.embedding import CJK, Embedder, normalize
from diffusiongpt.understanding.languages import simplified
from diffusiongpt.zoo import Node

MIN_LIKENESS = 0.5
"""Cosine similarity from which words count as a misspelt alias: `wathercolor` has .67 to `watercolor`, `pixle art`
.58 to `pixel art`."""

LIKENESS_BY_LETTER = 0.86
"""Share of letters in the same order from which similar words may be one misspelt: `pixle art` has .89, `sketched` and
`stretched` .82."""

MOST_OTHER_LETTERS = 3
"""Letters that one of two similar words may have and the other not."""

_LETTER = rf"(?:(?![{CJK}])[^\W_])"
_TOKEN = re.compile(rf"[{CJK}]|{_LETTER}+(?:['’]{_LETTER}+)*")
_TOKEN_OR_STOP = re.compile(rf"{_TOKEN.pattern}|[,.;:!?，。；：、！？\n]")
_KATAKANA = re.compile("[ァ-ヺー]")
_IS_CJK = re.compile(f"[{CJK}]")
_MAX_TOKENS = 2000
_KEPT_WORDS = 8192


@dataclass(frozen=True, kw_only=True)
class Mention:
    """A node that a text names.

    Attributes:
        node: Id of the node.
        words: The words of the text that match one of its aliases.
        weight: 1 for an exact match, the cosine similarity for a similar spelling; more or less where the text gives
            the words a weight of their own.
        start: Index of its first token in the text.
        end: Index behind its last token.
    """

    node: str
    words: str
    weight: float
    start: int = 0
    end: int = 0


class Lexicon:
    """Aliases of nodes, looked up by tokens; the longest match wins, and its words match nothing else.

    Phrases and names whose words mean something else ("hot dog", "pencil case") match first and name nothing. A word
    for a tool or a material (`Node.media`) names its style only where the text uses it as such: "in pencil", not "a
    pencil on a desk".

    Args:
        nodes: The nodes to look for.
        embedder: Embedder for `likenesses`, which returns nothing without one.
    """

    def __init__(self, nodes: Iterable[Node], embedder: Embedder | None = None) -> None:
        self._embedder = embedder
        self._aliases: dict[tuple[str, ...], list[str]] = {phrase: [] for phrase in _phrases()}
        self._media: set[tuple[tuple[str, ...], str]] = set()
        self._subjects: set[str] = set()
        self._alive = {"character", "animal", "scene"}
        for node in nodes:
            if node.kind == "subject":
                self._subjects.add(node.id)
            # in the order of the taxonomy, which decides among names that words are equally like
            for alias in dict.fromkeys(map(_as_read, names_of(node))):
                if key := name_key(alias):
                    self._aliases.setdefault(key, []).append(node.id)
            for alias in dict.fromkeys(map(_as_read, node.media)):
                if (key := name_key(alias)) and node.id not in self._aliases.get(key, ()):
                    self._aliases.setdefault(key, []).append(node.id)
                    self._media.add((key, node.id))
        self._lengths: dict[str, tuple[int, ...]] = {}
        for key in self._aliases:
            known = {len(key), *self._lengths.get(key[0], ())}
            self._lengths[key[0]] = tuple(sorted(known, reverse=True))
        self._fuzzy = [key for key in self._aliases if self._can_be_misspelt(key)]
        # a misspelling keeps the first letter and about the length, so few words and few names have to be compared
        self._alike: dict[tuple[str, int], list[tuple[int, int]]] = {}
        for index, word in enumerate(map("".join, self._fuzzy)):
            for length in range(int(len(word) * 0.85), int(len(word) / 0.85) + 2):
                self._alike.setdefault((word[0], length), []).append((_letters(word), index))
        self._fuzzy_vectors = embedder.embed([" ".join(key) for key in self._fuzzy]) if embedder else None
        # most words of a prompt are in many prompts
        self._meant_by = lru_cache(maxsize=_KEPT_WORDS)(self._misspelt)

    def mentions(self, text: str) -> list[Mention]:
        """Nodes that the text names, in order of appearance."""
        return self.mentions_in(tokens_of(text))

    def mentions_in(self, tokens: Sequence[str]) -> list[Mention]:
        """The same for a text that is split into tokens already."""
        found: list[Mention] = []
        position = 0
        while position < len(tokens):
            if not self._begins_a_name(tokens[position]):
                position += 1
                continue
            key, nodes = self._match(tokens, position)
            end = position + max(len(key), 1)
            if meant := [node for node in nodes if self._means(node, key, tokens, position, end)]:
                words = ("" if _IS_CJK.match(tokens[position]) else " ").join(tokens[position:end])
                found += [Mention(node=node, words=words, weight=1.0, start=position, end=end) for node in meant]
            position = end
        return found

    def likenesses(self, tokens: Sequence[str]) -> list[Mention]:
        """Nodes with an alias that is spelt like words of a text, given as tokens: misspellings and close variants."""
        best: dict[int, tuple[float, str]] = {}
        spelt = dict(_windows(self._unknown(tokens[:200])))
        for words in (one for one, joined in spelt.items() if self._could_be_misspelt(joined)):
            for index, likeness in self._meant_by(words):
                if likeness > best.get(index, (0.0, ""))[0]:
                    best[index] = likeness, words
        return [
            Mention(node=node, words=words, weight=likeness)
            for index, (likeness, words) in sorted(best.items())
            for node in self._aliases[self._fuzzy[index]]
        ]

    def _misspelt(self, words: str) -> tuple[tuple[int, float], ...]:
        """The names that words may be a misspelling of, by their index, and how alike they are."""
        if self._embedder is None or self._fuzzy_vectors is None:
            return ()
        near = [index for _, index in self._alike_to(words.replace(" ", ""))]
        cosines = (self._embedder.embed([words]) @ self._fuzzy_vectors[near].T)[0].tolist()
        return tuple(
            (index, cosine)
            for index, cosine in zip(near, cosines, strict=True)
            if cosine >= MIN_LIKENESS and _is_misspelling(words, self._fuzzy[index])
        )

    def _match(self, tokens: Sequence[str], position: int) -> tuple[tuple[str, ...], list[str]]:
        first = tokens[position]
        if not self._begins_a_name(first):
            return (), []
        for length in self._lengths.get(first, ()):
            key = tuple(tokens[position : position + length])
            if len(key) < length:
                continue
            last = _singular(key[-1])
            for spelt in (key,) if last == key[-1] else (key, (*key[:-1], last)):
                if (nodes := self._aliases.get(spelt)) is not None:
                    return spelt, nodes
        single = (_singular(first),)
        return (single, self._aliases[single]) if single in self._aliases else ((), [])

    def _begins_a_name(self, word: str) -> bool:
        """Whether a name begins with a word, as it is or in the singular; most words begin none."""
        return word in self._lengths or _singular(word) in self._lengths

    def _could_be_misspelt(self, word: str) -> bool:
        """Whether a word has nearly the letters of a name, which is quicker to see than how alike they are."""
        meant = self._alike_to(word)
        if not meant:
            return False
        mine = _letters(word)
        return any((mine ^ theirs).bit_count() <= MOST_OTHER_LETTERS for theirs, _ in meant)

    def _alike_to(self, word: str) -> Sequence[tuple[int, int]]:
        """Letters and index of the names with the first letter of a word and about its length."""
        return self._alike.get((word[0], len(word)), ())

    def _can_be_misspelt(self, key: tuple[str, ...]) -> bool:
        nodes = self._aliases[key]
        tools = any((key, node) in self._media for node in nodes)
        plain = not _IS_CJK.match(key[0]) and len("".join(key)) >= 5
        return plain and not tools and not self._subjects.issuperset(nodes)

    def _unknown(self, tokens: Sequence[str]) -> list[str]:
        """Tokens, with an empty one in place of each that is spelt like a name or a phrase already."""
        known = list(tokens)
        for position in range(len(tokens)):
            key, _ = self._match(tokens, position)
            if key:
                known[position : position + len(key)] = [""] * len(key)
        return known

    def _means(self, node: str, key: tuple[str, ...], tokens: Sequence[str], start: int, end: int) -> bool:
        """Whether the words of a name mean it here."""
        if node not in self._subjects and (_is_worn(tokens, end) or (tokens[end : end + 1] or [""])[0] in _THINGS):
            return False
        if (key, node) in self._media:
            return self._is_used(tokens, start, end)
        # what is written without spaces has no ends: カメラ has no turtle in it, 马 no horse in 罗马
        if _KATAKANA.fullmatch(key[0]) and any(
            map(_KATAKANA.fullmatch, (*tokens[start - 1 : start], *tokens[end : end + 1]))
        ):
            return False
        alone = len(key) == 1 and _IS_CJK.match(key[0]) is not None and node in self._subjects
        before = tokens[start - 1] if start else ""
        return not alone or not _IS_CJK.match(before) or before in _BEFORE_NOUNS or "ぁ" <= before <= "ん"

    def _is_used(self, tokens: Sequence[str], start: int, end: int) -> bool:
        """Whether a word for a tool or a material says how the picture is made."""
        before = [token for token in tokens[max(0, start - 4) : start] if token not in _ARTICLES]
        after = tokens[end : end + 3]
        opens, ends = not before or before[-1] in _STOPS, not after or after[0] in _STOPS
        if (opens and ends) or " ".join(before[-2:]) in _STYLE_BEFORE or (before and before[-1] in _STYLE_BEFORE):
            return True
        if ends:
            return False
        if after[0] in _STYLE_WORDS or "".join(after[:2]) in _STYLE_WORDS or (opens and after[0] in _OF):
            return True
        # "a charcoal portrait", "a crayon and graphite fox": it stands before the subject itself
        following = tokens[end + 1 : end + 5] if after[0] in ("的", "and") else tokens[end : end + 4]
        return any(node in self._alive for node in self._match(following, 0)[1]) if following else False


_ARTICLES = frozenset({"a", "an", "the", "soft", "fine", "simple", "traditional", "classic", "classical", "colorful"})
_STOPS = frozenset({",", ".", ";", ":", "，", "。", "；", "：", "、", "!", "?", "\n"})
_STYLE_WORDS = frozenset([
    "style", "styled", "styles", "stylised", "stylized", "art", "artwork", "drawing", "drawings", "painting",
    "illustration", "sketch", "animation", "look", "looks", "aesthetic", "aesthetics", "texture", "print",
    "collage", "craft", "render", "rendering", "portrait", "medium", "technique", "effect", "inspired", "esque",
    "graphic", "graphics", "风格", "画风", "风", "艺术", "画", "绘画", "插画", "质感", "笔触", "效果", "笔下", "式",
])  # fmt: skip
_STYLE_BEFORE = frozenset(
    (
        "in",
        "using",
        "by",
        "like",
        "style",
        "drawn",
        "painted",
        "rendered",
        "made of",
        "made from",
        "made with",
        "out of",
        "drawn with",
        "painted with",
        "drawn by",
        "style of",
        "用",
        "以",
        "由",
    )
)
"""Words before a tool or a material that make it the way the picture is drawn."""

_THINGS = frozenset([
    "set", "sets", "kit", "kits", "store", "stores", "shop", "shops", "album", "albums", "class", "classes",
    "lesson", "lessons", "convention", "museum", "gallery", "studio", "artist", "artists", "supplies", "brush",
    "brushes", "tube", "tubes", "palette", "exhibition", "collection", "collector", "fan", "fans", "festival",
    "factory", "machine", "phone", "camera", "printer", "app", "software", "rack", "shelf", "case", "holder",
    "teacher", "student", "course",
])  # fmt: skip
"""Behind the name of a style these make a thing of it: a watercolor set, an anime convention."""

_WORN = re.compile(
    r"(?:styled?|风格|风|式)?的?(?:[a-z]+ ){0,2}?(?:dress|gown|clothes|clothing|outfit|suit|jacket|"
    r"shirt|t shirt|hat|shoes|skirt|coat|hair|hairstyle|jewelry|tattoo"
    r"|黑?色?(?:连衣裙|晚礼服|礼服|衣服|裙子|外套|帽子|服装|服饰|西装|发型|首饰|纹身))"
)
"""Clothes and the like right after a style: it is theirs, and not that of the picture."""

_BEFORE_NOUNS = frozenset(
    "的只个位名头匹条座辆朵棵张架艘支把块件台根枚颗片本盏间口群对双小大老白黑红橘花野家和与及的地新旧蓝绿紫灰金是のとい"
)
"""Characters after which a single character is a noun of its own."""

_OF = frozenset({"of", "for", "featuring", "showing", "depicting"})


def _is_worn(tokens: Sequence[str], end: int) -> bool:
    following = tokens[end : end + 12]
    spaced = ("" if following and _IS_CJK.match(following[0]) else " ").join(following)
    return re.match(r"(?:styled? |风格的?|风的|式)", spaced) is not None and _WORN.match(spaced) is not None


def names_of(node: Node) -> tuple[str, ...]:
    """All names of a node: its aliases, its labels, and its id in plain words where it has no label."""
    return (*node.aliases, *node.label.values(), node.name())


def _as_read(name: str) -> str:
    """A name as texts are read: normalised, in simplified characters."""
    return normalize(simplified(name))


def tokens_of(text: str) -> list[str]:
    """The tokens of a text in which nodes are looked for: words, CJK characters, and marks that end a clause."""
    return _TOKEN_OR_STOP.findall(normalize(text))[:_MAX_TOKENS]


def name_key(name: str) -> tuple[str, ...]:
    """The tokens by which texts are searched for a name; names with the same key are indistinguishable."""
    return tuple(_TOKEN.findall(normalize(name)))


def weights(mentions: Iterable[Mention], nodes: Mapping[str, Node]) -> dict[str, float]:
    """Weight of the strongest mention of each node, for the nodes given."""
    strongest: dict[str, float] = {}
    for mention in mentions:
        if mention.node in nodes:
            strongest[mention.node] = max(mention.weight, strongest.get(mention.node, 0.0))
    return strongest


def _is_misspelling(words: str, alias: Sequence[str]) -> bool:
    """Whether words keep the first letter and about the length of an alias, unlike a part of a longer name."""
    typed, meant = words.replace(" ", ""), "".join(alias)
    return (
        typed[0] == meant[0]
        and min(len(typed), len(meant)) >= 0.85 * max(len(typed), len(meant))
        and SequenceMatcher(None, typed, meant, autojunk=False).ratio() >= LIKENESS_BY_LETTER
    )


@cache
def _phrases() -> tuple[tuple[str, ...], ...]:
    """Names and phrases whose words name nothing."""
    lines = (
        resources.files("diffusiongpt.understanding").joinpath("phrases.txt").read_text(encoding="utf-8").splitlines()
    )
    named = (name.strip() for line in lines if not line.startswith("#") for name in line.split(","))
    return tuple(filter(None, (name_key(name) for name in named if name)))


def _letters(word: str) -> int:
    """The set of letters of a word, as bits."""
    bits = 0
    for letter in word:
        bits |= 1 << (ord(letter) & 63)
    return bits


@lru_cache(maxsize=4096)  # each word of a prompt is looked up in several lexicons
def _singular(word: str) -> str:
    if word.endswith(("'s", "’s")):
        return word[:-2]
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("ches", "shes", "xes", "sses")):
        return word[:-2]
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _windows(tokens: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Up to three words in a row, of five letters and more: with spaces between them, and without."""
    plain = [bool(token) and token[0].isalnum() and not _IS_CJK.match(token) for token in tokens]
    for length in (1, 2, 3):
        for start in range(len(tokens) - length + 1):
            window = tokens[start : start + length]
            if all(plain[start : start + length]) and len(joined := "".join(window)) >= 5:
                yield " ".join(window), joined
