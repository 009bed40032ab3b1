"""The local chat server answers the real OpenAI client like a chat model, and fails on demand."""

from __future__ import annotations

import json
from random import Random
from time import perf_counter
from typing import TYPE_CHECKING, Any

import openai
import pytest
from fixtures_routing import THINKER, base_nodes
from langchain_openai import ChatOpenAI
from malformed import MALFORMED
from scripted_model import ScriptedChatModel

from diffusiongpt.testing import LocalChat, form
from diffusiongpt.understanding.llm import NONE, Ballot, LLMThinker, read_reply

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA = {"type": "object", "properties": {"color": {"type": "string"}}, "required": ["color"], "title": "answer"}


@pytest.fixture
def chat() -> Iterator[LocalChat]:
    """A server with an answer."""
    with LocalChat() as server:
        server.reply({"color": "red"})
        yield server


@pytest.fixture
def client(chat: LocalChat) -> Iterator[openai.OpenAI]:
    """OpenAI's own client."""
    with openai.OpenAI(base_url=chat.url, api_key="key", max_retries=0, timeout=10) as made:
        yield made


def ask(client: openai.OpenAI, **options: Any) -> Any:
    """One completion."""
    return client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Which?"}], **options)


def test_the_client_gets_a_completion_in_every_form(chat: LocalChat, client: openai.OpenAI) -> None:
    """Plain text, `json_object`, `json_schema` and tools are distinguished and answered."""
    schema = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
    tools = [{"type": "function", "function": {"name": "answer", "parameters": SCHEMA}}]
    for options in ({}, {"response_format": {"type": "json_object"}}, {"response_format": schema}):
        completion = ask(client, **options)
        assert json.loads(completion.choices[0].message.content) == {"color": "red"}
        assert completion.choices[0].finish_reason == "stop"
    call = ask(client, tools=tools).choices[0]
    assert (call.finish_reason, call.message.content) == ("tool_calls", None)
    assert call.message.tool_calls[0].function.name == "answer"
    assert json.loads(call.message.tool_calls[0].function.arguments) == {"color": "red"}
    assert [request.method for request in chat.requests] == ["text", "json_mode", "json_schema", "function_calling"]
    assert [request.schema for request in chat.requests] == [None, None, SCHEMA, SCHEMA]
    assert {(request.prompt, request.key) for request in chat.requests} == {("Which?", "key")}


def test_streams_arrive_in_pieces(chat: LocalChat, client: openai.OpenAI) -> None:
    """A stream brings the text in several events and ends."""
    chat.reply("a red fox in the snow, " * 10)
    pieces = [event.choices[0].delta.content or "" for event in ask(client, stream=True)]
    assert "".join(pieces) == "a red fox in the snow, " * 10
    assert len(pieces) > 3


def test_langchain_reads_it(chat: LocalChat) -> None:
    """`with_structured_output` works with each of its methods."""
    llm = ChatOpenAI(model="m", base_url=chat.url, api_key="key", max_retries=0)
    for method in ("json_schema", "function_calling", "json_mode"):
        assert llm.with_structured_output(SCHEMA, method=method).invoke("Which? Answer in JSON.") == {"color": "red"}


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (404, openai.NotFoundError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
    ],
)
def test_errors_are_those_of_openai(
    chat: LocalChat, client: openai.OpenAI, status: int, error: type[openai.APIStatusError]
) -> None:
    """The client raises its own error for each status, and a fault ends after its number of times."""
    chat.fail("status", status=status, times=1, retry_after=7)
    with pytest.raises(error) as caught:
        ask(client)
    assert caught.value.response.headers["retry-after"] == "7"
    assert "key" in str(caught.value)
    assert ask(client).choices[0].message.content == '{"color": "red"}'


def test_connections_break(chat: LocalChat, client: openai.OpenAI) -> None:
    """A closed connection and a refused one are connection errors."""
    fault = chat.fail("closed")
    with pytest.raises(openai.APIConnectionError):
        ask(client)
    chat.faults.remove(fault)
    chat.stop()
    with pytest.raises(openai.APIConnectionError):
        ask(client)


def test_silence_and_stalls(chat: LocalChat, client: openai.OpenAI) -> None:
    """Silence runs into the client's timeout; a stall does not, since bytes keep arriving; both end with the server."""
    chat.fail("silent", times=1)
    with pytest.raises(openai.APITimeoutError):
        ask(client.with_options(timeout=0.2))
    chat.fail("stalled")
    with client.with_options(timeout=0.5).chat.completions.with_streaming_response.create(
        model="m", messages=[{"role": "user", "content": "Which?"}]
    ) as response:
        start = perf_counter()
        pieces = response.iter_bytes(1)
        received = b"".join(next(pieces) for _ in range(20))
        assert perf_counter() - start > 0.5
        assert received.startswith(b'{"id"')


def test_a_refusal_has_no_content(chat: LocalChat, client: openai.OpenAI) -> None:
    """A refusal is in the field of that name."""
    chat.fail("refusal")
    message = ask(client).choices[0].message
    assert message.content is None
    assert message.refusal


def test_what_answers_may_be_no_chat_model(chat: LocalChat, client: openai.OpenAI) -> None:
    """A page of a captive portal, and a completion without choices, are passed on as they are."""
    chat.fail("html", times=1)
    assert "hotel" in str(ask(client))
    chat.fail("no choices", times=1)
    assert ask(client).choices is None


def test_requests_that_are_none(chat: LocalChat) -> None:
    """Other addresses and invalid bodies get an error; the list of models has one entry."""
    with openai.OpenAI(base_url=chat.url, api_key="key", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["local"]
        with pytest.raises(openai.NotFoundError):
            client.post("/elsewhere", cast_to=object, body={"messages": []})
        with pytest.raises(openai.BadRequestError):
            client.post("/chat/completions", cast_to=object, body={})


def test_a_script_is_followed(chat: LocalChat, client: openai.OpenAI) -> None:
    """Counted answers come first and in order, then the permanent one; a function gets the request."""
    chat.reply("one", times=1)
    chat.reply("two", times=2)
    chat.reply(lambda request: f"said {request.prompt}")
    assert [ask(client).choices[0].message.content for _ in range(4)] == ["one", "two", "two", "said Which?"]
    chat.reply(None)
    assert ask(client).choices[0].message.content is None


def test_an_unknown_fault_is_refused(chat: LocalChat) -> None:
    """A misspelt fault would be a test that proves nothing, so it is an error."""
    with pytest.raises(ValueError, match="stalled"):
        chat.fail("stal")


@pytest.mark.parametrize(
    ("prompt", "styles"),
    [("draw a watercolor fox", ["watercolor"]), ("画一只水墨风格的虾", ["ink_wash"]), ("a fox", [])],
)
@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode", "text"])
def test_without_a_script_it_reads_by_rule(prompt: str, styles: list[str], method: Any) -> None:
    """Whatever the method, the default answer is the local thinker's, filled into the form."""
    with LocalChat() as chat:
        llm = ChatOpenAI(model="m", base_url=chat.url, api_key="key", max_retries=0)
        thought = LLMThinker(llm, local=THINKER, method=method).think(prompt, (), base_nodes())
    local = THINKER.think(prompt, (), base_nodes()).understanding
    assert (thought.thinker, thought.llm_calls) == ("llm", 1)
    assert [weight.node for weight in thought.understanding.styles] == styles
    assert (thought.understanding.prompt, thought.understanding.language) == (local.prompt, local.language)


def test_to_anything_else_it_says_what_it_is_for() -> None:
    """A client with a different question gets a sentence."""
    with LocalChat() as chat, openai.OpenAI(base_url=chat.url, api_key="key", max_retries=0) as client:
        assert "local server for tests" in ask(client).choices[0].message.content


@pytest.mark.parametrize("kind", MALFORMED)
def test_each_way_of_going_wrong_is_wrong(kind: str) -> None:
    """No kind leaves a good answer unchanged, and each makes many different malformed ones."""
    good = form("a fox", subject="animal", styles=["anime"])
    spoilt = [MALFORMED[kind](good, Random(seed)) for seed in range(50)]  # noqa: S311  # a mess, not a secret
    assert json.dumps(good) not in spoilt
    assert len(set(spoilt)) >= (1 if kind == "null" else 5)
    assert good == form("a fox", subject="animal", styles=["anime"])


def test_the_form_is_what_the_schema_asks_for() -> None:
    """A good answer has exactly the fields of the schema, and every vote is usable."""
    ballot = Ballot.of(base_nodes())
    answer = form("a fox", subject="animal", styles=["anime"], voices=3)
    reading = read_reply(answer, ballot)
    assert set(answer) == set(ballot.schema()["required"]) == set(ballot.schema()["properties"])
    assert set(reading.fields) == set(answer) - {"votes"}
    assert [voice.styles for voice in reading.voices] == [("anime",)] * 3 + [()] * 2
    assert answer["votes"][-1] == {"subject": NONE, "styles": [NONE]}


def test_the_model_in_the_process_can_be_held_to_a_schema() -> None:
    """`ScriptedChatModel` calls tools, writes text, says nothing, and raises."""
    bound = ScriptedChatModel(answer={"color": "red"}).with_structured_output(SCHEMA)
    assert bound.invoke("Which?") == {"color": "red"}
    assert ScriptedChatModel(answer="red").invoke("Which?").text == "red"
    assert ScriptedChatModel(answer=None).invoke("Which?").text == ""
    assert ScriptedChatModel(answer=lambda messages: messages[-1].text).invoke("Which?").text == "Which?"
    with pytest.raises(NotImplementedError):
        ScriptedChatModel(answer="", takes_tools=False).with_structured_output(SCHEMA)
    with pytest.raises(ZeroDivisionError):
        ScriptedChatModel(answer=ZeroDivisionError()).invoke("Which?")
