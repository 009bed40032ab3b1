"""From `"provider:model"` to a chat model, and calls of it that share a deadline and a second attempt."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from diffusiongpt.errors import NeedsExtraError, SettingsError
from diffusiongpt.stopping import pause
from diffusiongpt.understanding.llm.limits import bound_clients
from diffusiongpt.understanding.llm.structured import Failure, Method, ask, runnable_for

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel


_SPEC_HINT = "Write it as 'provider:model', for example 'openai:MODEL' or 'ollama:MODEL'."


def model_from(llm: str | BaseChatModel, timeout_s: float) -> Any:
    """The chat model of a specification.

    Args:
        llm: `"provider:model"`, or a chat model, which is returned as it is.
        timeout_s: Seconds that a client made here waits for one answer.

    Returns:
        A LangChain model, or a `Failure` if only its key is missing: without a key there is still a route.

    Raises:
        SettingsError: If LangChain does not know the provider, or `llm` is not a chat model.
        NeedsExtraError: If the provider's package is not installed.
    """
    if isinstance(llm, str):
        return _from_spec(llm, timeout_s)
    from langchain_core.runnables import Runnable

    if not isinstance(llm, Runnable):
        raise SettingsError(f"llm must be text or a LangChain chat model, not {type(llm).__name__}", hint=_SPEC_HINT)
    return llm


def name_of(llm: object) -> str:
    """A readable name: the specification, or the class; never the settings, which may hold a key."""
    return llm if isinstance(llm, str) else type(llm).__name__


def _from_spec(spec: str, timeout_s: float) -> Any:
    provider, _, model = (part.strip() for part in spec.partition(":"))
    if not provider or not model:
        raise SettingsError(f"llm={spec!r} is not a model", hint=_SPEC_HINT)
    from langchain.chat_models import init_chat_model

    try:
        # hidden retries would be calls that `llm_calls` misses
        return init_chat_model(model, model_provider=provider, timeout=timeout_s, max_retries=0)
    except ImportError as error:
        package = re.search(r"pip install (?:-U )?['\"]?([\w.-]+\w(?:\[[\w,]+\])?)", str(error))
        name = package[1] if package else f"langchain-{provider.replace('_', '-')}"
        raise NeedsExtraError(f"llm={spec!r} needs the package {name}", hint=f"pip install {name}") from error
    except Exception as error:  # every provider has its own error for a missing key
        if type(error) is ValueError and "provider" in str(error):
            raise SettingsError(
                f"llm={spec!r}: LangChain does not know the provider {provider!r}", hint=_SPEC_HINT
            ) from error
        return Failure(reason=f"the LLM {spec} is not set up: its key is missing or wrong", remedy="nothing")


Answer_co = TypeVar("Answer_co", covariant=True)
Answer = TypeVar("Answer")


class Question(Protocol[Answer_co]):
    """A question to an LLM, and how to read the answer."""

    @property
    def key(self) -> str:
        """A field that every answer has, by which it is found among other text."""
        ...

    def schema(self) -> dict[str, Any]:
        """JSON schema of the answer."""
        ...

    def messages(self, schema: dict[str, Any] | None) -> list[tuple[str, str]]:
        """The messages, as `(role, text)`, with the schema written out if there is one."""
        ...

    def read(self, answer: Mapping[str, Any]) -> Answer_co | Failure:
        """The usable part of an answer, or why there is none."""
        ...


@dataclass
class Talk:
    """Calls of one LLM that share a deadline and a second attempt.

    LangChain's `with_retry` and `with_fallbacks` do not replace this: they know neither a deadline nor `Retry-After`,
    and choose the next attempt by its position, while here the kind of failure decides whether a second attempt is
    made, and with which method.

    Attributes:
        llm: A LangChain chat model.
        methods: Ways to ask it, in the order to try them.
        limit_s: Seconds that all calls together may take.
        deadline: End of that time on the monotonic clock.
        calls: Calls made so far.
        tried_again: Whether the second attempt is used up.
    """

    llm: Any
    methods: tuple[Method, ...]
    limit_s: float
    deadline: float
    calls: int = 0
    tried_again: bool = False

    @classmethod
    def begin(cls, llm: Any, methods: tuple[Method, ...], limit_s: float) -> Talk:
        """Start the clock."""
        return cls(llm, methods, limit_s, monotonic() + limit_s)

    def ask(self, question: Question[Answer]) -> Answer | Failure:
        """The usable part of an answer, or why there is none."""
        answer = self._once(question, self.methods[0])
        if not isinstance(answer, Failure) or self.tried_again or not self._may_help(answer):
            return answer
        self.tried_again = True
        pause(answer.wait_s)
        second = self._once(question, _next_method(self.methods, answer))
        return _both(answer, second) if isinstance(second, Failure) else second

    def _may_help(self, failure: Failure) -> bool:
        return failure.remedy != "nothing" and monotonic() + failure.wait_s < self.deadline

    def _once(self, question: Question[Answer], method: Method) -> Answer | Failure:
        schema = question.schema()
        runnable = runnable_for(self.llm, method, schema)
        if runnable is None:
            return Failure(reason=f"the LLM does not offer {method}", remedy="other")
        messages = question.messages(schema if method in ("json_mode", "text") else None)
        bound_clients(self.llm)
        self.calls += 1
        seconds = self.deadline - monotonic()
        answer = ask(runnable, messages, key=question.key, seconds=seconds, limit_s=self.limit_s)
        return answer if isinstance(answer, Failure) else question.read(answer)


def _next_method(methods: tuple[Method, ...], failure: Failure) -> Method:
    """The next method: plain text after a rejected request, the schema spelt out after a bad answer."""
    if failure.remedy == "again":
        return methods[0]
    return methods[-1] if failure.remedy == "plain" or len(methods) == 1 else methods[1]


def _both(first: Failure, second: Failure) -> Failure:
    if first.reason == second.reason:
        return replace(second, reason=f"{first.reason}, twice")
    return replace(second, reason=f"{first.reason}; on the second attempt, {second.reason}")
