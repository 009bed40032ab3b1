"""A small server in the shape of OpenAI's chat completions, for tests and demonstrations without a key."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar, Literal

from diffusiongpt.testing._chat_handler import ChatHandler
from diffusiongpt.testing._provider import TRANSPORT, LocalProvider, ProviderFault, ProviderRequest
from diffusiongpt.testing.chat_answers import as_text, form, read_by_rule
from diffusiongpt.testing.malformed import MALFORMED

__all__ = ["ChatFault", "ChatRequest", "LocalChat", "form"]


@dataclass(frozen=True, kw_only=True)
class ChatRequest(ProviderRequest):
    """One request for a completion."""

    @property
    def method(self) -> Literal["json_schema", "function_calling", "json_mode", "text"]:
        """How structure is asked for."""
        kind = (self.body.get("response_format") or {}).get("type")
        if self.body.get("tools"):
            return "function_calling"
        return "json_schema" if kind == "json_schema" else "json_mode" if kind == "json_object" else "text"

    @property
    def schema(self) -> dict[str, Any] | None:
        """The JSON schema of the answer, if the client sent one outside of the messages."""
        if self.method == "function_calling":
            return dict(self.body["tools"][0]["function"].get("parameters", {}))
        if self.method == "json_schema":
            return dict(self.body["response_format"]["json_schema"].get("schema", {}))
        return None

    @property
    def system(self) -> str:
        """All that was said to the LLM before the request."""
        return "\n".join(_texts(self.body, "system"))

    @property
    def prompt(self) -> str:
        """What the person typed: the `request` of our thinker's data, else the last message."""
        last = (_texts(self.body, "user") or [""])[-1]
        try:
            data = json.loads(last)
        except ValueError:
            return last
        return str(data.get("request", last)) if isinstance(data, dict) else last


@dataclass(kw_only=True)
class ChatFault(ProviderFault):
    """Something that goes wrong on purpose.

    Besides what can go wrong everywhere: `refusal` (the field of that name), `no choices`, or a kind of
    `diffusiongpt.testing.malformed.MALFORMED` for what is said.
    """

    kinds: ClassVar[tuple[str, ...]] = (*TRANSPORT, "refusal", "no choices", *MALFORMED)


Answer = Mapping[str, Any] | str | None | Callable[[ChatRequest], Any]


class LocalChat(LocalProvider[ChatRequest, ChatFault]):
    """Answer chat completions on loopback; the real `openai` and `langchain-openai` clients work against it.

    Without a script it reads prompts by rule, as the local thinker does: a way to try the LLM path without a
    key. It speaks `json_schema`, tools, `json_object`, plain text, and streams when asked to.

    Example:
        with LocalChat() as chat:
            chat.reply(form("a fox in the snow", subject="animal", styles=["watercolor"]))
            llm = ChatOpenAI(model="local", base_url=chat.url, api_key="any", max_retries=0)
            thought = LLMThinker(llm, local=LocalThinker()).think("draw a fox in the snow", (), nodes)
            chat.fail("status", status=429)
    """

    _handler = ChatHandler
    _fault = ChatFault

    def __init__(self, answer: Answer = read_by_rule, *, seed: int = 0) -> None:
        super().__init__()
        self._answer = answer
        self._replies: list[Answer] = []
        self._random = Random(seed)  # noqa: S311  # no secret depends on how an answer is spoilt

    def reply(self, answer: Answer, *, times: int | None = None) -> None:
        """Say this from now on, or so many times before anything else.

        Args:
            answer: A mapping or text, `None` for a message without content, or a function of the request.
            times: How often; such answers queue up.
        """
        with self._lock:
            if times is None:
                self._answer = answer
            else:
                self._replies += [answer] * times

    def content_for(self, request: ChatRequest, fault: ChatFault | None) -> str | None:
        """What is said to a request; the handler asks."""
        with self._lock:
            answer = self._replies.pop(0) if self._replies else self._answer
        said = answer(request) if callable(answer) else answer
        if fault is None or fault.kind not in MALFORMED:
            return as_text(said)
        good = dict(said) if isinstance(said, Mapping) and "votes" in said else form(request.prompt)
        with self._lock:
            return MALFORMED[fault.kind](good, self._random)


def _texts(body: Mapping[str, Any], role: str) -> list[str]:
    messages = [message for message in body.get("messages") or () if message.get("role") == role]
    return [_text(message.get("content")) for message in messages]


def _text(content: object) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return str(content or "")
