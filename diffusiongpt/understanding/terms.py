"""Photographic terms, and what is to be seen that not everyone may want to see: read by lists of words."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from diffusiongpt.flow import SafetyClass
from diffusiongpt.understanding.caseless import Caseless
from diffusiongpt.understanding.word_lists import WordList, read_word_file

_CAMERA = Caseless(
    r"\b(?:\d{1,3}(?:\.\d)?(?:-\d{1,3})?\s?mm(?:\s+(?:lens|film|macro|prime))?"
    r"(?!\s+(?:thick|wide|long|tall|high|deep|diameter|gap|holes?|screws?|bolts?|drill|rain|cannons?|guns?|rounds?)\b)|"
    r"[fƒ]/?\s?\d{1,2}(?:\.\d)?|iso\s?\d{2,6}|1/\d{1,5}\s?(?:s|sec(?:onds?)?)?"
    r"|(?:shallow |deep |narrow |wide )?depth of field|shallow focus|deep focus|soft focus|selective focus|bokeh|"
    r"long[- ]exposure|"
    r"double[- ]exposure|multiple[- ]exposure|high[- ]speed photo(?:graphy)?|motion blur|"
    r"panning shot"
    r"|wide[- ]angle|ultra[- ]wide(?:[- ]angle)?|telephoto|fish-?eye|macro(?![- ]?(?:econom|scop|nutri|phage|bio))|"
    r"tilt[- ]shift|"
    r"anamorphic|close[- ]?up|extreme close[- ]?up|full[- ]body shot|medium shot|long shot|"
    r"establishing shot"
    r"|low[- ]angle|high[- ]angle|bird['’]?s[- ]eye view|worm['’]?s[- ]eye view|aerial (?:view|shot|"
    r"photo(?:graph(?:y)?)?)|drone shot|top[- ]down|overhead shot|dutch angle|"
    r"over[- ]the[- ]shoulder|point of view|pov|eye[- ]level"
    r"|golden hour|blue hour|rim light(?:ing)?|back ?lit|backlight(?:ing)?|studio light(?:ing)?|"
    r"softbox|rembrandt light(?:ing)?|volumetric light(?:ing)?|chiaroscuro|natural light|"
    r"hard light|low[- ]key|high[- ]key|lens flare|light leaks?|god rays"
    r"|film grain|kodak(?: [a-z]+ ?\d*)?|fuji(?:film)?(?: [a-z]+ ?\d*)?|portra \d+|ilford|"
    r"polaroid|cinestill(?: \d+t)?|dslr|"
    r"canon(?: eos)?(?=\s+(?:\d|[a-z]{1,2}\d|eos|r\d|camera|dslr|lens|photo|mark)|\s*[,.;]|\s*$)|"
    r"nikon|leica(?: m\d)?|hasselblad|sony a\d+|"
    r"medium format|large format|black[- ]and[- ]white|monochrome|sepia|hdr|raw photo|infrared)\b"
    r"|\d{1,3}毫米(?=镜头|人像|定焦|焦|胶片|[，,。]|$)|仰角|俯角|微距|广角|长焦|鱼眼|移轴|景深|浅景深|大光圈|光圈|快门|长曝光|慢门|双重曝光|多重曝光|逆光|侧光|顺光|柔光|硬光|自然光|影棚|棚拍|黄金时刻|蓝调时刻|特写|近景|"
    r"中景|远景|全景|俯拍|仰拍|俯视|仰视|鸟瞰|航拍|平视|第一人称|胶片颗粒|颗粒感|散景|虚化|黑白|镜头光晕|丁达尔|体积光|高调|低调|伦勃朗光|单反|胶片"
)


def camera_terms(text: str) -> tuple[str, ...]:
    """Photographic terms of a text, in its own words, each once."""
    return tuple(dict.fromkeys(match.group().strip() for match in _CAMERA.finditer(text)))


def safety_class(text: str) -> SafetyClass:
    """The gravest class whose words a text has; `general` if it has none."""
    plain = without_harmless(text)
    return next((name for name, words in safety_lists().items() if words.is_in(plain)), "general")


@cache
def safety_lists() -> Mapping[SafetyClass, WordList]:
    """The classes from the gravest on, each with its words. They refuse nothing: that is a policy."""
    return {name: WordList.of(words) for name, words in _safety_file()["classes"].items()}


def without_harmless(text: str) -> str:
    """A text without the names of what is of no class although it has a word of one, such as a blood orange."""
    return _harmless().cut_from(text)


@cache
def _harmless() -> WordList:
    return WordList.of(_safety_file()["harmless"])


@cache
def _safety_file() -> Mapping[str, Any]:
    text = resources.files("diffusiongpt.understanding").joinpath("safety.yaml").read_text(encoding="utf-8")
    content: Mapping[str, Any] = read_word_file(text)
    return content
