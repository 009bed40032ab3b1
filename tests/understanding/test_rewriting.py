"""What an expert is asked with: the words of the request, and what else this expert needs."""

from __future__ import annotations

import re
from typing import Any

import pytest
from fixtures_routing import expert, think

from diffusiongpt.flow import Request
from diffusiongpt.understanding import Asked, asked_of
from diffusiongpt.zoo import Expert, Zoo

TAGGED = expert("tagged", prompt_style=("danbooru", "short_keywords"), languages=("en",))
ENGLISH = expert("english", prompt_style=("natural_language",), languages=("en",))
BOTH = expert("both", languages=("en", "zh"))


def asked(prompt: str, of: Expert, task: Any = "text-to-image", **request: Any) -> Asked:
    """What an expert gets for a prompt."""
    return asked_of(of, Request(prompt=prompt, **request), think(prompt).understanding, task)


@pytest.mark.parametrize(
    ("prompt", "tags"),
    [
        ("a girl with silver hair in the rain", "1girl, solo"),
        ("an old man and a woman on a bench", "1girl, 1boy"),
        ("two girls under one umbrella", "2girls"),
        ("women at a market", "multiple girls"),
        ("一个女孩站在雨中", "1girl, solo"),
        ("a fox in the snow", "no humans"),
        ("a knight rides a fox", ""),
        ("a woman and her daughter", "1girl"),
        ("the Batman of Germany", ""),
        ("six women dancing", "6+girls"),
        ("两个男孩踢足球", "2boys"),
        ("一位老奶奶坐在门口", "1girl, solo"),
        ("a gentleman and a lady", "1girl, 1boy"),
        ("a street without women", "no humans"),
        ('a castle with a flag that says "GIRL POWER"', "no humans"),
    ],
)
def test_models_of_tags_get_the_tags_of_who_is_in_the_picture(prompt: str, tags: str) -> None:
    """Figures and their number lead the words, which stay; a word inside another one counts for nothing."""
    text = asked(prompt, TAGGED).prompt
    assert text.endswith(prompt)
    assert text.startswith(tags)
    assert tags or not re.search(r"\d(?:girl|boy)|multiple", text)
    assert ("1girl" in text, "solo" in text, "no humans" in text) == (
        "1girl" in tags,
        "solo" in tags,
        "no humans" in tags,
    )


def test_a_trigger_word_that_is_only_written_in_the_picture_leads_the_prompt() -> None:
    """What a sign says asks for no style, so that the adapter still gets its word."""
    inked = expert("inked", trigger_words=("ink",))
    assert asked('a sign that says "INK"', inked).prompt == 'ink, a sign that says "INK"'
    assert asked('an ink fox with a sign that says "INK"', inked).prompt == 'an ink fox with a sign that says "INK"'


def test_tags_get_no_more_tags() -> None:
    """A prompt that is written in tags stays as it is, and so does one for a model that reads sentences."""
    tags = "1girl, solo, silver hair, red eyes, looking at viewer"
    assert asked(tags, TAGGED).prompt == tags
    assert asked("a girl with silver hair", ENGLISH).prompt == "a girl with silver hair"


def test_a_language_that_is_not_read_is_reported_and_led_by_what_was_understood() -> None:
    """The words stay; the subject and the style that were understood lead them in English."""
    given = asked("一只猫的水彩画", ENGLISH)
    assert given.prompt.endswith("一只猫的水彩画")
    assert given.prompt.startswith("watercolor, animal")
    assert [(one.name, one.value) for one in given.dropped] == [("language", "zh")]
    assert asked("一只猫的水彩画", BOTH) == Asked(prompt="一只猫的水彩画")
    unknown = expert("unknown")
    assert asked("一只猫的水彩画", unknown) == Asked(prompt="一只猫的水彩画")


def test_text_to_render_is_no_language_to_read() -> None:
    """Chinese words on a sign in an English prompt are copied, not read."""
    prompt = 'a shop sign that says "欢迎光临，今日特价"'
    assert asked(prompt, ENGLISH) == Asked(prompt=prompt)


NEGATIVE = "lowres, bad anatomy, text, sketch, signature, logo"


@pytest.mark.parametrize(
    ("prompt", "gone"),
    [
        ("a fox", set()),
        ("a sketch of a fox", {"sketch"}),
        ('a poster that says "OPEN"', {"text", "signature", "logo"}),
        ("a textured wall", set()),
    ],
)
def test_a_makers_negative_prompt_does_not_deny_what_is_asked_for(prompt: str, gone: set[str]) -> None:
    """Pieces that the prompt asks for leave it, as whole words, and text where words are to be written."""
    drawn = asked(prompt, expert("own", negative_prompt=NEGATIVE))
    assert set(NEGATIVE.split(", ")) - set(drawn.negative_prompt.split(", ")) == gone


def test_the_negative_prompt_has_the_caller_first() -> None:
    """Caller, prompt and maker are joined in this order; what was typed as it is comes as it is."""
    own = expert("own", negative_prompt="low quality，变形")
    assert (
        asked("a street without cars", own, negative_prompt="rain").negative_prompt == "rain, cars, low quality，变形"
    )


@pytest.mark.parametrize("one", [TAGGED, ENGLISH, expert("trained", trigger_words=("ink",), negative_prompt="bad")])
def test_without_rewriting_the_expert_gets_what_was_typed(one: Expert) -> None:
    """`rewrite=False` adds, drops and reorders nothing, politeness and all."""
    prompt = "please draw me a pink girl, without a hat"
    assert asked(prompt, one, rewrite=False) == Asked(prompt=prompt)
    assert asked(prompt, one, rewrite=False, negative_prompt="rain").negative_prompt == "rain"


def test_an_instruction_to_change_a_picture_stays_an_instruction() -> None:
    """An edit gets the words as typed; only trigger words lead them."""
    prompt = "give the girl a hat"
    assert asked(prompt, TAGGED, "edit").prompt == prompt
    assert asked(prompt, expert("t", trigger_words=("pxl",)), "edit").prompt == f"pxl, {prompt}"


@pytest.mark.parametrize(
    "prompt",
    [
        'a birthday card for Zoë that says "Happy 30th, Zoë!" with 3 cakes and #FF6600 ribbons',
        "海报，标题是「夏日音乐节 2026」，副标题写着“7月18日 上海”",
        "portrait of Aiko Tanaka (the pilot), f/1.4, 85mm, 16:9",
    ],
)
def test_words_names_numbers_and_quotes_survive_for_every_expert_of_the_default_zoo(prompt: str) -> None:
    """Whatever an expert likes, the clean prompt is in what it gets, letter for letter."""
    understood = think(prompt).understanding
    for one in Zoo.load("default").values():
        given = asked_of(one, Request(prompt=prompt), understood, "text-to-image").prompt
        assert understood.prompt in given
        assert all(words in given for words in understood.text_to_render)
