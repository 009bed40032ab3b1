"""How the local chat server answers: the one route that chat clients ask for, and the ways it can go wrong."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusiongpt.testing.chat import ChatFault, ChatRequest, LocalChat

_DRIP_S = 0.05
_CODES = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}
_PIECE = 40


class ChatHandler(BaseHTTPRequestHandler):
    """One connection to a `LocalChat`."""

    protocol_version = "HTTP/1.1"
    server_version = "LocalChat"
    # head and body are two writes, and Nagle's algorithm would keep the second for 40 ms
    disable_nagle_algorithm = True

    @property
    def _chat(self) -> LocalChat:
        return self.server.service  # type: ignore[attr-defined, no-any-return]  # the server is always a chat's own

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name is the standard library's
        """Stay silent; requests are in `LocalChat.requests`."""

    def do_GET(self) -> None:
        """List the one model."""
        if self.path.rstrip("/").endswith("/models"):
            self._send_json(
                {"object": "list", "data": [{"id": "local", "object": "model", "owned_by": "diffusiongpt"}]}
            )
        else:
            self._refuse(404)

    def do_POST(self) -> None:
        """Answer a chat completion."""
        from diffusiongpt.testing.chat import ChatRequest

        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            body = json.loads(raw)
        except ValueError:
            body = None
        if not isinstance(body, dict) or not isinstance(body.get("messages"), list):
            self._refuse(400)
            return
        key = self.headers.get("Authorization", "").removeprefix("Bearer ")
        request = ChatRequest(path=self.path, body=body, key=key)
        self._chat.note(request)
        if not self.path.endswith("/chat/completions"):
            self._refuse(404)
            return
        fault = self._chat.take_fault()
        if not self._go_wrong(fault):
            self._answer(request, fault)

    def _go_wrong(self, fault: ChatFault | None) -> bool:
        """Fail in a way that needs no answer; whether it did."""
        kind = fault.kind if fault else ""
        if fault is not None and kind == "status":
            self._refuse(fault.status, retry_after=fault.retry_after)
        elif kind == "silent":
            self._chat.stopping.wait()
            self.close_connection = True
        elif kind == "closed":
            self.close_connection = True
        elif kind == "html":
            self._send(b"<html><body>Sign in to the hotel network</body></html>", "text/html")
        elif kind == "no choices":
            self._send_json({"id": "chatcmpl-local", "object": "chat.completion", "model": "local", "choices": None})
        else:
            return False
        return True

    def _answer(self, request: ChatRequest, fault: ChatFault | None) -> None:
        content = self._chat.content_for(request, fault)
        if request.body.get("stream"):
            self._stream(content or "", stalled=fault is not None and fault.kind == "stalled")
            return
        refused = fault is not None and fault.kind == "refusal"
        body = json.dumps(_completion(request, None if refused else content, refused=refused)).encode()
        if fault is not None and fault.kind == "stalled":
            self._drip(body)
        else:
            self._send(body, "application/json")

    def _drip(self, body: bytes) -> None:
        """Send the head and then a byte now and again, so that no read of the client ever times out."""
        self._head(200, "application/json", len(body) + 1_000_000)
        for byte in body + b" " * 1_000_000:
            if self._chat.stopping.wait(_DRIP_S):
                break
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
        self.close_connection = True

    def _stream(self, content: str, *, stalled: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        pieces = [content[at : at + _PIECE] for at in range(0, len(content), _PIECE)]
        for piece in pieces[: 1 if stalled else None]:
            self._send_event({"role": "assistant", "content": piece}, None)
        if stalled:
            self._chat.stopping.wait()
        else:
            self._send_event({}, "stop")
            self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def _send_event(self, delta: dict[str, Any], finish: str | None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        event = {"id": "chatcmpl-local", "object": "chat.completion.chunk", "created": 0, "model": "local"}
        self.wfile.write(f"data: {json.dumps({**event, 'choices': [choice]})}\n\n".encode())

    def _refuse(self, status: int, *, retry_after: int | None = None) -> None:
        # as OpenAI does, the message quotes the key
        said = f"This failure was ordered by the test. Key: {self.headers.get('Authorization', '')}"
        error = {"message": said, "type": "error", "param": None}
        body = json.dumps({"error": {**error, "code": _CODES.get(status)}}).encode()
        self._head(status, "application/json", len(body), retry_after=retry_after)
        self.wfile.write(body)

    def _send_json(self, value: Any) -> None:
        self._send(json.dumps(value).encode(), "application/json")

    def _send(self, body: bytes, kind: str) -> None:
        self._head(200, kind, len(body))
        self.wfile.write(body)

    def _head(self, status: int, kind: str, length: int, *, retry_after: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        if retry_after is not None:
            self.send_header("Retry-After", str(retry_after))
        self.end_headers()


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
