"""Languages: an expert that cannot read the prompt does not draw it, unless it was translated or no expert can."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fixtures_routing import expert, route, router_of, think, zoo_of
from prompts_styled import CHINESE

from diffusiongpt.flow import Policy, Request, Understanding
from diffusiongpt.routing import filter_experts, prompt_language
from diffusiongpt.zoo import Zoo

if TYPE_CHECKING:
    from pathlib import Path

ENGLISH_ONLY = expert("english").model_copy(update={"languages": ("en",)})
BOTH = expert("both").model_copy(update={"languages": ("en", "zh-Hans")})
UNSTATED = expert("unstated")


def test_every_chinese_prompt_reaches_an_expert_that_reads_it(tmp_path: Path) -> None:
    """Of the labelled Chinese prompts none goes untranslated to an expert without Chinese."""
    zoo = Zoo.load("default")
    router = router_of(zoo, tmp_path / "v.db")
    for prompt, _ in CHINESE:
        assert "zh" in zoo[router.route(Request(prompt=prompt)).expert].languages, prompt


def test_an_expert_that_cannot_read_the_prompt_is_rejected() -> None:
    """The reason names the language; an expert that states no languages may stay; English asks for nothing."""
    chinese = think("一只狐狸").understanding
    allowed = filter_experts([ENGLISH_ONLY, BOTH, UNSTATED], chinese, Policy())
    assert allowed.eligible == ("both", "unstated")
    assert [(one.expert, one.reason) for one in allowed.rejected] == [("english", "not known to read Chinese")]
    assert len(filter_experts([ENGLISH_ONLY, BOTH], think("a fox").understanding, Policy()).eligible) == 2


def test_if_no_expert_reads_the_language_that_is_an_unmet_need(tmp_path: Path) -> None:
    """A picture of a prompt half understood is better than none, and the route says so."""
    decision = route("一只狐狸", zoo_of(ENGLISH_ONLY), tmp_path / "v.db")
    assert decision.expert == "english"
    assert decision.unmet == ("prompts in Chinese",)


@pytest.mark.parametrize(
    ("language", "prompt", "read"),
    [("zh", "a fox", "en"), ("zh-Hant", "一隻狐狸", "zh"), ("de", "ein Fuchs", "de"), ("en", "a fox", "en")],
)
def test_a_translated_prompt_is_in_english(language: str, prompt: str, read: str) -> None:
    """What counts is what the image model gets: the clean prompt, where its script shows that it was translated."""
    assert prompt_language(Understanding(prompt=prompt, language=language)) == read


def test_a_language_half_understood_costs_a_little(tmp_path: Path) -> None:
    """An encoder that reads Chinese without the maker's promise is allowed, and loses some points for it."""
    parts = {one.expert: one.parts for one in route("一只狐狸", Zoo.load("default"), tmp_path / "v.db").candidates}
    assert (
        parts["flux2-klein-9b"]["wording"] < 0 == parts["flux2-dev"]["wording"] == parts["qwen-image-2512"]["wording"]
    )
