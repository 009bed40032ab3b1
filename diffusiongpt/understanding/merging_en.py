"""Changes of a description in English that an order asks for, each empty where that asks for something else."""

from __future__ import annotations

import re
from collections.abc import Callable

from diffusiongpt.understanding.cues import cues, each_of, words_of
from diffusiongpt.understanding.numbers import CARDINALS

_NUMBER = rf"{'|'.join(CARDINALS[:10])}|several|many|\d+"
_DET = rf"(?:an?|the|some|his|her|its|their|{_NUMBER})"
_TIE = (
    r"(?:on|in|at|with|next to|near|behind|under|and|beside|by|in front of|over|above|below|against|from|of|through|"
    r"between|without|while|inside|outside|is|are|that|who)"
)
_WORD = rf"(?!(?:{_TIE}|{_DET}|\w+ing)\b)[\w'’-]+"
_BEFORE = rf"\b(?:{_DET}\s+)?(?:{_WORD}\s+){{0,3}}?"

_PLURALS = {
    "children": "child", "people": "person", "men": "man", "women": "woman", "mice": "mouse", "geese": "goose",
    "feet": "foot", "teeth": "tooth", "wolves": "wolf", "leaves": "leaf", "knives": "knife", "foxes": "fox",
}  # fmt: skip
_SINGULARS = {one: many for many, one in _PLURALS.items()}

_OPPOSITES = (
    ("short", "long"), ("big", "small"), ("large", "small"), ("tall", "short"), ("dark", "bright"), ("dark", "light"),
    ("warm", "cool"), ("warm", "cold"), ("hot", "cold"), ("old", "young"), ("old", "new"), ("wide", "narrow"),
    ("thick", "thin"), ("happy", "sad"), ("open", "closed"), ("high", "low"), ("soft", "sharp"), ("fat", "thin"),
    ("simple", "busy"), ("curly", "straight"), ("empty", "full"), ("wet", "dry"), ("clean", "dirty"),
    ("brighter", "darker"), ("bigger", "smaller"), ("warmer", "cooler"), ("warmer", "colder"), ("softer", "sharper"),
    ("closer", "farther away"), ("wider", "narrower"), ("longer", "shorter"), ("older", "younger"),
    ("higher", "lower"), ("thicker", "thinner"), ("simpler", "busier"), ("taller", "shorter"),
)  # fmt: skip

_TIMES = {
    "at": r"(?:mid)?night|dawn|dusk|sunset|sunrise|noon|twilight|golden hour|blue hour",
    "in the": r"(?:early |late )?morning|evening|afternoon|daytime|rain|snow|fog|mist",
    "in": r"winter|spring|summer|autumn|fall|daylight",
}


def _of(thing: str) -> str:
    """A pattern for a noun phrase about a thing, singular or plural."""
    return rf"{_BEFORE}{_noun(thing)}\b"


def _noun(thing: str) -> str:
    *first, last = thing.lower().split()
    one = _singular(last)
    forms = "|".join(map(re.escape, dict.fromkeys((last, one, _plural(one)))))
    return rf"\b{''.join(re.escape(word) + ' ' for word in first)}(?:{forms})"


def _singular(noun: str) -> str:
    if noun in _PLURALS:
        return _PLURALS[noun]
    if re.search(r"(?:x|ch|sh|ss|o)es$", noun):
        return noun[:-2]
    if noun.endswith("ies"):
        return f"{noun[:-3]}y"
    return noun[:-1] if re.search(r"[^su]s$", noun) else noun


def _plural(noun: str) -> str:
    if noun in _SINGULARS:
        return _SINGULARS[noun]
    if re.search(r"(?:x|ch|sh|ss|s)$", noun):
        return f"{noun}es"
    return f"{noun[:-1]}ies" if re.search(r"[^aeiou]y$", noun) else f"{noun}s"


def _find(pattern: str, text: str) -> re.Match[str] | None:
    return re.search(pattern, text, re.IGNORECASE)


def _thing(words: str) -> str:
    return re.sub(rf"^(?:{_DET}|my|that|those)\s+", "", words.strip(" ,."), count=1, flags=re.IGNORECASE)


def _behind(description: str, words: str) -> str:
    return f"{description.rstrip(' ,.')}, {words}"


def _recolored(description: str, order: str) -> str:
    match = cues("colored").match(order)
    if match is None:
        return ""
    named = rf"(?P<old>{cues('a_color').pattern}\s+)?\b{re.escape(match['what'])}\b"
    found = _find(named, description)
    new = f"{match['color']} {match['what']}"
    if found is None:
        return _behind(description, new)
    return _spliced(description, found.span(), new)


def _spliced(description: str, span: tuple[int, int], new: str) -> str:
    """A description with new words in one place, and with the article that they take."""
    before = description[: span[0]]
    if (article := re.search(r"\b(an?) $", before, re.IGNORECASE)) and new:
        form = "an" if re.match(r"[aeio]|u[^ns]", new, re.IGNORECASE) else "a"
        before = f"{before[: article.start()]}{form if article[1].islower() else form.capitalize()} "
    return f"{before}{new}{description[span[1] :]}"


def _exchanged(description: str, order: str) -> str:
    match = cues("replaced").match(order)
    if match is None:
        return ""
    old, new = match["old"] or match["unwanted"], match["new"] or match["wanted"]
    if _thing(old).lower() == "background":
        ground = _find(
            r"(?P<tie>\b(?:on|with|against|in front of)\s+)(?:an?\s+|the\s+)?(?:[\w-]+\s+)?background\b", description
        )
        if ground:
            return _spliced(description, ground.span(), f"{ground['tie']}{new}")
        return _behind(re.sub(r", [^,]+ in the background(?=,|$)", "", description), f"{new} in the background")
    own = re.match(rf"{_DET}\s", new, re.IGNORECASE)
    found = _find(_of(_thing(old)), description) if own else _find(rf"\b{re.escape(old)}\b", description)
    if found is None and not own:
        found = _find(rf"{_noun(_thing(old))}\b", description)
    return _spliced(description, found.span(), new) if found else ""


def _grounded(description: str, order: str) -> str:
    match = cues("ground").match(order)
    before = _find(r"(?P<article>\ban?\s+|\bthe\s+)?(?:\b[\w-]+\s+)?background\b", description)
    if match is None or before is None:
        return ""
    own = re.match(r"(?:an?|the)\s", match["new"])
    start = before.start() if own else before.end("article") if before["article"] else before.start()
    return _spliced(description, (start, before.end()), match["new"])


def english_becoming(description: str, order: str) -> str:
    """The description with its main thing turned into another."""
    match, main = cues("becomes").match(order), _main(description)
    return _spliced(description, main.span(), match["what"]) if match and main else ""


def _removed(description: str, order: str) -> str:
    match = cues("removed").match(order)
    if match is None:
        return ""
    what = match["what"] or match["taken"]
    left = _cut(description, _thing(what))
    if left == description:
        return _behind(description, order if order.lower().startswith("not ") else f"without {what}")
    return left


def _cut(description: str, thing: str) -> str:
    """The description without a thing, and without the words that tie it to the rest."""
    phrase = _of(thing)
    ties = rf"(?:{_TIE}|\w+ing)"
    for pattern, kept in (
        (rf"(?:,\s+|\s+)and\s+{phrase}(?:\s+(?:next to|beside|near|on|behind)\s+(?:it|him|her|them))?(?=,|$|\s)", ""),
        (rf"(?P<tie>\b{ties}\s+){phrase}(?:,|\s+and)\s+(?=\w)", r"\g<tie>"),
        (rf"(?:,\s*)?\s+(?:and\s+)?(?:(?:sitting|lying|standing|leaning|resting|perched)\s+)?{ties}\s+{phrase}", ""),
        (rf",\s*{phrase}(?=,|$)", ""),
        (rf"^{phrase}(?:,|\s+and)\s+(?=\w)", ""),
        (rf"^{phrase}\s+(?:\w+ing\s+)?(?:on|in|at|next to|near|behind|under|in front of|by|beside)\s+(?={_DET}\b)", ""),
        (rf"\b{re.escape(thing)}\s+(?=[a-z])", ""),
    ):
        left = re.sub(pattern, kept, description, count=1, flags=re.IGNORECASE).strip(" ,")
        if left != description and words_of(left):
            return re.sub(
                r"\s{2,}|\s+(?=,)", lambda found: " " if found[0].isspace() and len(found[0]) > 1 else "", left
            )
    return description


def _given(description: str, order: str) -> str:
    match = cues("given").match(order)
    if match is None:
        return ""
    named = match["who"] or match["owner"] or match["on"]
    what = match["what"] or match["needed"] or match["put"]
    found = _holder(description, named)
    if found is None:
        return _behind(description, f"the {_thing(named)} with {what}")
    rest = description[found.end() :]
    held = re.match(
        rf"\s+with\s+(?:{_DET}\s+)?(?:{_WORD})(?:\s+{_WORD})*(?:\s+and\s+(?:{_DET}\s+)?{_WORD}(?:\s+{_WORD})*)?",
        rest,
        re.IGNORECASE,
    )
    end = found.end() + (held.end() if held else 0)
    return f"{description[:end]} {'and' if held else 'with'} {what}{description[end:]}"


def _worn(description: str, order: str) -> str:
    match = cues("put_on").match(order)
    if match is None:
        return ""
    verb = {"wear": "wearing", "hold": "holding", "carry": "carrying", "ride": "riding"}.get(
        match["verb"].lower(), "with"
    )
    found = _holder(description, match["who"])
    if found is None:
        return _behind(description, f"{match['who']} {verb} {match['what']}")
    return f"{description[: found.end()]} {verb} {match['what']}{description[found.end() :]}"


def _holder(description: str, named: str) -> re.Match[str] | None:
    """The thing in a description that gets another thing; the main one by a pronoun."""
    who = _thing(named).removesuffix(" head")
    pronoun = who.lower() in ("it", "him", "her", "them", "his", "their", "its", "he", "she", "they")
    return _main(description) if pronoun else _find(_of(who), description)


def _main(description: str) -> re.Match[str] | None:
    """The main thing of a description, behind what only announces a picture."""
    start = re.match(
        r"(?:[\w-]+\s+){0,4}?(?:portrait|photo|picture|painting|drawing|image|illustration|shot|poster|logo|sketch)"
        r" of\s+",
        description,
        re.IGNORECASE,
    )
    return re.compile(rf"(?:{_DET}\s+)?(?:{_WORD})(?:\s+{_WORD})*", re.IGNORECASE).match(
        description, start.end() if start else 0
    )


def _counted(description: str, order: str) -> str:
    match = cues("counted").match(order)
    if match is None:
        return ""
    one = _singular(match["noun"].lower())
    found = _find(
        rf"\b(?:{_DET}\s+)?(?P<kind>(?:{_WORD}\s+){{0,2}}?)\b(?:{re.escape(one)}|{re.escape(_plural(one))})\b",
        description,
    )
    if found is None:
        return ""
    noun = one if match["number"].lower() in ("one", "1") else _plural(one)
    return f"{description[: found.start()]}{match['number']} {found['kind']}{noun}{description[found.end() :]}"


def _acting(description: str, order: str) -> str:
    match = cues("acts").match(order)
    if match is None:
        return ""
    return _behind(description, _doing(match["what"] or match["wanted"]))


def _doing(verb: str) -> str:
    """The form in -ing of a verb that the lists have; any other word as it is."""
    if not cues("verbs").fullmatch(verb):
        return verb
    if verb.endswith("ie"):
        return f"{verb[:-2]}ying"
    if verb.endswith("e"):
        return f"{verb[:-1]}ing"
    return f"{verb}{verb[-1]}ing" if re.fullmatch(r"(?:[^aeiou]*)[aeiou][nptmg]", verb) else f"{verb}ing"


def _stated(description: str, order: str) -> str:
    match = cues("stated").match(order)
    if match is None:
        return ""
    who, what = match["who"] or match["owner"], match["what"] or match["wanted"]
    thing, state = _thing(who), _doing(what)
    phrase = rf"\b(?P<det>(?:{_DET}\s+)?)(?P<kind>(?:{_WORD}\s+){{0,3}}?)(?P<thing>{_noun(thing)})\b"
    found = _find(phrase, description)
    if re.fullmatch(r"\w+ing\b.*", state):
        if found is None:
            return _behind(description, f"{who} {state}")
        return f"{description[: found.end()]} {state}{description[found.end() :]}"
    if len(state.split()) > _FEW_WORDS:
        return _behind(description, f"{who} {state}")
    if found is None:
        return _behind(description, f"{state} {thing}")
    opposites = _opposites_of(state)
    kind = [state, *(word for word in found["kind"].split() if word.lower() not in opposites)]
    return _spliced(description, (found.start("kind"), found.end()), f"{' '.join(kind)} {found['thing']}")


_FEW_WORDS = 2
"""Words of a state that may stand in front of a thing."""


def _opposites_of(word: str) -> set[str]:
    plain = word.lower()
    return {two for pair in _OPPOSITES for one, two in (pair, pair[::-1]) if plain in (one, f"{one}er", f"more {one}")}


def _at_another_moment(description: str, order: str) -> str:
    """The description with another time of day, weather, season, shape or view, and without the one it had."""
    for group in each_of("moments"):
        said = re.fullmatch(
            rf"(?:(?:in|at|on|as|with|during|under|from|by)\s+)?(?:an?\s+|the\s+)?(?P<kind>(?:\w+\s+){{0,2}}?)(?P<moment>{group})"
            r"(?P<tail>\s+(?:light|time|day|scene|version|instead|please|shot|view|weather|sky|format))*",
            order,
            re.IGNORECASE,
        )
        if said is None:
            continue
        left = _without_moment(description, group)
        bare = not said["kind"] and said.span("moment") == (0, len(order))
        words = next(
            (f"{tie} {order}" for tie, times in _TIMES.items() if bare and re.fullmatch(times, order, re.IGNORECASE)),
            order,
        )
        return _behind(left, words)
    for view, words in (("farther", "seen from farther away"), ("closer", "close-up")):
        if cues(view).fullmatch(order):
            plain = re.sub(r"^an? close-?up (?:shot )?of ", "", description, flags=re.IGNORECASE)
            left = ", ".join(one for one in plain.split(", ") if one not in ("seen from farther away", "close-up"))
            return _behind(left, words)
    opposites = _opposites_of(re.sub(_DEGREE, "", order, flags=re.IGNORECASE))
    clauses = description.split(", ")
    left = ", ".join(one for one in clauses if re.sub(_DEGREE, "", one.lower()) not in opposites)
    return _behind(left, order) if opposites and left and left != description else ""


_DEGREE = r"^(?:(?:a (?:bit|little|touch|tad|lot)|slightly|much|way|even|far|still|just)\s+)+"


def _without_moment(description: str, group: str) -> str:
    for pattern in (
        rf"(?:,\s*)?\s*\b(?:at|in|on|by|during|under|with|from)\s+(?:an?\s+|the\s+)?(?:{_WORD}\s+)?(?:{group})\b(?:\s+(?:light|time|sky|weather))?(?=,|$|\s+(?:in|at|on|with|by)\b)",
        rf",\s*(?:{_WORD}\s+)?(?:{group})(?:\s+(?:light|time|sky|weather|view))?(?=,|$)",
        rf"(?<=\b(?:a|n) )(?:{group})\s+(?=[a-z])|(?<=\bthe )(?:{group})\s+(?=[a-z])",
    ):
        left = re.sub(pattern, "", description, count=1, flags=re.IGNORECASE)
        if left != description and words_of(left):
            return left
    return description


def _restyled(description: str, order: str) -> str:
    match = cues("restyled").match(order)
    return _behind(description, f"in {match['what']} style") if match else ""


def _added(description: str, order: str) -> str:
    """What is added, or happens, behind the description."""
    if match := cues("added").match(order):
        return _behind(description, f"with {match['what'] or match['put']}")
    plain = cues("let").sub("", order)
    return _behind(description, plain) if plain != order else ""


ENGLISH_CHANGES: tuple[Callable[[str, str], str], ...] = (
    _counted,
    _grounded,
    _acting,
    _recolored,
    _exchanged,
    _given,
    _worn,
    _removed,
    _at_another_moment,
    _restyled,
    _stated,
    _added,
)
"""In the order in which they are tried."""
