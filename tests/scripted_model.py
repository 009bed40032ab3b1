"""A chat model in the process, for tests that need no server; imports LangChain."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field

from diffusiongpt.testing import as_text


class ScriptedChatModel(BaseChatModel):
    """Gives the answers of a script; LangChain's own fakes cannot be bound to a schema.

    Example:
        llm = ScriptedChatModel(answer=form("a fox", subject="animal"))
        DiffusionGPT("tiny", llm=llm)

    Attributes:
        answer: A mapping, text, `None` for no content, an exception to raise, or a function of the messages
            that returns one of these.
        takes_tools: Whether it can be bound to a schema; otherwise it only writes text.
        asked: The messages of every call.
    """

    answer: Any = None
    takes_tools: bool = True
    asked: list[list[BaseMessage]] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[Any, AIMessage]:
        """Bind the first of these tools."""
        if not self.takes_tools:
            raise NotImplementedError
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:  # noqa: ARG002  # LangChain's signature
        self.asked.append(messages)
        answer = self.answer(messages) if isinstance(self.answer, Callable) else self.answer  # type: ignore[arg-type]
        if isinstance(answer, BaseException):
            raise answer
        return ChatResult(generations=[ChatGeneration(message=_message(as_text(answer), kwargs.get("tools")))])


def _message(text: str | None, tools: list[dict[str, Any]] | None) -> AIMessage:
    if not tools or text is None:
        return AIMessage(content=text or "")
    name = tools[0]["function"]["name"]
    try:
        arguments = json.loads(text)
    except (ValueError, RecursionError):
        arguments = None
    if isinstance(arguments, dict):
        return AIMessage(content="", tool_calls=[{"name": name, "args": arguments, "id": "call_1"}])
    spoilt = {"name": name, "args": text, "id": "call_1", "error": None}
    return AIMessage(content="", invalid_tool_calls=[{**spoilt, "type": "invalid_tool_call"}])
