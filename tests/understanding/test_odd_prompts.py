"""Odd prompts that people type and paste: three hundred and more, each labelled by the rule of its kind."""

from __future__ import annotations

from typing import Any

import pytest
from fixtures_routing import think
from prompts_odd import KINDS, PROMPTS, differences

from diffusiongpt.flow import Understanding


@pytest.mark.parametrize(
    ("kind", "prompt", "label"), PROMPTS, ids=[f"{kind}: {prompt}"[:70] for kind, prompt, _ in PROMPTS]
)
def test_odd_prompts_are_read_by_the_rule_of_their_kind(kind: str, prompt: str, label: dict[str, Any]) -> None:
    """Every part of a label is what the local thinker reads; see `prompts_odd.KINDS` for the rules."""
    assert differences(think(prompt).understanding, label) == {}, KINDS[kind].rule


def test_the_set_is_large_and_in_two_languages() -> None:
    """At least three hundred prompts, a quarter of them not in English, and none twice."""
    prompts = [prompt for _, prompt, _ in PROMPTS]
    assert len(prompts) == len(set(prompts)) >= 300
    assert sum(think(prompt).understanding.language in ("zh", "ja") for prompt in prompts) >= 75


def test_fields_that_are_not_asked_for_are_empty() -> None:
    """A plain prompt has no markup, nothing unwanted, no text, no size and no reference."""
    read = think("a fox in the snow").understanding
    plain = Understanding(prompt=read.prompt)
    for name in ("markup", "unwanted", "text_to_render", "width", "aspect_ratio", "refers_to", "negative", "camera"):
        assert getattr(read, name) == getattr(plain, name), name
