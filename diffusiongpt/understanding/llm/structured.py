"""One call to an LLM for structured output: it ends by a deadline, and each failure has a reason in plain words."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextvars import copy_context
from dataclasses import dataclass
from threading import Thread
from typing import Any, Literal, cast, get_args

from pydantic import BaseModel

from diffusiongpt.errors import SettingsError
from diffusiongpt.understanding.llm.form import find_object
from diffusiongpt.understanding.llm.limits import (
    MAX_ABANDONED,
    MAX_CHARS,
    AnswerTooLargeError,
    Limits,
    OtherHostError,
)

Method = Literal["json_schema", "function_calling", "json_mode", "text"]
"""Ways to get a structured answer from an LLM: LangChain's three, and JSON in plain text."""

_RATE_LIMIT_WAIT_S = 1.0
_LONGEST_WAIT_S = 5.0
_GRACE_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why there is no answer.

    Attributes:
        reason: One plain sentence, which quotes neither the LLM nor the provider nor the key.
        remedy: What may help: the same call `again`, an`other` method, `plain` text, or `nothing`.
        wait_s: Seconds to wait before the next call.
    """

    reason: str
    remedy: Literal["again", "other", "plain", "nothing"]
    wait_s: float = 0.0


def methods_of(llm: Any, wanted: Method | None = None) -> tuple[Method, ...]:
    """Methods in the order to try them: the model's own default, JSON with the schema spelt out, plain text.

    Each method fails in its own way: `json_schema` raises even where it should not, `function_calling` returns
    nothing, and an older server ignores parameters that it does not know. So the raw message is read with each.

    Args:
        llm: A LangChain chat model.
        wanted: The method to try first.

    Raises:
        SettingsError: If the model does not offer the wanted method.
    """
    make = getattr(llm, "with_structured_output", None)
    parameter = None if make is None else inspect.signature(make).parameters.get("method")
    default = getattr(parameter, "default", None)
    own = cast(Method, default if default in get_args(Method) else "function_calling")
    ladder: tuple[Method, ...] = (*(() if wanted is None else (wanted,)), own, "json_mode", "text")
    usable = [method for method in dict.fromkeys(ladder) if _offers(llm, method, own, choice=parameter is not None)]
    if wanted is not None and wanted not in usable:
        raise SettingsError(f"the LLM does not offer method={wanted!r}", hint=f"Choose one of {', '.join(usable)}.")
    return tuple(usable)


def runnable_for(llm: Any, method: Method, schema: dict[str, Any]) -> Any:
    """The model restricted to a schema, returning its raw message; `None` if it does not offer the method."""
    if method == "text":
        return llm
    make = getattr(llm, "with_structured_output", None)
    if make is None:
        return None
    parameters = inspect.signature(make).parameters
    options: dict[str, Any] = {"method": method} if "method" in parameters else {}
    if "strict" in parameters and method != "json_mode":
        options["strict"] = True
    try:
        runnable = make(schema, include_raw=True, **options)
    except (NotImplementedError, TypeError, ValueError, AttributeError):
        return None
    return _without_parser(runnable)


def ask(
    runnable: Any, messages: Sequence[tuple[str, str]], *, key: str, seconds: float, limit_s: float
) -> Mapping[str, Any] | Failure:
    """Call an LLM once and find the JSON object in its answer.

    Args:
        runnable: A model from `runnable_for`.
        messages: `(role, text)` pairs.
        key: A field that the object has, to distinguish it from others in the answer.
        seconds: Seconds after which the call is abandoned, even in the middle of a stream.
        limit_s: Seconds that all attempts share, for the reason of the failure.
    """
    _abandoned[:] = [thread for thread in _abandoned if thread.is_alive()]
    if len(_abandoned) >= MAX_ABANDONED:
        return Failure(reason=f"{len(_abandoned)} earlier calls of an LLM have not ended yet", remedy="nothing")
    future: Future[Any] = Future()
    # the waiting thread gives up first, and says so
    limits = Limits(max(seconds, 0.0) + _GRACE_S)
    # a daemon thread, since a provider that never returns must not keep the process alive
    context = copy_context()
    thread = Thread(target=context.run, args=(_settle, future, runnable, list(messages), limits), daemon=True)
    thread.start()
    try:
        error = future.exception(timeout=max(seconds, 0.0))
    except TimeoutError:
        limits.close()
        _abandoned.append(thread)
        return Failure(reason=f"the LLM did not answer within {limit_s:g} s", remedy="nothing")
    return _answer_in(future.result(), key) if error is None else failure_of(error)


def failure_of(error: BaseException) -> Failure:
    """What an exception of a provider means, whichever library raised it."""
    chain = list(_chain(error))
    names = " ".join(type(link).__name__ for link in chain)
    status = next((code for link in chain if (code := _status(link)) is not None), None)
    if status is not None:
        return _failure_of_status(status, chain)
    for kinds, pattern, failure in _FAILURES:
        if any(isinstance(link, kinds) for link in chain) or re.search(pattern, names):
            return failure
    return Failure(reason=f"the LLM failed with {type(error).__name__}", remedy="other")


def _offers(llm: Any, method: Method, own: Method, *, choice: bool) -> bool:
    """Whether a model has a method; one without a `method` parameter has only its own."""
    if method != "text" and not choice and method != own:
        return False
    return (
        runnable_for(llm, method, {"title": "form", "description": "A form.", "type": "object", "properties": {}})
        is not None
    )


def _without_parser(runnable: Any) -> Any:
    """The half that calls the model, without LangChain's parser, which takes minutes for long prose."""
    from langchain_core.runnables import RunnableParallel, RunnableSequence

    if isinstance(runnable, RunnableSequence) and isinstance(runnable.first, RunnableParallel):
        return runnable.first
    return runnable


_abandoned: list[Thread] = []
"""Threads of calls that were given up; those over HTTP end at once, those of other models when they like."""


def _settle(future: Future[Any], runnable: Any, messages: list[tuple[str, str]], limits: Limits) -> None:
    try:
        with limits.in_force():
            future.set_result(runnable.invoke(messages))
    except BaseException as error:  # noqa: BLE001  # a provider may raise anything; the waiting thread reports it
        future.set_exception(error)


def _answer_in(result: object, key: str) -> Mapping[str, Any] | Failure:
    if isinstance(result, Mapping) and "raw" in result:
        parsed = result.get("parsed")
        return parsed if isinstance(parsed, Mapping) and parsed else _answer_in(result["raw"], key)
    if isinstance(result, Mapping):
        return result or Failure(reason="the LLM's answer was empty", remedy="other")
    if isinstance(result, BaseModel) and not hasattr(result, "content"):
        return result.model_dump()
    return _answer_in_message(result, key)


def _answer_in_message(message: Any, key: str) -> Mapping[str, Any] | Failure:
    if (getattr(message, "additional_kwargs", None) or {}).get("refusal"):
        return Failure(reason="the LLM refused to answer", remedy="nothing")
    for call in getattr(message, "tool_calls", None) or ():
        if call.get("args"):
            return dict(call["args"])
    spoilt = "".join(call.get("args") or "" for call in getattr(message, "invalid_tool_calls", None) or ())
    text = spoilt or (message if isinstance(message, str) else str(getattr(message, "text", "")))
    if len(text) > MAX_CHARS:
        return _TOO_LONG
    if not text.strip():
        return Failure(reason="the LLM's answer was empty", remedy="other")
    found = find_object(text, key)
    if found is None:
        kind = "JSON that is not the form" if text.lstrip("`json \n").startswith(("{", "[")) else "prose"
        return Failure(reason=f"the LLM answered with {kind}", remedy="other")
    return found


_TOO_LONG = Failure(reason="the LLM's answer is longer than any form", remedy="other")

_FAILURES: tuple[tuple[tuple[type[BaseException], ...], str, Failure], ...] = (
    ((AnswerTooLargeError,), "TooLarge$", _TOO_LONG),
    (
        (OtherHostError,),
        "OtherHost$",
        Failure(reason="the LLM's server sends the prompt to another host, which was not followed", remedy="nothing"),
    ),
    ((TimeoutError,), "Timeout", Failure(reason="the LLM did not answer in time", remedy="again")),
    (
        (ConnectionRefusedError,),
        "ConnectError",
        Failure(reason="could not reach the LLM: its server refused the connection or does not exist", remedy="again"),
    ),
    (
        (OSError,),
        "Connection|ProtocolError",
        Failure(reason="the LLM's server closed the connection before it answered", remedy="again"),
    ),
    ((), "Refusal|ContentFilter", Failure(reason="the LLM refused to answer", remedy="nothing")),
    ((), "LengthFinish", Failure(reason="the LLM's answer was cut off at its length limit", remedy="other")),
    (
        (AttributeError, LookupError, TypeError, ValueError),
        "Validation",
        Failure(reason="the answer is not that of a chat model", remedy="other"),
    ),
)
"""What exceptions mean, by class or by name, since every provider has its own classes; the first match counts."""


def _failure_of_status(status: int, chain: Sequence[BaseException]) -> Failure:
    if status == 429:
        wait = next((s for link in chain if (s := _retry_after(link)) is not None), _RATE_LIMIT_WAIT_S)
        remedy: Literal["again", "nothing"] = "again" if wait <= _LONGEST_WAIT_S else "nothing"
        return Failure(reason="the LLM is over its rate limit or quota (429)", remedy=remedy, wait_s=wait)
    if status in (401, 403):
        return Failure(reason=f"the LLM does not accept the key ({status})", remedy="nothing")
    if status == 404:
        return Failure(reason="the LLM's server has no such model or address (404)", remedy="nothing")
    if status in (408, 409) or status >= 500:
        return Failure(reason=f"the LLM's server failed ({status})", remedy="again")
    return Failure(reason=f"the LLM's server rejected the request ({status})", remedy="plain")


def _status(error: BaseException) -> int | None:
    places = (error, getattr(error, "response", None))
    codes = (getattr(place, name, None) for place in places for name in ("status_code", "code"))
    return next((code for code in codes if type(code) is int and 400 <= code < 600), None)


def _retry_after(error: BaseException) -> float | None:
    headers = getattr(getattr(error, "response", None), "headers", None)
    text = str(headers.get("retry-after", "")) if isinstance(headers, Mapping) else ""
    return float(text) if text.isdecimal() else None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
