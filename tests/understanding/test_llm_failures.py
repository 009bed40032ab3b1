"""How the LLM thinker fails: at most a second attempt, then the local answer with a reason that reveals nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from random import Random
from time import perf_counter
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_llm import (
    IMPLIED,
    KEY,
    check_route,
    check_thought,
    client,
    nodes,
    router_of,
    scripted,
    think,
    thinker,
)
from fixtures_routing import THINKER
from langchain_core.language_models import FakeListChatModel
from langchain_core.runnables import RunnableLambda
from malformed import MALFORMED, fail
from pydantic import BaseModel
from scripted_model import ScriptedChatModel

from diffusiongpt.errors import NeedsExtraError, SettingsError
from diffusiongpt.flow import Request
from diffusiongpt.testing import LocalChat, form
from diffusiongpt.understanding.llm import failure_of, find_object

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from diffusiongpt.understanding import Thinker, Thought


@pytest.fixture
def chat() -> Iterator[LocalChat]:
    """A server that answers by rule unless a test sets something else."""
    with LocalChat() as server:
        yield server


@pytest.mark.parametrize(
    ("kind", "details", "reason", "calls"),
    [
        ("status", {"status": 401}, "does not accept the key (401)", 1),
        ("status", {"status": 403}, "does not accept the key (403)", 1),
        ("status", {"status": 404}, "no such model or address (404)", 1),
        ("status", {"status": 429}, "rate limit or quota (429), twice", 2),
        ("status", {"status": 429, "retry_after": 600}, "rate limit or quota (429)", 1),
        ("status", {"status": 400}, "rejected the request (400), twice", 2),
        ("status", {"status": 500}, "server failed (500), twice", 2),
        ("status", {"status": 503}, "server failed (503), twice", 2),
        ("closed", {}, "closed the connection before it answered, twice", 2),
        ("refusal", {}, "refused to answer", 1),
        ("html", {}, "is not that of a chat model, twice", 2),
        ("no choices", {}, "is not that of a chat model, twice", 2),
        ("prose", {}, "answered with prose, twice", 2),
        ("empty", {}, "answer was empty, twice", 2),
        ("null", {}, "answer was empty, twice", 2),
        ("truncated", {}, "JSON that is not the form, twice", 2),
        ("invented nodes", {}, "only categories that do not exist, twice", 2),
    ],
)
def test_every_failure_is_the_local_answer_with_a_reason(
    chat: LocalChat, caplog: pytest.LogCaptureFixture, kind: str, details: dict[str, Any], reason: str, calls: int
) -> None:
    """Whatever goes wrong, the result after at most two calls is the local answer and the reason, without the key."""
    fail(chat, kind, **details)
    thought = think(client(chat), "a watercolor fox")
    local = THINKER.think("a watercolor fox", (), nodes())
    assert thought.thinker == "local-fallback"
    assert (thought.understanding, thought.values, thought.matched) == (
        local.understanding,
        local.values,
        local.matched,
    )
    assert reason in str(thought.fallback_reason)
    assert thought.llm_calls == len(chat.requests) == calls
    assert chat.requests[0].key == KEY
    assert KEY not in str(thought) + caplog.text
    assert str(thought.fallback_reason) in caplog.text


@pytest.mark.parametrize("kind", ["silent", "stalled"])
@pytest.mark.parametrize("streaming", [False, True])
def test_a_deadline_holds_even_in_mid_answer(chat: LocalChat, kind: str, *, streaming: bool) -> None:
    """A provider that never answers, or stops in the middle, is abandoned in time, whatever its own timeout."""
    fail(chat, kind)
    start = perf_counter()
    llm = client(chat, streaming=streaming, timeout=60)
    thought = think(llm, "a fox", timeout_s=0.5, method="text" if streaming else None)
    assert 0.4 < perf_counter() - start < 10
    assert (thought.thinker, thought.llm_calls) == ("local-fallback", 1)
    assert "did not answer within 0.5 s" in str(thought.fallback_reason)


def test_the_deadline_covers_the_second_attempt(chat: LocalChat) -> None:
    """A second attempt gets only the time that is left."""
    fail(chat, "prose", times=1)
    chat.fail("silent")
    start = perf_counter()
    thought = think(client(chat), timeout_s=1.0)
    assert perf_counter() - start < 10
    assert thought.llm_calls == 2
    assert "answered with prose; on the second attempt, the LLM did not answer within 1 s" in str(
        thought.fallback_reason
    )


def test_a_server_that_does_not_exist(chat: LocalChat) -> None:
    """A refused connection is reported as one."""
    llm = client(chat)
    chat.stop()
    thought = think(llm)
    assert thought.thinker == "local-fallback"
    assert "could not reach the LLM" in str(thought.fallback_reason)


@pytest.mark.parametrize(
    ("kind", "details", "methods"),
    [
        ("status", {"status": 500}, ["json_schema", "json_schema"]),
        ("status", {"status": 429, "retry_after": 0}, ["json_schema", "json_schema"]),
        ("closed", {}, ["json_schema", "json_schema"]),
        ("status", {"status": 400}, ["json_schema", "text"]),
        ("prose", {}, ["json_schema", "json_mode"]),
        ("null", {}, ["json_schema", "json_mode"]),
        ("invented nodes", {}, ["json_schema", "json_mode"]),
    ],
)
def test_the_second_attempt_is_one_that_may_help(
    chat: LocalChat, kind: str, details: dict[str, Any], methods: list[str]
) -> None:
    """After a server error the same call is repeated, after a bad answer with the schema, after a rejection as text."""
    fail(chat, kind, times=1, **details)
    thought = think(client(chat), "a watercolor fox")
    assert (thought.thinker, thought.fallback_reason, thought.llm_calls) == ("llm", None, 2)
    assert [request.method for request in chat.requests] == methods
    assert ("JSON schema:" in chat.requests[1].system) == (methods[1] != "json_schema")


def test_a_tool_that_is_not_called_is_a_failure(chat: LocalChat) -> None:
    """`function_calling` may return nothing without an error, and a second attempt follows."""
    chat.reply(None, times=1)
    thought = think(client(chat), method="function_calling")
    assert (thought.thinker, thought.llm_calls) == ("llm", 2)
    assert [request.method for request in chat.requests] == ["function_calling", "json_schema"]


def test_a_schema_that_a_provider_rejects_costs_no_call() -> None:
    """A client that refuses our schema before anything is sent is asked for text instead."""

    class Picky(ScriptedChatModel):
        """Takes toy schemas only."""

        def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
            """Refuse what is not a toy."""
            if "Vote" in str(tools):
                raise ValueError("too complex")
            return super().bind_tools(tools, **kwargs)

    llm = Picky(answer=form("a fox", styles=["anime"]))
    assert think(llm).llm_calls == len(llm.asked) == 1


@pytest.mark.parametrize("wrap", ["{}", "Sure! ```json\n{}\n```", "Let me {{think}}. {} Enjoy!", "<think>{{</think>{}"])
def test_an_older_server_may_wrap_its_answer(chat: LocalChat, wrap: str) -> None:
    """JSON inside chatter is found in the first answer, so that no second call is spent."""
    chat.reply(wrap.format(json.dumps(form("a fox", subject="animal", styles=["anime"]))))
    thought = think(client(chat))
    assert (thought.thinker, thought.llm_calls, thought.values["anime"]) == ("llm", 1, 0.8)


@pytest.mark.parametrize(
    "wrap",
    [
        "<think>{draft}</think>{answer}",
        "<think>Perhaps {draft}? No.</think>\n```json\n{answer}\n```",
        "{draft} is wrong.\n</think>\n{answer}",
        "<reasoning>{draft}</reasoning> {answer}",
        "A draft: {draft}\n\nThe final answer: {answer}",
        "<thinking>{draft}</thinking>Here it is: {answer} I hope this helps.",
    ],
)
def test_a_draft_is_not_the_answer(chat: LocalChat, wrap: str) -> None:
    """What a model thinks before it answers, in tags or in front, never beats the answer itself."""
    draft, answer = (json.dumps(form("a fox", subject="animal", styles=[style])) for style in ("oil_painting", "anime"))
    chat.reply(wrap.format(draft=draft, answer=answer))
    thought = think(client(chat))
    assert (thought.thinker, thought.llm_calls) == ("llm", 1)
    assert [weight.node for weight in thought.understanding.styles] == ["anime"]


def test_models_that_only_write_text_are_asked_in_text() -> None:
    """LangChain's own fake, a bare runnable, and a model without tools all answer."""
    answer = json.dumps(form("a fox", subject="animal", styles=["anime"]))
    no_tools = scripted(answer, takes_tools=False)
    for llm in (FakeListChatModel(responses=[answer]), RunnableLambda(lambda _: answer), no_tools):
        thought = think(llm)
        assert (thought.thinker, thought.llm_calls, thought.values["anime"]) == ("llm", 1, 0.8)
    assert "JSON schema:" in str(no_tools.asked[0][0].content)


class Answer(BaseModel):
    """A form that a model defines itself."""

    votes: list[dict[str, Any]]


@pytest.mark.parametrize(
    "wrap", [dict, lambda data: Answer(votes=data["votes"]), lambda data: {"raw": "", "parsed": data}]
)
def test_models_may_give_objects_of_their_own(wrap: Any) -> None:
    """The answer of a model that parses by itself is used as it is, whether a mapping or a pydantic object."""

    class Own(ScriptedChatModel):
        """Parses by itself."""

        def with_structured_output(self, schema: Any, **_: Any) -> Any:
            """Give an object."""
            assert schema["type"] == "object"
            return RunnableLambda(lambda _: wrap(self.answer))

    thought = think(Own(answer=form("a fox", styles=["anime"])))
    assert (thought.thinker, thought.values["anime"]) == ("llm", 0.8)


def test_a_provider_may_raise_anything() -> None:
    """Errors of any class become a reason that names the class and does not quote the text."""
    for error in (RuntimeError(KEY), KeyboardInterrupt(KEY), ZeroDivisionError(KEY), RecursionError(KEY)):
        thought = think(scripted(error))
        assert thought.thinker == "local-fallback"
        assert type(error).__name__ in str(thought.fallback_reason)
        assert KEY not in str(thought)


def test_reasons_are_found_behind_other_errors() -> None:
    """A status or a timeout is found anywhere in the chain of causes."""
    inner = RuntimeError("x")
    inner.code = 401  # type: ignore[attr-defined]
    outer = ValueError("y")
    outer.__cause__ = inner
    assert "(401)" in failure_of(outer).reason
    outer.__cause__ = TimeoutError()
    assert "in time" in failure_of(outer).reason
    inner.__cause__, outer.__cause__ = outer, inner
    assert "(401)" in failure_of(outer).reason


def test_long_prose_costs_no_time() -> None:
    """Two hundred thousand characters of prose, or of braces, are read at once."""
    for text in ("Here is your fox. " * 12_000, "{" * 200_000, '{"votes": ' * 20_000, '"' * 200_000):
        start = perf_counter()
        assert think(scripted(text)).thinker == "local-fallback"
        assert perf_counter() - start < 10
    assert find_object("no JSON here", "votes") is None


# ---- how it is created


@pytest.mark.parametrize("spec", ["", "gpt", "openai:", ":model", "unknown:model", "open ai:model"])
def test_a_specification_without_a_model(spec: str) -> None:
    """A specification must be `provider:model`, with a provider that LangChain supports."""
    with pytest.raises(SettingsError) as error:
        thinker(spec)
    assert "provider:model" in error.value.hint


@pytest.mark.parametrize("llm", [None, 3, object()])
def test_what_is_not_a_model_is_refused(llm: Any) -> None:
    """An object must be a LangChain model."""
    with pytest.raises(SettingsError, match="LangChain chat model"):
        thinker(llm)


@pytest.mark.parametrize(
    "options", [{"timeout_s": 0}, {"timeout_s": -1}, {"budget": 0}, {"method": "function_calling"}]
)
def test_arguments_out_of_range_are_refused(options: dict[str, Any]) -> None:
    """No time, no calls, and a method the model does not offer are errors."""
    with pytest.raises(SettingsError):
        thinker(FakeListChatModel(responses=[""]), **options)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hint is the line that installs the provider."""
    monkeypatch.setitem(sys.modules, "langchain_anthropic", None)
    with pytest.raises(NeedsExtraError) as error:
        thinker("anthropic:model")
    assert error.value.hint == "pip install langchain-anthropic"


def test_a_spec_makes_the_real_client(chat: LocalChat, monkeypatch: pytest.MonkeyPatch) -> None:
    """`openai:MODEL` reads its usual environment variables, and makes no retries itself."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", chat.url)
    mind = thinker("openai:local")
    assert KEY not in repr(mind)
    assert mind.think("a fox", (), nodes()).thinker == "llm"
    chat.fail("status", status=500)
    assert mind.think("a fox", (), nodes()).llm_calls == len(chat.requests) - 1 == 2


def test_without_a_key_there_is_still_a_route(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A missing key is a reason to read locally, not an error."""
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY"):
        monkeypatch.delenv(name, raising=False)
    route = router_of(thinker("openai:local"), tmp_path).route(Request(prompt="a watercolor fox"))
    assert (route.thinker, route.llm_calls) == ("local-fallback", 0)
    assert "key is missing" in str(route.fallback_reason)


def test_threads_may_share_one(chat: LocalChat) -> None:
    """Concurrent prompts each get their own answer."""
    mind = thinker(client(chat))
    prompts = [f"draw {number} red foxes" for number in range(2, 18)]
    with ThreadPoolExecutor(8) as pool:
        thoughts = list(pool.map(lambda prompt: mind.think(prompt, (), nodes()), prompts))
    assert [thought.understanding.prompt for thought in thoughts] == [prompt[5:] for prompt in prompts]
    assert {(thought.thinker, thought.llm_calls) for thought in thoughts} == {("llm", 1)}


def test_importing_it_imports_no_langchain() -> None:
    """Only creating a thinker loads LangChain."""
    heavy = "[name for name in sys.modules if name.startswith(('langchain', 'openai'))]"
    code = f"import sys, diffusiongpt.understanding.llm.llm_thinker; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- malformed replies by the thousand


class Remembering:
    """A thinker that remembers its last thought."""

    def __init__(self, mind: Thinker) -> None:
        self.mind = mind

    def think(self, *asked: Any) -> Thought:
        """Think, and remember the thought."""
        self.last = self.mind.think(*asked)
        return self.last


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_replies_end_in_a_valid_route(tmp_path: Path, kind: str) -> None:
    """80 answers of each kind, to models with and without tools, all end in a valid route: 1,120 in total."""
    rng = Random(kind)  # noqa: S311  # a mess, not a secret
    prompts = ("a watercolor fox in the snow", "一只水彩风格的狐狸", IMPLIED, 'a sign that says "OPEN", without cars')
    spoil = MALFORMED[kind]
    for takes_tools in (True, False):
        llm = ScriptedChatModel(answer=lambda _: spoil(form("a fox", styles=["anime"]), rng), takes_tools=takes_tools)
        mind = Remembering(thinker(llm))
        router = router_of(mind, tmp_path)
        for index in range(40):
            check_route(router.route(Request(prompt=prompts[index % len(prompts)])))
            check_thought(mind.last)
        assert len(llm.asked) >= 40


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_replies_over_http_end_in_a_valid_route(chat: LocalChat, tmp_path: Path, kind: str) -> None:
    """The same through the real client, with each method."""
    chat.reply(form("a watercolor fox", subject="animal", styles=["watercolor"]))
    fail(chat, kind)
    for method in ("json_schema", "function_calling", "json_mode"):
        route = router_of(thinker(client(chat), method=method), tmp_path).route(Request(prompt="a watercolor fox"))
        check_route(route)
        assert route.expert == router_of(THINKER, tmp_path).route(Request(prompt="a watercolor fox")).expert
