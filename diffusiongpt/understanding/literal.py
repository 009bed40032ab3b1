"""What a prompt says literally, read by code and never by an LLM.

Markup of other tools comes off first; then texts to render, sizes, numbers, colours, and what the picture must not show
are read from what is left. All of it takes precedence over what an LLM reads.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from diffusiongpt.understanding.backgrounds import TRANSPARENT
from diffusiongpt.understanding.colors import read_colors
from diffusiongpt.understanding.counts import read_count
from diffusiongpt.understanding.editing import read_edit
from diffusiongpt.understanding.languages import language_of, scripts_of, simplified
from diffusiongpt.understanding.markup import take_apart
from diffusiongpt.understanding.measures import ORIENTATION, read_size
from diffusiongpt.understanding.negation import denials_in
from diffusiongpt.understanding.quotes import quotes_in, wholly_quoted
from diffusiongpt.understanding.reasoning import takes_reasoning
from diffusiongpt.understanding.rendered import read_texts
from diffusiongpt.understanding.terms import camera_terms, safety_class
from diffusiongpt.understanding.wording import read_wording

_SPACES = re.compile(r"\s+")


@dataclass(frozen=True, kw_only=True)
class Literals:
    """The literal facts of a prompt, and the text that remains to be interpreted.

    Attributes:
        fields: Values for fields of `Understanding`, by name.
        positive: What the prompt wants, in simplified characters: without texts to render and what it denies.
        denied: What it does not want, in simplified characters.
        prompt: The prompt without the markup of other tools, for the image model.
    """

    fields: dict[str, Any]
    positive: str
    denied: tuple[str, ...]
    prompt: str


@lru_cache(maxsize=64)
def read_literals(prompt: str) -> Literals:
    """Read what the prompt says literally."""
    apart = take_apart(prompt)
    text = _without_enclosing_quotes(apart.text)
    plain = simplified(text)
    rendered = read_texts(text, plain)
    # a title or a nickname says what is to be drawn, as little as a text to render does; its words name nothing
    quoted = [(one.start, one.end) for one in quotes_in(text)]
    spoken = _blank(plain, {*rendered.spans, *quoted})
    denials = [one for one in denials_in(spoken) if not TRANSPARENT.search(spoken[one.start : one.end + 1])]
    positive = TRANSPARENT.sub(" ", _blank(spoken, [(one.start, one.end) for one in denials]))
    positive = ORIENTATION.sub(" ", positive)
    edit = read_edit(spoken)
    denied = tuple(filter(None, (*(one.words for one in denials), apart.negative)))
    negative = (apart.negative, *(one.words for one in denials))
    fields = {
        "language": language_of(_blank(text, rendered.spans)) if spoken.strip() else language_of(prompt),
        "text_to_render": rendered.texts,
        "text_scripts": tuple(dict.fromkeys(script for words in rendered.texts for script in scripts_of(words))),
        "object_count": read_count(positive),
        "transparent_background": bool(TRANSPARENT.search(spoken)),
        # colours in denied phrases are not wanted; those in texts to render may be
        "colors": read_colors(" ".join((positive, *(words for words in rendered.texts if "#" in words)))),
        "camera": camera_terms(positive),
        "edit": edit.wanted,
        "refers_to": edit.refers_to,
        "negative": ", ".join(dict.fromkeys(filter(None, negative))),
        "reasoning": takes_reasoning(spoken),
        "safety": safety_class(positive),
        "markup": apart.markup,
        **_size(apart.size, apart.aspect_ratio, spoken),
    }
    drawn = _in_one_line(text + apart.rest, rendered.spans)
    return Literals(fields=fields, positive=positive, denied=denied, prompt=drawn or prompt.strip())


def _size(size: tuple[int, int] | None, aspect_ratio: str | None, text: str) -> dict[str, Any]:
    """The size that markup sets, or else the one that the words ask for."""
    if size:
        return {"width": size[0], "height": size[1]}
    return {"aspect_ratio": aspect_ratio} if aspect_ratio else read_size(text)


def _without_enclosing_quotes(text: str) -> str:
    """A prompt that stands in quotation marks as a whole, or an order whose content does, without them."""
    if (content := wholly_quoted(text)) is not None:
        return content
    paradigm, content = read_wording(text)
    inside = wholly_quoted(content) if paradigm != "prompt" else None
    return text if inside is None else inside


def _in_one_line(text: str, kept: Iterable[tuple[int, int]]) -> str:
    """A text with single spaces for white space, except in these places."""
    pieces, at = [], 0
    for start, end in kept:
        pieces += [_SPACES.sub(" ", text[at:start]), text[start:end]]
        at = end
    return "".join([*pieces, _SPACES.sub(" ", text[at:])]).strip()


def _blank(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """A text of the same length with spaces in these places."""
    letters = list(text)
    for start, end in spans:
        letters[start:end] = " " * (end - start)
    return "".join(letters)
