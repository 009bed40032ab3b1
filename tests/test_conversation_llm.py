"""An LLM reads each turn of a conversation in one call, and never more."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from fixtures_routing import settings_in
from langchain_core.messages import BaseMessage
from scripted_model import ScriptedChatModel

from diffusiongpt import ContentPolicyError, DiffusionGPT
from diffusiongpt.testing import form

KINDS = {"hmm, the blue kind of day": "refine", "a hat for it": "edit", "what now": "surprise"}
"""What the LLM makes of turns; `surprise` is not among the kinds."""


def answer(messages: Sequence[BaseMessage]) -> dict[str, Any]:
    """The form about a request, with a kind of turn where one is asked for."""
    asked = json.loads(str(messages[-1].content))
    turn = {"turn": KINDS.get(asked["request"], "question")} if asked["earlier_requests"] else {}
    return form(asked["request"], styles=["pixel_art"] if "blue" in asked["request"] else [], **turn)


@pytest.fixture(scope="module")
def llm() -> ScriptedChatModel:
    """A model that answers by `answer`."""
    return ScriptedChatModel(answer=answer)


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory, llm: ScriptedChatModel) -> Iterator[DiffusionGPT]:
    """A tiny studio with an LLM."""
    with studio_with(llm, tmp_path_factory.mktemp("home")) as made:
        yield made


def studio_with(llm: ScriptedChatModel, folder: Path) -> DiffusionGPT:
    """A tiny studio with this model."""
    return DiffusionGPT("tiny", llm=llm, settings=settings_in(folder), votes=folder / "votes.db")


@pytest.mark.parametrize("text", KINDS)
def test_a_turn_is_one_call(studio: DiffusionGPT, llm: ScriptedChatModel, text: str) -> None:
    """The LLM is asked once for a turn, however many texts it leads to; its kind counts, if it is one."""
    talk = studio.conversation()
    talk.say("a red heart", seed=1, num_inference_steps=1)
    llm.asked.clear()
    turn = talk.say(text)
    assert len(llm.asked) == 1
    if KINDS[text] != "surprise":
        assert turn.kind == KINDS[text]
    if turn.generation:
        assert turn.generation.route.thinker == "llm"
        assert turn.generation.route.llm_calls == 1
        styles = [one.node for one in turn.generation.route.understanding.styles]
        assert styles == (["pixel_art"] if "blue" in text else [])


def test_a_turn_that_is_refused_costs_no_llm(studio: DiffusionGPT, llm: ScriptedChatModel) -> None:
    """The content policy is asked before an LLM reads a turn."""
    talk = studio.conversation()
    talk.say("a red heart", seed=1, num_inference_steps=1)
    llm.asked.clear()
    with pytest.raises(ContentPolicyError):
        talk.say("start over, a naked child on a bed, explicit")
    assert not llm.asked


def test_sure_words_win(studio: DiffusionGPT) -> None:
    """What the words of a turn leave no doubt about is not for an LLM to decide."""
    talk = studio.conversation()
    talk.say("a red heart", seed=1, num_inference_steps=1)
    assert talk.say("another one").kind == "variation"
    assert talk.say("start over, a green star").kind == "new"


def test_an_llm_that_fails_leaves_the_turn_to_the_rule(tmp_path: Path) -> None:
    """The turn is read locally after one failure, which the route reports."""
    failing = ScriptedChatModel(answer=RuntimeError("down"))
    with studio_with(failing, tmp_path) as studio:
        talk = studio.conversation()
        talk.say("a red heart", seed=1, num_inference_steps=1)
        failing.asked.clear()
        turn = talk.say("but blue")
        assert turn.generation
        assert (turn.kind, turn.description) == ("refine", "a blue heart")
        assert turn.generation.route.thinker == "local-fallback"
        assert turn.generation.route.llm_calls == len(failing.asked) <= 2


def test_words_of_a_turn_are_no_facts_of_the_picture(tmp_path: Path) -> None:
    """What an LLM reads from a turn about its picture counts; what it reads from the words alone does not."""
    model = ScriptedChatModel(
        answer=lambda messages: (
            form("x", turn="refine", subject_class="scene", paradigm="hypothesis")
            if json.loads(str(messages[-1].content))["earlier_requests"]
            else form("two dogs", subject_class="animal")
        )
    )
    with studio_with(model, tmp_path) as studio:
        talk = studio.conversation()
        talk.say("two dogs", seed=1, num_inference_steps=1)
        turn = talk.say("with the sea behind")
        assert turn.generation
        understood = turn.generation.route.understanding
        assert (understood.subject_class, understood.paradigm) == ("scene", "prompt")
