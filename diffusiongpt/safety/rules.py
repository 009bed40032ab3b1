"""The rules for prompts: `rules.yaml`, read, and tried on every reading of a text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from diffusiongpt.flow import SafetyLevel
from diffusiongpt.safety.checks import Asked, Finding
from diffusiongpt.safety.spelling import folded, readings
from diffusiongpt.understanding import (
    WordList,
    WordsByLanguage,
    read_literals,
    read_word_file,
    safety_lists,
    simplified,
    without_denials,
    without_harmless,
)

if TYPE_CHECKING:
    from PIL.Image import Image

BARED = "clothes off"
"""What a prompt means that wants clothes not to be there."""


Group = Annotated[tuple[str, ...], BeforeValidator(lambda names: (names,) if isinstance(names, str) else names)]
"""Names of lists of words, one of which must be there; one alone may be written as it is."""


class Case(BaseModel):
    """When a rule holds.

    Attributes:
        all: Groups of words that must all be there; of a list, one.
        without: Groups of which none may be there.
        within: Most characters between the first word and the last; `None` for any number.
        picture: Whether it holds only if a picture goes in.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    all: tuple[Group, ...] = Field(min_length=1)
    without: tuple[str, ...] = ()
    within: int | None = None
    picture: bool = False


class Rule(BaseModel):
    """One thing that is refused.

    Attributes:
        level: The loosest level that has the rule.
        means: What it is against.
        cases: When it holds; one is enough.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    level: SafetyLevel
    means: str
    cases: tuple[Case, ...]


@dataclass(frozen=True)
class Rules:
    """The rules and the words that they are made of.

    Attributes:
        by_name: The rules.
        lists: Words by the name of their group.
        harmless: What is cut out of a text first.
        words: All words, wherever they stand.
    """

    by_name: Mapping[str, Rule]
    lists: Mapping[str, WordList]
    harmless: WordList
    words: re.Pattern[str]


@cache
def load_rules() -> Rules:
    """The rules that come with the package."""
    text = resources.files("diffusiongpt.safety").joinpath("rules.yaml").read_text(encoding="utf-8")
    content: Mapping[str, Any] = read_word_file(text)
    classes: Mapping[str, WordList] = {str(name): words for name, words in safety_lists().items()}
    groups: Mapping[str, WordsByLanguage] = content["groups"]
    lists = {**classes, **{name: WordList.of(words) for name, words in groups.items()}}
    return Rules(
        by_name={name: Rule.model_validate(rule) for name, rule in content["rules"].items()},
        lists=lists,
        harmless=WordList.of(content["harmless"]),
        words=re.compile("|".join(one.inside.pattern for one in lists.values()), re.IGNORECASE),
    )


class WordCheck:
    """The check by lists of words that every installation has; it reads prompts and looks at no picture."""

    def __init__(self) -> None:
        self._rules = load_rules()

    def prompt(self, asked: Asked, level: SafetyLevel) -> Finding | None:
        """The gravest rule that a prompt breaks, in any reading; `rules.yaml` begins with the gravest."""
        found: set[str] = set()
        rules = {name: rule for name, rule in self._rules.by_name.items() if level in (rule.level, "strict")}
        for reading in readings(_wanted(asked, self._rules.lists["clothes"]), self._rules.words):
            text = simplified(reading)
            suspects = self._broken(text, rules, has_picture=bool(asked.pictures))
            if suspects:
                # what a text denies is worth looking for only in the few that have such words at all
                plain = self._rules.harmless.cut_from(without_harmless(without_denials(text)))
                found.update(self._broken(plain, suspects, has_picture=bool(asked.pictures)))
        return next((Finding(name, rule.means) for name, rule in rules.items() if name in found), None)

    def images(self, images: Sequence[Image], asked: Asked, level: SafetyLevel) -> None:  # of the protocol
        """Nothing: words say nothing about pictures."""

    def _broken(self, text: str, rules: Mapping[str, Rule], *, has_picture: bool) -> dict[str, Rule]:
        """The rules that a reading of a prompt breaks."""
        words = _Words(text, self._rules.lists)
        return {
            name: rule
            for name, rule in rules.items()
            if any(words.fit(case) for case in rule.cases if has_picture or not case.picture)
        }


class _Words:
    """Which groups of words a text has, each looked for once."""

    def __init__(self, text: str, lists: Mapping[str, WordList]) -> None:
        self._text = text
        self._lists = lists
        self._has: dict[str, bool] = {}

    def fit(self, case: Case) -> bool:
        """Whether a case holds."""
        if not all(any(map(self._is_there, group)) for group in case.all) or any(map(self._is_there, case.without)):
            return False
        if case.within is None:
            return True
        first, *others = map(self._spans, case.all)
        return any(_near(start, end, others, case.within) for start, end in first)

    def _spans(self, group: Group) -> list[tuple[int, int]]:
        return [span for name in group for span in self._lists[name].spans(self._text)]

    def _is_there(self, name: str) -> bool:
        if name not in self._has:
            self._has[name] = self._lists[name].is_in(self._text)
        return self._has[name]


def _near(start: int, end: int, others: Sequence[Sequence[tuple[int, int]]], within: int) -> bool:
    """Whether a word of each of the other groups is near a word."""
    return all(any(begin - end <= within and start - stop <= within for begin, stop in group) for group in others)


def _wanted(asked: Asked, clothes: WordList) -> str:
    """What a request wants to be seen: its prompt without the markup of other tools, and that clothes are not there."""
    literals = read_literals(asked.prompt)
    adapters = [one.name for one in literals.fields["markup"].adapters]
    unwanted = re.split("[,，、;]", f"{asked.negative_prompt},{literals.fields['negative']}")
    bared = (
        [BARED] if any(not clothes.cut_from(simplified(folded(one))).strip() for one in unwanted if one.strip()) else []
    )
    return " , ".join((literals.prompt, *adapters, *bared))
