"""How much an LLM says is bounded before it is read: bytes, decoded bytes, seconds, hosts and threads."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Iterator
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_llm import client, scripted, think
from langchain_core.runnables import RunnableLambda

from diffusiongpt.testing import LocalChat, form
from diffusiongpt.understanding.llm import bound_clients

if TYPE_CHECKING:
    from diffusiongpt.understanding import Thought

GOOD = form("a fox", subject="animal", styles=["anime"])
MANY = {**GOOD, "votes": GOOD["votes"] * 20_000, "text_to_render": ["x"] * 100_000}


@pytest.fixture
def chat() -> Iterator[LocalChat]:
    """A server that answers by rule unless a test sets something else."""
    with LocalChat() as server:
        yield server


def completion(content: str) -> bytes:
    """An answer with this text."""
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return json.dumps(
        {"id": "x", "object": "chat.completion", "created": 0, "model": "x", "choices": [choice]}
    ).encode()


def pour(handler: Any) -> None:
    """An answer without end."""
    handler.head(200, "application/json", 1 << 40)
    while not handler.service.stopping.is_set():
        handler.wfile.write(b" " * 100_000)


def pour_in_pieces(handler: Any) -> None:
    """An answer without end and without a length."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    while not handler.service.stopping.is_set():
        handler.wfile.write(b"186A0\r\n" + b" " * 100_000 + b"\r\n")


def packed(handler: Any) -> None:
    """Gzip that the client did not ask for, and that unpacks to a thousand times its size."""
    handler.send(gzip.compress(b" " * 50_000_000), "application/json", **{"Content-Encoding": "gzip"})


def long_list(handler: Any) -> None:
    """A hundred thousand votes."""
    handler.send(completion(json.dumps(MANY)), "application/json")


def deep(handler: Any) -> None:
    """JSON of fifty thousand levels."""
    handler.send(b"[" * 50_000, "application/json")


def long_number(handler: Any) -> None:
    """A number of half a million digits."""
    handler.send(completion(json.dumps(GOOD).replace('"en"', "9" * 500_000)), "application/json")


def gone(thought: Thought, seconds: float = 3.0) -> None:
    """Check that the fallback answered, and that no thread of the call is left."""
    assert thought.thinker == "local-fallback"
    end = monotonic() + seconds
    while monotonic() < end and any("_settle" in thread.name for thread in threading.enumerate()):
        sleep(0.02)
    assert not [thread.name for thread in threading.enumerate() if "_settle" in thread.name]


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
@pytest.mark.parametrize("answer", [pour, pour_in_pieces, packed, long_list, deep, long_number])
def test_an_answer_is_read_within_limits(chat: LocalChat, answer: Callable[[Any], None], method: Any) -> None:
    """Whatever comes, and however it is asked for, the local thinker answers soon."""
    chat.fail("custom", answer=answer)
    start = monotonic()
    gone(think(client(chat), "a fox", method=method, timeout_s=10))
    assert monotonic() - start < 8


def test_many_votes_of_a_model_without_http_are_few() -> None:
    """A model in this process may return any number of objects; five votes and twenty texts are read."""
    start = monotonic()
    thought = think(scripted(MANY))
    assert monotonic() - start < 8
    assert len(thought.understanding.text_to_render) <= 20


@pytest.mark.parametrize("kind", ["silent", "stalled"])
@pytest.mark.parametrize("streaming", [False, True])
def test_a_call_that_is_given_up_ends(chat: LocalChat, kind: str, *, streaming: bool) -> None:
    """Eight servers that drip or are silent leave no thread behind, although the client itself would wait a minute."""
    chat.fail(kind)
    llm = client(chat, streaming=streaming, timeout=60)
    for _ in range(8):
        gone(think(llm, timeout_s=0.3, method="text" if streaming else None))


def test_a_model_that_never_returns_takes_few_threads() -> None:
    """Python cannot end a thread; after a few that hang, no further one is begun until they have ended."""
    hang = threading.Event()
    llm = RunnableLambda(lambda _: hang.wait())
    before = threading.active_count()
    thoughts = [think(llm, timeout_s=0.05) for _ in range(12)]
    assert threading.active_count() - before <= 4
    assert "earlier calls" in str(thoughts[-1].fallback_reason)
    hang.set()
    end = monotonic() + 3
    while monotonic() < end and threading.active_count() > before:
        sleep(0.02)
    assert think(scripted(json.dumps(GOOD))).thinker == "llm"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_the_prompt_goes_to_no_other_host(chat: LocalChat, status: int) -> None:
    """A redirect to another address is not followed; that host sees neither the prompt nor the key."""

    def elsewhere(handler: Any) -> None:
        handler.head(status, "text/plain", 0, Location=f"{other.url}/chat/completions")

    with LocalChat() as other:
        chat.fail("custom", answer=elsewhere)
        thought = think(client(chat))
        assert other.requests == []
    assert "another host" in str(thought.fallback_reason)
    assert thought.thinker == "local-fallback"


def test_a_redirect_on_the_same_host_is_followed(chat: LocalChat) -> None:
    """A server may have moved its own address."""
    move = chat.fail(
        "custom", times=1, answer=lambda handler: handler.head(307, "text/plain", 0, Location="/v1/chat/completions")
    )
    assert think(client(chat)).thinker == "llm"
    assert move.times == 0


def test_other_callers_of_the_same_client_notice_nothing(chat: LocalChat) -> None:
    """LangChain shares one HTTP client among models; the limits hold only for our own calls."""
    llm = client(chat)
    assert bound_clients(llm) == 1
    hooks = {name: len(found) for name, found in llm.root_client._client.event_hooks.items()}
    bound_clients(client(chat))
    assert {name: len(found) for name, found in llm.root_client._client.event_hooks.items()} == hooks
    chat.fail("custom", times=1, answer=lambda handler: handler.send(completion("x" * 3_000_000), "application/json"))
    assert len(llm.invoke("hello").content) == 3_000_000
