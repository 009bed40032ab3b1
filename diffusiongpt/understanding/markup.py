"""Markup of other tools, taken apart before a prompt is read.

People paste what they typed elsewhere: weights and LoRAs of AUTOMATIC1111 and ComfyUI, flags of Midjourney, wildcards.
None of it is language. What we can apply becomes a value, the rest is named, and the words are left.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from diffusiongpt.flow import Adapter, Emphasis, Markup, Unused
from diffusiongpt.understanding.infotext import Settings, split_infotext
from diffusiongpt.understanding.quotes import quotes_in

_ADAPTER = re.compile(r"<(?P<kind>[a-z]{2,12}):(?P<name>[^:<>\n]{1,200})(?::(?P<rest>[^<>\n]{0,100}))?>", re.IGNORECASE)
_ADAPTER_KINDS = frozenset({"lora", "lyco", "locon", "loha", "lokr", "dora"})
_EMBEDDING = re.compile(r"\bembedding:(?P<name>[\w./-]{1,100})", re.IGNORECASE)
_WILDCARD = re.compile(r"(?<![\w_])__(?P<name>[A-Za-z0-9][\w/*-]{0,80}?)__(?![\w_])")
_BREAK = re.compile(r"(?<!\s)[ \t]*+,?+\s*+(?<!\w)(?P<word>BREAK|ADDCOMM|ADDBASE|ADDCOL|ADDROW)(?!\w)\s*,?")
"""Possessive and from the first space on: markup that is taken out leaves long runs of spaces."""
_SHOUTED = re.compile(r"\b[A-Z]{2,}\s*$")
"""A word in capitals: behind one, BREAK is a word in capitals too."""

_AND = re.compile(r"(?<=\S)\s+AND\s+(?=\S)")
_WEIGHTED = re.compile(r"\(([^()\[\]{}<>]{1,500}?)\s*:\s*([+-]?\d{0,3}(?:\.\d{1,4})?)\s*\)")
_DOUBLED = re.compile(r"\(\(+([^()\[\]{}]{1,500})\)+\)|\{\{+([^(){}\[\]]{1,500})\}+\}")
_LOWERED = re.compile(r"\[\[+([^\[\]{}()]{1,500})\]+\]")
_CHOICE = re.compile(r"\{([^{}|]{0,200}(?:\|[^{}|]{0,200})+)\}")
_SCHEDULED = re.compile(
    r"\[([^\[\]:|]{0,200}):([^\[\]:|]{0,200})(?::\s*(\d*\.?\d+))?\s*\]|\[([^\[\]|:]{1,200}(?:\|[^\[\]|:]{1,200})+)\]"
)
_PLUSSED = re.compile(r"\(([^()]{1,200})\)([+-]{1,4})(?=[\s,.]|$)|(?<![\w-])([A-Za-z]{2,40})(\+{2,4})(?=[\s,.]|$)")
_PART = re.compile(r"(?<=\S)\s?::\s*(-?\d{0,3}(?:\.\d{1,3})?)(?=\s|$|,)")
_SIGN = re.compile(r"[<>(){}\[\]\\:]|--|—|–|__|\+\+|BREAK|ADD")
"""What all markup has one of; most prompts have none."""

_LINK = re.compile(r"^\s*(?:<?https?://[^\s<>]{1,2000}>?\s+)+(?=\S)")
_ESCAPED = re.compile(r"\\([()\[\]{}])")

_DASH = r"(?:(?<=\s)|^)(?:--|—|–-?)"
_FLAG = re.compile(
    rf"{_DASH}(?P<name>[a-z]{{1,12}})(?![a-z-])(?P<value>[^\S\n]*[=:]?[^\S\n]*(?:(?!--|—)[^\s,]+)?)", re.IGNORECASE
)
_NO_FLAG = re.compile(rf"{_DASH}no\b[^\S\n]+(?P<value>(?:(?!\s(?:--|—)[a-z]).)+)", re.IGNORECASE)
_SWITCHES = frozenset(
    {
        "tile",
        "video",
        "turbo",
        "relax",
        "fast",
        "hd",
        "public",
        "stealth",
        "draft",
        "raw",
        "test",
        "testp",
        "creative",
        "exp",
    }
)
_FLAGS_WITH_VALUE = frozenset([
    "ar", "aspect", "seed", "s", "stylize", "c", "chaos", "q", "quality", "v", "version", "niji", "iw", "stop",
    "style", "sref", "sw", "cref", "cw", "oref", "ow", "weird", "w", "r", "repeat", "p", "profile", "steps", "cfg",
    "scale", "size", "width", "height", "upbeta", "uplight", "sameseed", "motion", "end", "loop", "raw", "bs",
])  # fmt: skip
_SIGN_OF_A1111 = re.compile(
    r"<(?:lora|lyco|hypernet):|\([^()]{0,200}[^\d()\s]\s*:\s*[\d.]{1,6}\s*\)|\(\(|\bBREAK\b|embedding:", re.IGNORECASE
)
_LOW_BRACKETS = re.compile(r"\[([^\[\]:|]{1,200})\]")
_STRONG_BRACES = re.compile(r"\{([^{}|]{1,200})\}")
_PARENTHESES = re.compile(r"\(([^()]{1,500})\)")

_PLACEHOLDER, _FIRST_MARK = "\ue000{}\ue001", 0xE100
"""What stands for a quoted passage while markup is taken out: characters of the private use area."""

MOST_READ = 4000
"""Characters of a prompt that are read; the rest is drawn as it is. Image models read a few hundred words at most."""

MOST_QUOTES = 100
"""Quoted passages that are kept from being read as markup."""

MOST_WEIGHT = 10.0
"""Weights above this are slips of the keyboard: other tools take some 2 at most before a picture falls apart."""

STEP = 1.1
"""What one pair of parentheses multiplies a weight by, and one pair of brackets divides it by (AUTOMATIC1111)."""

_CHUNKS = "the whole prompt is read as one"
_FIXED = "experts draw with their own"


@dataclass
class Apart:
    """A prompt without the markup of other tools.

    Attributes:
        text: The words that are left.
        negative: What the markup says must not be there.
        size: Width and height that it sets.
        aspect_ratio: `"W:H"` that it sets.
        rest: What comes after the first `MOST_READ` characters, unread.
        markup: Everything else.
    """

    text: str
    negative: str = ""
    size: tuple[int, int] | None = None
    aspect_ratio: str | None = None
    rest: str = ""
    markup: Markup = field(default_factory=Markup)


def take_apart(prompt: str) -> Apart:
    """Separate the words of a prompt from the markup of other tools."""
    settings = split_infotext("\n".join(filter(None, (" ".join(line.split()) for line in prompt.splitlines()))))
    rest = settings.prompt[MOST_READ:]
    settings.prompt = settings.prompt[:MOST_READ]
    apart = _Reader(settings).read()
    apart.rest = rest
    return apart


class _Reader:
    """Takes one kind of markup after the other out of a text."""

    def __init__(self, settings: Settings) -> None:
        self._text = settings.prompt
        self._settings = settings
        self._negatives = [settings.negative] if settings.negative else []
        self._adapters: dict[str, Adapter] = {}
        self._emphasis: dict[str, Emphasis] = {}
        self._unused = list(settings.unused)
        self._aspect: str | None = None

    def read(self) -> Apart:
        # what is quoted is to be drawn as it is
        quoted = [self._text[one.start : one.end] for one in quotes_in(self._text)[:MOST_QUOTES]]
        marks = [_PLACEHOLDER.format(chr(_FIRST_MARK + index)) for index in range(len(quoted))]
        for words, mark in zip(quoted, marks, strict=True):
            self._text = self._text.replace(words, mark, 1)
        apart = self._read()
        for words, mark in zip(quoted, marks, strict=True):
            apart.text = apart.text.replace(mark, words, 1)
        return apart

    def _read(self) -> Apart:
        if _SIGN.search(self._text):
            self._take_markup()
        self._text = _tidy(self._text)
        return self._result()

    def _take_markup(self) -> None:
        tagged = _SIGN_OF_A1111.search(self._text) is not None
        steps: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
            (_LINK, self._link),
            (_ADAPTER, self._adapter),
            (_EMBEDDING, self._embedding),
            (_NO_FLAG, self._no_flag),
            (_FLAG, self._flag),
            (_BREAK, self._break),
            (_WILDCARD, self._wildcard),
            (_CHOICE, self._choice),
            (_SCHEDULED, self._scheduled),
            (_PLUSSED, self._plussed),
            (_PART, self._part),
        )
        for pattern, replace in steps:
            self._text = pattern.sub(replace, self._text)
        self._weights(tagged=tagged)
        if tagged:
            self._text = _AND.sub(", ", self._text)
        self._text = _ESCAPED.sub(r"\1", self._text)

    def _result(self) -> Apart:
        markup = Markup(
            seed=self._settings.seed,
            num_inference_steps=self._settings.steps,
            guidance_scale=self._settings.guidance,
            adapters=tuple(self._adapters.values()),
            emphasis=tuple(self._emphasis.values()),
            unused=tuple(self._unused),
        )
        negative = ", ".join(dict.fromkeys(filter(None, (_without_weights(one) for one in self._negatives))))
        return Apart(
            text=self._text, negative=negative, size=self._settings.size, aspect_ratio=self._aspect, markup=markup
        )

    def _drop(self, name: str, value: str, reason: str) -> str:
        self._unused.append(Unused(name=name, value=value.strip()[:200], reason=reason))
        return " "

    def _link(self, match: re.Match[str]) -> str:
        return self._drop("image", match.group(), "no address that a prompt names is fetched; pass the picture itself")

    def _adapter(self, match: re.Match[str]) -> str:
        name, rest = match["name"].strip(), match["rest"] or ""
        if match["kind"].lower() not in _ADAPTER_KINDS:
            return self._drop(match["kind"].lower(), name, "only LoRAs are applied")
        numbers = re.findall(r"-?\d+(?:\.\d+)?|-?\.\d+", rest)
        scale = max(-MOST_WEIGHT, min(float(numbers[0]), MOST_WEIGHT)) if numbers else 1.0
        self._adapters.setdefault(name, Adapter(name=name, scale=scale))
        return " "

    def _embedding(self, match: re.Match[str]) -> str:
        return self._drop("embedding", match["name"], "textual inversions are not loaded")

    def _no_flag(self, match: re.Match[str]) -> str:
        self._negatives.append(match["value"].strip(" ,"))
        return " "

    def _flag(self, match: re.Match[str]) -> str:
        name, value = match["name"].lower(), match["value"].strip(" =:,")
        if name in _SWITCHES and name != "raw" and not _is_number(value):
            self._drop(name, "on", "a flag of Midjourney that experts do not have")
            return f" {match['value'].strip()} "
        if name not in _FLAGS_WITH_VALUE and not _is_number(value):
            return match.group()
        return self._set(name, value)

    def _set(self, name: str, value: str) -> str:
        shape = re.fullmatch(r"(\d{1,4})\s*[:/x]\s*(\d{1,4})", value)
        if name in ("ar", "aspect") and shape and int(shape[1]) and int(shape[2]):
            self._aspect = f"{int(shape[1])}:{int(shape[2])}"
        elif name == "size" and shape:
            self._settings.take_size(int(shape[1]), int(shape[2]))
        elif name in ("seed", "steps", "cfg"):
            self._settings.take(name, value)
        else:
            self._drop(name, value, "a flag of Midjourney that experts do not have")
        return " "

    def _break(self, match: re.Match[str]) -> str:
        if _SHOUTED.search(match.string[: match.start()]):
            return match.group()
        self._drop(match["word"], match["word"], _CHUNKS)
        return ", "

    def _wildcard(self, match: re.Match[str]) -> str:
        self._drop("wildcard", match["name"], "its list is in another tool; its name is read as a word")
        return f" {match['name'].rpartition('/')[2].replace('_', ' ').replace('*', ' ')} "

    def _choice(self, match: re.Match[str]) -> str:
        options = [option.partition("::")[2] or option for option in match[1].split("|")]
        first = next((option.strip() for option in options if option.strip()), "")
        self._drop("choice", match.group(), f"the first is drawn: {first[:80]}")
        return f" {first} "

    def _scheduled(self, match: re.Match[str]) -> str:
        if match[4] is not None:
            first = match[4].split("|")[0].strip()
        elif re.fullmatch(r"\s*\d*\.?\d+\s*", match[2] or ""):
            first = (match[1] or "").strip()
        elif match[3] is None:
            return match.group()
        else:
            first = (match[1] or match[2] or "").strip()
        self._drop("schedule", match.group(), f"a prompt does not change while it is drawn: {first[:80]}")
        return f" {first} "

    def _plussed(self, match: re.Match[str]) -> str:
        words, signs = match[1] or match[3], match[2] or match[4]
        return self._weigh(words, (STEP if signs[0] == "+" else 1 / STEP) ** len(signs))

    def _part(self, match: re.Match[str]) -> str:
        if _is_number(match[1]) and float(match[1]) != 1:
            words = re.split(r"::|,", match.string[: match.start()])[-1].strip()[-200:]
            words = re.sub(r"^-?\d+(?:\.\d+)?\s+", "", words)
            if float(match[1]) < 0:
                self._negatives.append(words)
            self._emphasis.setdefault(words, Emphasis(words=words, weight=_bounded(match[1])))
        return ","

    def _weights(self, *, tagged: bool) -> None:
        """Weights from the inside out, as deep as people nest them."""
        for _ in range(8):
            before = self._text
            self._text = _WEIGHTED.sub(self._weighted, self._text)
            self._text = _DOUBLED.sub(self._doubled, self._text)
            self._text = _LOWERED.sub(lambda m: self._weigh(m[1], STEP**-2), self._text)
            if self._text == before:
                break
        if tagged:
            self._text = _LOW_BRACKETS.sub(lambda m: self._weigh(m[1], 1 / STEP), self._text)
            self._text = _STRONG_BRACES.sub(lambda m: self._weigh(m[1], 1.05), self._text)
            self._text = re.sub(r"(?<!\\)" + _PARENTHESES.pattern, lambda m: self._weigh(m[1], STEP), self._text)

    def _weighted(self, match: re.Match[str]) -> str:
        if not _is_number(match[2]):
            return match.group()
        if match[1].strip().isdigit():  # a time or a ratio in parentheses
            return match.group()
        return self._weigh(match[1], float(match[2]))

    def _doubled(self, match: re.Match[str]) -> str:
        depth = len(match.group()) - len(match.group().lstrip("({"))
        return self._weigh(match[1] or match[2], STEP**depth)

    def _weigh(self, words: str, weight: float) -> str:
        plain = words.strip(" ,")
        if not plain:
            return " "
        weight = round(max(-MOST_WEIGHT, min(weight, MOST_WEIGHT)), 3)
        if weight <= 0:
            self._negatives.append(plain)
            return " "
        if plain not in self._emphasis and weight != 1 and "\ue000" not in plain:
            self._emphasis[plain] = Emphasis(words=plain[:200], weight=weight)
        return words


def _without_weights(text: str) -> str:
    """A negative prompt in plain words, as every expert reads it."""
    text = _ADAPTER.sub(" ", _EMBEDDING.sub(" ", text))
    for _ in range(4):
        text = _WEIGHTED.sub(lambda m: m[1] if _is_number(m[2]) else m.group(), text)
        text = _LOWERED.sub(r"\1", _DOUBLED.sub(lambda m: m[1] or m[2], text))
    return _tidy(_BREAK.sub(", ", _ESCAPED.sub(r"\1", text)))


def _tidy(text: str) -> str:
    """Spaces and commas as people type them, after pieces were taken out."""
    text = re.sub(r"[^\S\n]+", " ", text)
    text = re.sub(r" +([,.;:!?，。；：！？])", r"\1", text)
    text = re.sub(r"(?:,[^\S\n]*){2,}", ", ", text)
    text = re.sub(r",(?=[.;!?])", "", text)
    return text.strip().strip(",").strip()


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)", text) is not None


def _bounded(text: str) -> float:
    return max(-MOST_WEIGHT, min(float(text), MOST_WEIGHT))
