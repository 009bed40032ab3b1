"""Lists of words ignore case as Python's own expressions do, however quickly most texts are dismissed."""

from __future__ import annotations

import re

import pytest

from diffusiongpt.understanding import WordList

WORDS = ("kiss(?:es)?", "self harm", r"\d?girls", "[A-F]4 paper", r"\Sx\W")
EXPRESSION = re.compile(
    r"(?<![a-z0-9])(?:kiss(?:es)?|self[\s_-]+harm|\d?girls|[A-F]4[\s_-]+paper|\Sx\W)(?![a-z0-9])", re.IGNORECASE
)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a landscape in the rain",
        "Two KISSES",
        "kiſs, KISS and \u212aiss",
        "a KİSS, a kıss",
        "Self-Harm, self_harm",
        "2GIRLS on a4 paper",
        "İ 2GIRLS",
        "4X? no, 4x! yes",
        "小猫 KISS 小狗",
    ],
)
def test_a_list_finds_what_an_expression_that_ignores_case_finds(text: str) -> None:
    """Places and the rest of the text are the same, also for letters with another lower case."""
    words = WordList.of({"en": WORDS})
    assert words.spans(text) == [match.span() for match in EXPRESSION.finditer(text)]
    assert words.is_in(text) is bool(words.spans(text))
    assert words.cut_from(text) == EXPRESSION.sub(" ", text)


def test_words_that_are_written_without_spaces_are_found_in_any_text_that_has_them() -> None:
    """A Chinese word stands anywhere; a list without words has none."""
    words = WordList.of({"en": ["fox"], "zh": ["狐狸", "P图"]})
    assert words.spans("一只狐狸, a Fox, p图") == [(8, 11), (2, 4), (13, 15)]
    assert not words.is_in("a fix")
    assert not WordList.of({"zh": ["狐狸"]}).is_in("a fox")
