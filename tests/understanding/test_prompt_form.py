"""The form of a prompt: danbooru tags, a long description, or neither."""

from __future__ import annotations

import pytest

from diffusiongpt.understanding import prompt_form


@pytest.mark.parametrize(
    "prompt",
    [
        "1girl, solo, silver hair",
        "1boy, solo, looking at viewer, black hair, school uniform, masterpiece",
        "masterpiece, best quality, 2girls, holding hands, blue_eyes, smile",
        "1girl,solo,long_hair,looking_at_viewer",
        "score_9, score_8_up, 1girl, red eyes",
    ],
)
def test_tags_are_read_as_tags(prompt: str) -> None:
    """Short pieces between commas, some of them of danbooru's own vocabulary."""
    assert prompt_form(prompt) == {"danbooru_tags": 1.0}


@pytest.mark.parametrize(
    "prompt",
    [
        "an anime girl with silver hair, looking at the viewer",
        "a guitar solo on a stage, red lights, smoke",
        "a fox, a bear, a wolf",
        "portrait of a woman, blue eyes, smile, studio light",
        "一个女孩，银色头发",
        "",
        "a masterpiece of baroque painting",
    ],
)
def test_plain_words_are_no_tags(prompt: str) -> None:
    """Lists in plain words, and sentences that share a word with the vocabulary, have neither form."""
    assert prompt_form(prompt) == {}


def test_more_words_than_clip_reads_are_a_long_description() -> None:
    """Fifty words are; forty are not."""
    assert prompt_form("a red house on a hill " * 9) == {"long_description": 1.0}
    assert prompt_form("a red house on a hill " * 6) == {}
