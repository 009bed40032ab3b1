"""What an expert is asked with: the text of a request in the form that this expert likes, with nothing of it lost."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from diffusiongpt.flow import Dropped, Request, Task, Understanding
from diffusiongpt.understanding.backgrounds import is_cut_out, on_plain
from diffusiongpt.understanding.languages import language_of, simplified
from diffusiongpt.understanding.negation import without_denials
from diffusiongpt.understanding.rendered import without_texts
from diffusiongpt.understanding.wording import prompt_form
from diffusiongpt.zoo import Expert

TAGGED = "danbooru"
"""The prompt style of models that were trained on tags of danbooru."""

_PEOPLE = {
    "girl": r"girls?|wom[ae]n|lady|ladies|grandm(?:a|other)s?|女孩|少女|女人|女子|女生|女士|妇女|姑娘|奶奶|阿姨"
    r"|老太太|女の子|おばあさん",
    "boy": r"boys?|m[ae]n|guys?|gentlem[ae]n|grandpas?|grandfathers?|男孩|少年|男人|男子|男生|男士|大叔"
    r"|爷爷|老头|男の子|おじいさん",
}
_COUNTS = {
    "2": r"two|both|2|两个?|二|两位|两名",
    "3": r"three|3|三个?|三位|三名",
    "4": r"four|4|四个?|四位|四名",
    "5": r"five|5|五个?|五位|五名",
    "6+": r"six|seven|eight|nine|ten|a dozen|[6-9]|[1-9]\d|[六七八九十][个位名]?",
}
_OTHERS = re.compile(
    r"\b(?:person|people|human|child|children|kids?|baby|crowd|couple|family|knight|warrior|wizard|witch|king|queen|"
    r"prince(?:ss)?|elf|soldier|doctor|nurse|student|teacher|chef|dancer|singer|detective|astronaut|samurai|ninja|"
    r"maid|angel|he|she|her|his)\b|人|孩|士|师|王|侠",
    re.IGNORECASE,
)
_LETTERS = frozenset({"text", "english text", "words", "letters", "signature", "username", "logo", "title"})
"""Pieces of negative prompts that would remove text that is asked for."""

_PIECE = re.compile(r"\s*[,，;；]\s*")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The texts that an expert gets.

    Attributes:
        prompt: The prompt.
        negative_prompt: The negative prompt; empty for none.
        dropped: What of the text is known to have no effect.
    """

    prompt: str
    negative_prompt: str = ""
    dropped: tuple[Dropped, ...] = ()


def asked_of(expert: Expert, request: Request, understanding: Understanding, task: Task) -> Asked:
    """The prompt and the negative prompt for an expert.

    The words of the request stay as they are and in their order; what else the expert needs leads them. A transparent
    background becomes a plain one where it is to be cut out, and is asked for in the words that an expert with an alpha
    channel knows. Without `rewrite` the expert gets what was typed, and
    nothing else.

    Args:
        expert: The expert that draws.
        request: What was asked for.
        understanding: What was understood.
        task: What is asked of the expert.
    """
    if not request.rewrite:
        return Asked(prompt=request.prompt, negative_prompt=request.negative_prompt or "")
    # an instruction is read as it was written: "give the cat a hat" is not a wish for a picture of it
    text = request.prompt if task == "edit" else understanding.rewritten or understanding.prompt
    if is_cut_out(understanding, expert, task):
        text = on_plain(text, understanding.colors, understanding.text_to_render)
    elif understanding.transparent_background and expert.capabilities.transparent_background is True:
        text = expert.transparent_prompt_for(text)
    leading: list[str] = []
    dropped: tuple[Dropped, ...] = ()
    if task != "edit":
        leading += _tags(text, understanding) if expert.prompt_style[:1] == (TAGGED,) else []
        if unread := _unread_language(expert, text, understanding.text_to_render):
            leading += [one for one in _named(understanding) if one.casefold() not in text.casefold()]
            reason = f"{expert.id} is not known to read it; what was understood leads the prompt in English"
            dropped = (Dropped(name="language", value=unread, reason=reason),)
    return Asked(
        prompt=expert.prompt_for(", ".join([*leading, text]), written=understanding.text_to_render),
        negative_prompt=_negative_for(expert, request, understanding, text),
        dropped=dropped,
    )


def _tags(text: str, understanding: Understanding) -> list[str]:
    """Tags that say who is in the picture, as models trained on tags expect; none for a prompt that is tags already."""
    if prompt_form(text).get("danbooru_tags"):
        return []
    # neither what is written in the picture nor what must not be there is a figure in it
    text = without_denials(simplified(without_texts(text, understanding.text_to_render)))
    found = list(_people(text))
    named = "|".join(rf"(?<![a-z])(?:{words})(?![a-z])" for words in _PEOPLE.values())
    others = _OTHERS.search(re.sub(named, " ", text, flags=re.IGNORECASE))
    if found:
        # one figure and no other
        return [*found, *(["solo"] if found in (["1girl"], ["1boy"]) and not others else [])]
    return ["no humans"] if understanding.subject_class in ("animal", "scene") and not others else []


def _people(text: str) -> Iterator[str]:
    for tag, words in _PEOPLE.items():
        named = re.search(rf"(?<![a-z])(?:{words})(?![a-z])", text, re.IGNORECASE)
        if named is None:
            continue
        counted = (
            count
            for count, numbers in _COUNTS.items()
            if re.search(
                rf"(?<![a-z0-9])(?:{numbers})\s*(?:[a-z-]+\s+|[小老年轻美]){{0,2}}(?:{words})(?![a-z])",
                text,
                re.IGNORECASE,
            )
        )
        plural = re.fullmatch(r"(?:girls|women|ladies|boys|men|guys|gentlemen)", named[0], re.IGNORECASE)
        count = next(counted, "multiple " if plural else "1")
        yield f"{count}{tag}s" if count != "1" else f"1{tag}"


def _unread_language(expert: Expert, text: str, rendered: Iterable[str]) -> str:
    """The language of a text that an expert does not read; empty if it reads it, or may.

    What is to be written in the picture is not read but copied.
    """
    language = language_of(without_texts(text, rendered)).partition("-")[0]
    known = {one.partition("-")[0].lower() for one in expert.languages}
    return "" if not known or language in known or language == "und" else language


def _named(understanding: Understanding) -> list[str]:
    """What was understood, in English: the count, subjects and styles that the text names."""
    nodes = [*understanding.styles, *understanding.subjects]
    return [one.node.replace("_", " ") for one in nodes]


def _negative_for(expert: Expert, request: Request, understanding: Understanding, text: str) -> str:
    """What must not be there, by the caller and the prompt, then by the expert's maker where the prompt allows it."""
    own = expert.negative_prompt or ""
    pieces = _PIECE.split(own)
    kept = [piece for piece in pieces if not _wanted(piece, text, understanding)]
    own = own if len(kept) == len(pieces) else ", ".join(kept)
    parts = (request.negative_prompt, understanding.negative, own)
    return ", ".join(dict.fromkeys(part.strip() for part in parts if part and part.strip()))


def _wanted(piece: str, text: str, understanding: Understanding) -> bool:
    """Whether a piece of a maker's negative prompt is what this prompt asks for: "sketch" in a prompt for a sketch."""
    plain = piece.strip().casefold()
    if understanding.text_to_render and plain in _LETTERS:
        return True
    return bool(plain) and re.search(rf"(?<!\w){re.escape(plain)}(?!\w)", text.casefold()) is not None
