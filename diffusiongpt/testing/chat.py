"""A small server in the shape of OpenAI's chat completions, for tests and demonstrations without a key."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Literal

from diffusiongpt.testing._server import FAULTS, LocalProvider, ProviderFault, ProviderHandler, ProviderRequest
from diffusiongpt.understanding import LocalThinker
from diffusiongpt.understanding.llm import NONE, VOICES, find_object
from diffusiongpt.zoo import Node, NodeKind


def form(
    prompt: str, *, subject: str = NONE, styles: Sequence[str] = (), voices: int = VOICES, **fields: Any
) -> dict[str, Any]:
    """The form that the LLM thinker asks for, filled in as a good LLM does.

    Args:
        prompt: The clean prompt.
        subject: The subject that all voices vote for.
        styles: The styles that all voices vote for.
        voices: How many voices vote; the others abstain.
        **fields: Other fields of the form.
    """
    vote = {"subject": subject, "styles": [*styles] or [NONE]}
    abstention = {"subject": NONE, "styles": [NONE]}
    return {
        "paradigm": "prompt",
        "prompt": prompt,
        "negative": "",
        "language": "en",
        "subject_class": "other",
        "edit": False,
        "rewritten": "",
        "text_to_render": [],
        "votes": [vote if index < voices else abstention for index in range(VOICES)],
        **fields,
    }


def read_by_rule(request: ChatRequest) -> dict[str, Any] | str:
    """Fill in the form with the local thinker; answer any other request with what this server is for."""
    schema = request.schema or find_object(request.system, "properties") or {}
    properties = schema.get("properties", {})
    if "votes" not in properties:
        return "This is a local server for tests: it fills in only the form of diffusiongpt's LLM thinker."
    nodes = [*_offered(schema, "subject"), *_offered(schema, "style")]
    thought = _reader().think(request.prompt, (), nodes)
    understood = thought.understanding
    subjects = [weight.node for weight in understood.subjects]
    return form(
        understood.prompt,
        subject=subjects[0] if subjects else NONE,
        styles=[weight.node for weight in understood.styles],
        **{name: getattr(understood, name) for name in ("paradigm", "negative", "language", "subject_class", "edit")},
        text_to_render=list(understood.text_to_render),
    )


def _offered(schema: dict[str, Any], kind: NodeKind) -> list[Node]:
    vote = schema.get("$defs", {}).get("Vote", {}).get("properties", {})
    place = vote.get("subject", {}) if kind == "subject" else vote.get("styles", {}).get("items", {})
    return [_base_nodes().get(node, Node(id=node, kind=kind)) for node in place.get("enum", ()) if node != NONE]


@cache
def _reader() -> LocalThinker:
    return LocalThinker()


@cache
def _base_nodes() -> dict[str, Node]:
    from diffusiongpt.zoo import Zoo

    return Zoo.load("tiny").taxonomy.nodes


def as_text(answer: object) -> str | None:
    """An answer as the content of a message; `None` is a message without content."""
    if answer is None or isinstance(answer, str):
        return answer
    return json.dumps(answer, ensure_ascii=False)


@dataclass(frozen=True, kw_only=True)
class ChatRequest(ProviderRequest):
    """One request for a completion."""

    @property
    def method(self) -> Literal["json_schema", "function_calling", "json_mode", "text"]:
        """How the client asks for structure."""
        kind = (self.body.get("response_format") or {}).get("type")
        if self.body.get("tools"):
            return "function_calling"
        return "json_schema" if kind == "json_schema" else "json_mode" if kind == "json_object" else "text"

    @property
    def must_call(self) -> bool:
        """Whether the answer has to be a call of the one tool that is offered, as when it is for a structure."""
        return self.method == "function_calling" and self.body.get("tool_choice") not in (None, "auto", "none")

    @property
    def schema(self) -> dict[str, Any] | None:
        """The JSON schema of the answer, if the client sends one outside the messages."""
        if self.method == "function_calling":
            return dict(self.body["tools"][0]["function"].get("parameters", {}))
        if self.method == "json_schema":
            return dict(self.body["response_format"]["json_schema"].get("schema", {}))
        return None

    @property
    def system(self) -> str:
        """The system messages, joined by line breaks."""
        return "\n".join(_texts(self.body, "system"))

    @property
    def prompt(self) -> str:
        """The text that the person typed: the `request` in our thinker's data, else the last user message."""
        last = (_texts(self.body, "user") or [""])[-1]
        try:
            data = json.loads(last)
        except ValueError:
            return last
        return str(data.get("request", last)) if isinstance(data, dict) else last


@dataclass(kw_only=True)
class ChatFault(ProviderFault):
    """A fault on purpose.

    In addition to the faults of every provider: `refusal` (the field of that name), `no choices`, and `malformed`.

    Attributes:
        spoil: With `malformed`, makes the text of the answer from the form that would have been right; `None` is a
            message without content.
    """

    kinds: ClassVar[tuple[str, ...]] = (*FAULTS, "refusal", "no choices", "malformed")

    spoil: Callable[[dict[str, Any]], str | None] = str


@dataclass(frozen=True)
class ToolCall:
    """An answer by which an agent calls one of the tools that it was offered.

    Attributes:
        name: Name of the tool.
        arguments: Its arguments.
    """

    name: str
    arguments: Mapping[str, Any]


_PIECE = 40
"""Characters of one event of a stream."""


class ChatHandler(ProviderHandler):
    """One connection to a `LocalChat`."""

    server_version = "LocalChat"

    def serve(self, body: dict[str, Any]) -> None:
        """Answer a request for a completion."""
        if not isinstance(body.get("messages"), list):
            self.refuse(400)
            return
        request = ChatRequest(path=self.path, body=body, key=self.key)
        self.service.note(request)
        if not self.path.endswith("/chat/completions"):
            self.refuse(404)
        elif not self.fail(fault := self.service.take_fault()):
            self._answer(request, fault)

    def _answer(self, request: ChatRequest, fault: ChatFault | None) -> None:
        kind = fault.kind if fault else ""
        content = self.service.content_for(request, fault)
        if isinstance(content, ToolCall):
            self.send_json(_calling(request, content.name, as_text(dict(content.arguments))))
            return
        if request.body.get("stream"):
            self._stream(content or "", stalled=kind == "stalled")
            return
        completion = _completion(request, content, refused=kind == "refusal")
        if kind == "stalled":
            self.drip(json.dumps(completion).encode())
        else:
            self.send_json(completion | {"choices": None} if kind == "no choices" else completion)

    def _stream(self, content: str, *, stalled: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        pieces = [content[at : at + _PIECE] for at in range(0, len(content), _PIECE)]
        for piece in pieces[: 1 if stalled else None]:
            self._send_event({"role": "assistant", "content": piece}, None)
        if stalled:
            self.service.stopping.wait()
        else:
            self._send_event({}, "stop")
            self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def _send_event(self, delta: dict[str, Any], finish: str | None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        event = {"id": "chatcmpl-local", "object": "chat.completion.chunk", "created": 0, "model": "local"}
        self.wfile.write(f"data: {json.dumps({**event, 'choices': [choice]})}\n\n".encode())


def _completion(request: ChatRequest, content: str | None, *, refused: bool) -> dict[str, Any]:
    """A completion in OpenAI's shape: a refusal, the content, or the arguments of the tool that the client offers."""
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    if refused:
        message |= {"content": None, "refusal": "I'm sorry, I can't help with that."}
    elif content is not None and (request.must_call or (request.method == "function_calling" and content[:1] == "{")):
        # an object is the arguments of the tool that is offered; an agent may also be answered in words
        return _calling(request, request.body["tools"][0]["function"]["name"], content)
    return _finished(request, message, "stop")


def _calling(request: ChatRequest, name: str, arguments: str | None) -> dict[str, Any]:
    """A completion that calls a tool."""
    call = {
        "id": f"call_{len(request.body['messages'])}",
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }
    return _finished(
        request, {"role": "assistant", "content": None, "refusal": None, "tool_calls": [call]}, "tool_calls"
    )


def _finished(request: ChatRequest, message: Mapping[str, Any], finish: str) -> dict[str, Any]:
    return {
        "id": "chatcmpl-local",
        "object": "chat.completion",
        "created": 0,
        "model": str(request.body.get("model", "local")),
        "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
        "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    }


Answer = Mapping[str, Any] | str | ToolCall | None | Callable[[ChatRequest], Any]


class LocalChat(LocalProvider[ChatRequest, ChatFault]):
    """Answer chat completions on loopback; the real `openai` and `langchain-openai` clients work against it.

    Without a script it answers what the local thinker reads in the prompt: a way to try the LLM path without a key.
    It knows `json_schema`, tools, `json_object`, plain text and streaming. An agent decides by itself when to call a
    tool, so the calls are part of the script: `chat.reply(ToolCall("draw_image", {"prompt": "a fox"}), times=1)`.

    Example:
        with LocalChat() as chat:
            chat.reply(form("a fox in the snow", subject="animal", styles=["watercolor"]))
            llm = ChatOpenAI(model="local", base_url=chat.url, api_key="any", max_retries=0)
            thought = LLMThinker(llm, local=LocalThinker()).think("draw a fox in the snow", (), nodes)
            chat.fail("status", status=429)
    """

    _handler = ChatHandler
    _fault = ChatFault

    def __init__(self, answer: Answer = read_by_rule) -> None:
        super().__init__()
        self._answer = answer
        self._replies: list[Answer] = []

    def reply(self, answer: Answer, *, times: int | None = None) -> None:
        """Give this answer from now on, or a number of times first.

        Args:
            answer: A mapping or text, a `ToolCall`, `None` for a message without content, or a function of the request.
            times: How often, before the standing answer; such answers queue up.
        """
        with self._lock:
            if times is None:
                self._answer = answer
            else:
                self._replies += [answer] * times

    def content_for(self, request: ChatRequest, fault: ChatFault | None) -> str | ToolCall | None:
        """The content of the answer to a request; called by the handler."""
        with self._lock:
            answer = self._replies.pop(0) if self._replies else self._answer
        reply = answer(request) if callable(answer) else answer
        if fault is None or fault.kind != "malformed":
            return reply if isinstance(reply, ToolCall) else as_text(reply)
        return fault.spoil(dict(reply) if isinstance(reply, Mapping) and "votes" in reply else form(request.prompt))


def _texts(body: Mapping[str, Any], role: str) -> list[str]:
    messages = [message for message in body.get("messages") or () if message.get("role") == role]
    return [_text(message.get("content")) for message in messages]


def _text(content: object) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return str(content or "")
