"""Prompts that take thinking: an LLM writes out what is to be seen, in its one call, and what must stay stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fixtures_llm import router_of, scripted, think, thinker
from fixtures_routing import THINKER

from diffusiongpt import ContentPolicyError, DiffusionGPT
from diffusiongpt.flow import Request
from diffusiongpt.testing import form

if TYPE_CHECKING:
    from pathlib import Path

    from diffusiongpt.flow import Route

RIDDLE = "Solve the riddle and draw the animal: it barks at the moon"
ANSWER = "A grey dog on a hill at night, barking at a full moon"


def rewritten(prompt: str, text: str, **fields: Any) -> str:
    """What is kept of a prompt that an LLM wrote."""
    return think(scripted(form(prompt, rewritten=text, **fields)), prompt).understanding.rewritten


def test_a_prompt_that_takes_thinking_is_rewritten_in_the_one_call() -> None:
    """The LLM is asked once, its text is kept beside the original, and the prompt stays as it was."""
    model = scripted(form(RIDDLE, rewritten=ANSWER))
    thought = think(model, RIDDLE)
    assert thought.understanding.rewritten == ANSWER
    assert thought.understanding.prompt == RIDDLE
    assert thought.llm_calls == len(model.asked) == 1


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("a fox in the snow", "A red fox, majestic, in deep snow"),
        ("make the background follow these steps: 1. night 2. rain 3. fog", "A foggy rainy night"),
        (RIDDLE, ""),
        (RIDDLE, "a dog " * 1000),
        (RIDDLE, "a dog\u202e that barks"),
        ('Solve the puzzle and write the result on a sign that says "结果"', 'A sign that says "result"'),
        ("Solve the riddle with a logo in #FF6600: it barks", "A logo of a dog in orange"),
        ("Solve the riddle without cats: it barks", "A dog that chases cats"),
    ],
    ids=["plain", "edit", "empty", "long", "unprintable", "translated", "no-code", "denied"],
)
def test_a_rewriting_that_is_not_needed_or_loses_something_is_not_used(prompt: str, text: str) -> None:
    """Plain prompts stay their own; texts to render and colours stay letter for letter; what is denied stays out."""
    assert rewritten(prompt, text) == ""


def test_text_to_render_is_never_translated() -> None:
    """A rewriting that keeps the words as they are is used, whatever the language around them."""
    prompt = "解出谜语并画出来，牌子上写着“OPEN 24h”：它会叫"
    text = "一只狗坐在写着“OPEN 24h”的牌子旁边"
    assert rewritten(prompt, text, language="zh") == text


@pytest.fixture
def routes(tmp_path: Path) -> dict[str, Route]:
    """The riddle with an LLM, with rewriting off, and with the local thinker."""
    model = scripted(form(RIDDLE, rewritten=ANSWER))
    for name in ("llm", "local"):
        (tmp_path / name).mkdir()
    mind = router_of(thinker(model), tmp_path / "llm")
    return {
        "llm": mind.route(Request(prompt=RIDDLE)),
        "off": mind.route(Request(prompt=RIDDLE, rewrite=False)),
        "local": router_of(THINKER, tmp_path / "local").route(Request(prompt=RIDDLE)),
    }


def test_the_expert_gets_the_rewriting_and_its_gain_is_a_part_of_the_score(routes: dict[str, Route]) -> None:
    """The part `rewriting` is what was measured; the original stays in the record, and the sentence says it."""
    route = routes["llm"]
    assert ANSWER in route.prompt
    assert (route.input, route.understanding.prompt) == (RIDDLE, RIDDLE)
    assert all(one.parts["rewriting"] > 0 for one in route.candidates)
    assert all(one.score == pytest.approx(sum(one.parts.values())) for one in route.candidates)
    gains = {one.expert: one.parts["rewriting"] for one in route.candidates}
    assert gains.get("qwen-image", 1.28) > gains.get("flux2-dev", 0.97)
    assert "the LLM wrote out what is to be seen" in route.explain().replace("\n", " ")


def test_without_a_rewriting_there_is_no_gain(routes: dict[str, Route]) -> None:
    """With `rewrite=False` and with the local thinker no score has the part, and the route says what is needed."""
    assert routes["off"].prompt == RIDDLE
    for name in ("off", "local"):
        assert not any("rewriting" in one.parts for one in routes[name].candidates)
    assert routes["local"].understanding.reasoning
    assert "takes thinking" in routes["local"].explain().replace("\n", " ")


def test_the_words_of_an_llm_are_held_to_the_content_policy(tmp_path: Path) -> None:
    """A rewriting that no caller could ask for is refused like a prompt."""
    text = "A naked child on a bed, explicit"
    studio = DiffusionGPT("tiny", llm=scripted(form(RIDDLE, rewritten=text)), votes=tmp_path / "votes.db")
    with studio, pytest.raises(ContentPolicyError):
        studio.route(RIDDLE)
