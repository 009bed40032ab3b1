"""A few calls of an LLM about one matter: one deadline and one second try for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from time import monotonic, sleep
from typing import Any, Protocol, TypeVar

from diffusiongpt.thinkers.llm_call import Failure, Method, ask, runnable_for

Answer_co = TypeVar("Answer_co", covariant=True)
Answer = TypeVar("Answer")


class Question(Protocol[Answer_co]):
    """Something to ask an LLM, and how to read what it says."""

    @property
    def key(self) -> str:
        """A field every answer has, by which it is found among other text."""
        ...

    def schema(self) -> dict[str, Any]:
        """JSON schema of the answer."""
        ...

    def messages(self, schema: dict[str, Any] | None) -> list[tuple[str, str]]:
        """What is said, as `(role, text)`, with the schema written out if there is one."""
        ...

    def read(self, answer: Mapping[str, Any]) -> Answer_co | Failure:
        """What is usable of an answer, or why nothing is."""
        ...


@dataclass
class Talk:
    """Calls of one LLM that share a deadline and a second try.

    Attributes:
        llm: A LangChain chat model.
        methods: Ways to ask it, the first one first.
        limit_s: Seconds all calls together may take.
        deadline: When they end, on the monotonic clock.
        calls: Calls made.
        tried_again: Whether the second try is spent.
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
        sleep(answer.wait_s)
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
        self.calls += 1
        seconds = self.deadline - monotonic()
        answer = ask(runnable, messages, key=question.key, seconds=seconds, limit_s=self.limit_s)
        return answer if isinstance(answer, Failure) else question.read(answer)


def _next_method(methods: tuple[Method, ...], failure: Failure) -> Method:
    """What to try next: a rejected request says the least in plain text, a muddled answer gets the schema spelt out."""
    if failure.remedy == "again":
        return methods[0]
    return methods[-1] if failure.remedy == "plain" or len(methods) == 1 else methods[1]


def _both(first: Failure, second: Failure) -> Failure:
    if first.reason == second.reason:
        return replace(second, reason=f"{first.reason}, twice")
    return replace(second, reason=f"{first.reason}; on the second try, {second.reason}")
