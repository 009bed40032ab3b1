"""Photographic terms, and what is to be seen that not everyone may want to see: read by lists of words."""

from __future__ import annotations

import re

from diffusiongpt.flow import SafetyClass

_CAMERA = re.compile(
    r"\b(?:\d{1,3}(?:\.\d)?(?:-\d{1,3})?\s?mm(?:\s+(?:lens|film|macro|prime))?|"
    r"[fƒ]/?\s?\d{1,2}(?:\.\d)?|iso\s?\d{2,6}|1/\d{1,5}\s?(?:s|sec(?:onds?)?)?"
    r"|depth of field|shallow focus|deep focus|soft focus|selective focus|bokeh|long exposure|"
    r"double exposure|multiple exposure|high[- ]speed photo(?:graphy)?|motion blur|panning shot"
    r"|wide[- ]angle|ultra[- ]wide(?:[- ]angle)?|telephoto|fish-?eye|macro|tilt[- ]shift|"
    r"anamorphic|close[- ]?up|extreme close[- ]?up|full[- ]body shot|medium shot|long shot|"
    r"establishing shot"
    r"|low[- ]angle|high[- ]angle|bird'?s[- ]eye view|worm'?s[- ]eye view|aerial (?:view|shot|"
    r"photo(?:graph(?:y)?)?)|drone shot|top[- ]down|overhead shot|dutch angle|"
    r"over[- ]the[- ]shoulder|point of view|pov|eye[- ]level"
    r"|golden hour|blue hour|rim light(?:ing)?|back ?lit|backlight(?:ing)?|studio light(?:ing)?|"
    r"softbox|rembrandt light(?:ing)?|volumetric light(?:ing)?|chiaroscuro|natural light|"
    r"hard light|low[- ]key|high[- ]key|lens flare|light leaks?|god rays"
    r"|film grain|kodak(?: [a-z]+ ?\d*)?|fuji(?:film)?(?: [a-z]+ ?\d*)?|portra \d+|ilford|"
    r"polaroid|cinestill(?: \d+t)?|dslr|canon(?: eos)?|nikon|leica(?: m\d)?|hasselblad|sony a\d+|"
    r"medium format|large format|black[- ]and[- ]white|monochrome|sepia|hdr|raw photo|infrared)\b"
    r"|微距|广角|长焦|鱼眼|移轴|景深|浅景深|大光圈|光圈|快门|长曝光|慢门|双重曝光|多重曝光|逆光|侧光|顺光|柔光|硬光|自然光|影棚|棚拍|黄金时刻|蓝调时刻|特写|近景|"
    r"中景|远景|全景|俯拍|仰拍|俯视|仰视|鸟瞰|航拍|平视|第一人称|胶片颗粒|颗粒感|散景|虚化|黑白|镜头光晕|丁达尔|体积光|高调|低调|伦勃朗光|单反|胶片",
    re.IGNORECASE,
)
_SAFETY: tuple[tuple[SafetyClass, re.Pattern[str]], ...] = (
    (
        "adult",
        re.compile(
            r"\b(?:nude|nudity|naked|nsfw|porn(?:ographic|o)?|explicit sex|sex(?:ual)? (?:act|scene|"
            r"intercourse)|genitals?|topless|hentai|erotic(?:a)?|uncensored|rating[: _]explicit|"
            r"bottomless|orgy|fetish)\b"
            r"|裸体|裸露|全裸|裸女|裸男|色情|情色|性爱|做爱|成人内容|露点|三点全露|淫",
            re.IGNORECASE,
        ),
    ),
    (
        "violent",
        re.compile(
            r"\b(?:gore|gory|dismembered|dismemberment?|decapitat(?:ed|ion)|beheading|mutilat(?:ed|ion)|"
            r"torture[ds]?|massacre|corpses?|blood(?:y|bath)|suicide|self-harm|execution of|severed)\b"
            r"|血腥|肢解|斩首|酷刑|屠杀|尸体|自杀|自残|断肢",
            re.IGNORECASE,
        ),
    ),
    (
        "suggestive",
        re.compile(
            r"\b(?:sexy|seductive|lingerie|bikini|underwear|cleavage|pin-?up|sensual|provocative|"
            r"rating[: _]questionable|boudoir)\b|性感|诱惑|内衣|比基尼|挑逗|妩媚撩人",
            re.IGNORECASE,
        ),
    ),
)
"""Classes from the gravest on, each with its words. They say what to look at, not what to refuse: that is a policy."""

_HARMLESS = re.compile(
    r"\bbloody mary\b|\bnude (?:colou?rs?|tones?|palette|lipstick|heels|shade)\b|"
    r"\bnaked (?:mole[- ]rat|eye|cake|juice)\b|\bblood(?:y)? (?:moon|orange)\b|\bcorpse (?:bride|"
    r"flower)\b|裸眼|裸色|裸粉",
    re.IGNORECASE,
)


def camera_terms(text: str) -> tuple[str, ...]:
    """Photographic terms of a text, in its own words, each once."""
    return tuple(dict.fromkeys(match.group().strip() for match in _CAMERA.finditer(text)))


def safety_class(text: str) -> SafetyClass:
    """The gravest class whose words a text has; `general` if it has none."""
    plain = _HARMLESS.sub(" ", text)
    return next((name for name, words in _SAFETY if words.search(plain)), "general")
