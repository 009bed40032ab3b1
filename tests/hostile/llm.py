"""LLMs that lie: whatever one answers, and however much of it, a prompt is read, and in time.

Each attack answers the real `openai` client of a LangChain model over HTTP with something generated. After it the
local thinker or the LLM has read the prompt, no other server has seen it, and no thread is left waiting.
"""

from __future__ import annotations

import gzip
import json
import random
import threading
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffusiongpt.testing import LocalChat, form
from diffusiongpt.understanding import LocalThinker
from diffusiongpt.understanding.llm import LLMThinker
from diffusiongpt.zoo import Zoo
from hostile import Attack
from hostile._clock import CLOCK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Answer = Callable[[Any], None]
    Case = Callable[[random.Random], tuple[str, Answer]]


KIND = "llm"
KEY = "sk-proj-this-goes-to-one-server"
HASTE_S = 1.0
LONGEST_S = 6.0
"""Far above the deadline of a call, and far below what the answers would take to the end."""

JUNK: tuple[Any, ...] = (None, True, -1, 1e308, "", "x" * 40_000, [], {}, [[]], "\x00\x1b[31m", "\u202e", float("nan"))


def attacks(seed: int, count: int) -> Iterator[Attack]:
    """`count` different attacks, the same for the same seed."""
    rng = random.Random(seed)  # noqa: S311  # not a secret
    for number in range(count):
        name, answer = _CASES[number % len(_CASES)](rng)
        yield Attack(kind=KIND, name=f"{name} ({number})", run=partial(_meet, answer=answer))


def _meet(folder: Path, answer: Answer) -> None:
    """Read a prompt with an LLM that gives this answer, and hold what must be true whatever it is."""
    del folder
    from langchain_openai import ChatOpenAI

    threads = set(threading.enumerate())
    with LocalChat() as chat, LocalChat() as other:
        chat.fail("custom", answer=partial(_quietly, answer, other))
        model: Any = ChatOpenAI
        llm = model(model="local", base_url=chat.url, api_key=KEY, max_retries=0, timeout=60)
        begin = CLOCK()
        thought = LLMThinker(llm, local=_local(), timeout_s=HASTE_S).think("a watercolor fox", (), _nodes())
        seconds = CLOCK() - begin
        seen = list(other.requests)
        calls = [one for one in threading.enumerate() if one not in threads and "_settle" in one.name]
        for call in calls:
            call.join(3.0)
    assert not seen, "another server saw the prompt"
    assert seconds < LONGEST_S, f"it took {seconds:.1f} s"
    assert thought.understanding.prompt, "the prompt was not read"
    assert KEY not in repr(thought), "the key is in the result"
    assert not any(call.is_alive() for call in calls), "a thread is left"


def _quietly(answer: Callable[..., None], other: LocalChat, handler: Any) -> None:
    with suppress(OSError):  # the client has left
        answer(handler) if answer.__code__.co_argcount == 1 else answer(handler, other)


@cache
def _local() -> LocalThinker:
    return LocalThinker()


@cache
def _nodes() -> tuple[Any, ...]:
    return tuple(Zoo.load("tiny").taxonomy.nodes.values())


def _completion(content: object, **message: Any) -> bytes:
    said = {"role": "assistant", "content": content, **message}
    choice = {"index": 0, "message": said, "finish_reason": "stop"}
    whole = {"id": "x", "object": "chat.completion", "created": 0, "model": "x", "choices": [choice]}
    return json.dumps(whole).encode()


def _send(body: bytes, **headers: Any) -> Answer:
    return lambda handler: handler.send(body, "application/json", **headers)


def _strange_form(rng: random.Random) -> tuple[str, Answer]:
    good = form("a fox", styles=["watercolor"])
    spoilt = {name: rng.choice(JUNK) if rng.random() < 0.6 else value for name, value in good.items()}
    return f"form {str(sorted(spoilt.items(), key=str))[:60]!r}", _send(_completion(json.dumps(spoilt)))


def _many(rng: random.Random) -> tuple[str, Answer]:
    number = rng.choice((1_000, 30_000, 100_000))
    good = form("a fox", styles=["watercolor"])
    name = rng.choice(("votes", "text_to_render", "styles"))
    if name == "styles":
        good["votes"][0]["styles"] = ["watercolor"] * number
    else:
        good[name] = (good[name] or ["x"]) * number
    return f"{number} {name}", _send(_completion(json.dumps(good)))


def _deep(rng: random.Random) -> tuple[str, Answer]:
    depth = rng.choice((500, 5_000, 100_000))
    opening = rng.choice(("[", '{"votes":', '{"a":[', "[["))
    inside = rng.random() < 0.5
    body = (opening * depth).encode()
    return f"{depth} times {opening}, inside={inside}", _send(_completion(opening * depth) if inside else body)


def _number(rng: random.Random) -> tuple[str, Answer]:
    digits = rng.choice((500, 6_000, 300_000))
    text = json.dumps(form("a fox")).replace('"en"', rng.choice(("", "-", "1e")) + "9" * digits)
    return f"a number of {digits} digits", _send(_completion(text))


def _large(rng: random.Random) -> tuple[str, Answer]:
    size = rng.choice((1 << 20, 8 << 20, 64 << 20))
    filler = rng.choice((b" ", b"x", b"[", b"\x00"))

    def pour(handler: Any) -> None:
        handler.head(200, "application/json", size)
        for _ in range(size >> 16):
            if handler.service.stopping.is_set():
                break
            handler.wfile.write(filler * (1 << 16))
        handler.close_connection = True

    return f"{size >> 20} MB of {filler!r}", pour


def _packed(rng: random.Random) -> tuple[str, Answer]:
    size = rng.choice((100_000, 5_000_000, 40_000_000))
    kind = rng.choice(("gzip", "deflate", "br", "zstd", "gzip, gzip"))
    return f"{size} bytes packed as {kind}", _send(gzip.compress(b" " * size), **{"Content-Encoding": kind})


def _slow(rng: random.Random) -> tuple[str, Answer]:
    after = rng.randrange(0, 200)
    body = _completion("x" * 300)

    def drip(handler: Any) -> None:
        handler.head(200, "application/json", len(body))
        handler.wfile.write(body[:after])
        while not handler.service.stopping.wait(0.05):
            handler.wfile.write(b" ")
            handler.wfile.flush()
        handler.close_connection = True

    return f"drips after {after} bytes", drip


def _elsewhere(rng: random.Random) -> tuple[str, Answer]:
    status = rng.choice((301, 302, 303, 307, 308))
    form_of = rng.choice(("http://{host}/v1/chat/completions", "//{host}/v1/chat/completions", "http://u:p@{host}/"))

    def move(handler: Any, other: LocalChat) -> None:
        host = other.url.removeprefix("http://").removesuffix("/v1")
        handler.head(status, "text/plain", 0, Location=form_of.format(host=host))

    return f"{status} to {form_of}", move


def _noise(rng: random.Random) -> tuple[str, Answer]:
    body = rng.randbytes(rng.randrange(1, 3000))
    status = rng.choice((200, 204, 206, 400, 401, 404, 418, 429, 500, 503, 599))
    kind = rng.choice(("application/json", "text/html", "text/event-stream", "application/octet-stream"))

    def send(handler: Any) -> None:
        handler.head(status, kind, len(body), **{"Retry-After": rng.choice((None, "0", "-1", "9" * 30, "NaN", "soon"))})
        handler.wfile.write(body)

    return f"{status} {kind} with {body[:12]!r}", send


def _shape(rng: random.Random) -> tuple[str, Answer]:
    strange = [rng.choice(JUNK[:6]) for _ in range(3)]
    bodies = (
        {"choices": strange[0]},
        {"choices": [strange]},
        {"choices": [{"message": strange[1]}]},
        {"choices": [{"message": {"role": "assistant", "content": strange[2], "tool_calls": [{"function": strange}]}}]},
        strange,
        {"error": {"message": strange[0]}},
    )
    body = rng.choice(bodies)
    return f"shape {str(body)[:60]!r}", _send(json.dumps(body).encode())


_CASES: tuple[Case, ...] = (
    _strange_form,
    _many,
    _deep,
    _number,
    _large,
    _packed,
    _slow,
    _elsewhere,
    _noise,
    _shape,
)
