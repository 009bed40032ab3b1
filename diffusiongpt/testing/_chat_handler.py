"""How the local chat server answers: the one route that chat clients ask for, and the ways it can go wrong."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from diffusiongpt.testing._provider_handler import ProviderHandler

if TYPE_CHECKING:
    from diffusiongpt.testing._provider import ProviderFault
    from diffusiongpt.testing.chat import ChatFault, ChatRequest

_PIECE = 40


class ChatHandler(ProviderHandler):
    """One connection to a `LocalChat`."""

    server_version = "LocalChat"

    def _serve(self, body: dict[str, Any]) -> None:
        from diffusiongpt.testing.chat import ChatRequest

        if not isinstance(body.get("messages"), list):
            self._refuse(400)
            return
        request = ChatRequest(path=self.path, body=body, key=self._key)
        self._service.note(request)
        if not self.path.endswith("/chat/completions"):
            self._refuse(404)
            return
        fault = self._service.take_fault()
        if not self._go_wrong(fault):
            self._answer(request, fault)

    def _go_wrong(self, fault: ProviderFault | None) -> bool:
        if fault is not None and fault.kind == "no choices":
            self._send_json({"id": "chatcmpl-local", "object": "chat.completion", "model": "local", "choices": None})
            return True
        return super()._go_wrong(fault)

    def _answer(self, request: ChatRequest, fault: ChatFault | None) -> None:
        content = self._service.content_for(request, fault)
        if request.body.get("stream"):
            self._stream(content or "", stalled=fault is not None and fault.kind == "stalled")
            return
        refused = fault is not None and fault.kind == "refusal"
        body = json.dumps(_completion(request, None if refused else content, refused=refused)).encode()
        if fault is not None and fault.kind == "stalled":
            self._drip(body)
        else:
            self._send(body, "application/json")

    def _stream(self, content: str, *, stalled: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        pieces = [content[at : at + _PIECE] for at in range(0, len(content), _PIECE)]
        for piece in pieces[: 1 if stalled else None]:
            self._send_event({"role": "assistant", "content": piece}, None)
        if stalled:
            self._service.stopping.wait()
        else:
            self._send_event({}, "stop")
            self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def _send_event(self, delta: dict[str, Any], finish: str | None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        event = {"id": "chatcmpl-local", "object": "chat.completion.chunk", "created": 0, "model": "local"}
        self.wfile.write(f"data: {json.dumps({**event, 'choices': [choice]})}\n\n".encode())


def _completion(request: ChatRequest, content: str | None, *, refused: bool) -> dict[str, Any]:
    """A completion in OpenAI's shape: content, or the arguments of the tool the client asked for."""
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    finish = "stop"
    if refused:
        message["refusal"] = "I'm sorry, I can't help with that."
    elif request.method == "function_calling" and content is not None:
        name = request.body["tools"][0]["function"]["name"]
        call = {"id": "call_local", "type": "function", "function": {"name": name, "arguments": content}}
        message |= {"content": None, "tool_calls": [call]}
        finish = "tool_calls"
    return {
        "id": "chatcmpl-local",
        "object": "chat.completion",
        "created": 0,
        "model": str(request.body.get("model", "local")),
        "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
        "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    }
