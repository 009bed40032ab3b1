"""The LLM thinker: one structured call reads the prompt, and the local thinker answers whenever that fails."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from diffusiongpt.errors import SettingsError
from diffusiongpt.taxonomy import Node
from diffusiongpt.thinkers.base import Thought
from diffusiongpt.thinkers.llm_ballots import ballot_below, first_ballot
from diffusiongpt.thinkers.llm_call import Failure, Method, ask, methods_of, runnable_for
from diffusiongpt.thinkers.llm_merge import merge, weigh
from diffusiongpt.thinkers.llm_models import model_from, name_of
from diffusiongpt.thinkers.llm_prompt import messages_for
from diffusiongpt.thinkers.llm_schema import Ballot, Reading, read_reply
from diffusiongpt.thinkers.local import LocalThinker

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

log = logging.getLogger("diffusiongpt")

TIMEOUT_S = 30.0
"""Seconds a prompt may wait for the LLM in all, a second try included."""


class LLMThinker:
    """Reads a prompt with an LLM, and never fails: without an answer it is the local thinker's.

    The LLM fills in a closed form and votes on categories; it never sees an expert's name and never ranks.
    What the text says literally is read by code and wins. One try more is made at most, and only where it may
    help. Threads may share one.

    A model given as an object keeps its own retries and timeouts: make it with `max_retries=0`, or its calls
    are more than `llm_calls` says.

    Args:
        llm: `"provider:model"` for LangChain's `init_chat_model`, or any chat model.
        local: The thinker that reads literals, weighs in, and stands in.
        timeout_s: Seconds a prompt may wait in all.
        budget: Calls a prompt may cost, the second try aside; more than one matters only for trees that are
            asked level by level.
        method: How to ask; `None` for the model's own default.

    Raises:
        SettingsError: If an argument makes no sense.
        NeedsExtraError: If the provider's package is not installed.
    """

    def __init__(
        self,
        llm: str | BaseChatModel,
        *,
        local: LocalThinker,
        timeout_s: float = TIMEOUT_S,
        budget: int = 1,
        method: Method | None = None,
    ) -> None:
        if timeout_s <= 0:
            raise SettingsError(f"timeout_s={timeout_s!r} is out of range", hint="Give seconds, for example 30.")
        if budget < 1:
            raise SettingsError(f"budget={budget!r} allows no call", hint="Use llm=None for the local thinker.")
        self.name = name_of(llm)
        self._local = local
        self._timeout_s = timeout_s
        self._budget = budget
        self._llm: Any = model_from(llm, timeout_s)
        self._methods = () if isinstance(self._llm, Failure) else methods_of(self._llm, method)

    def __repr__(self) -> str:
        """The model and the patience with it."""
        return f"<LLMThinker {self.name}, {self._timeout_s:g} s>"

    def think(self, prompt: str, history: Sequence[str], nodes: Sequence[Node]) -> Thought:
        """Read a prompt; see `Thinker.think`."""
        local = self._local.think(prompt, history, nodes)
        if isinstance(self._llm, Failure):
            return _fallback(local, self._llm, calls=0)
        talk = _Talk(self._llm, self._methods, prompt, history, self._timeout_s, monotonic() + self._timeout_s)
        answer = talk.read(local, nodes, self._budget)
        if isinstance(answer, Failure):
            return _fallback(local, answer, calls=talk.calls)
        reading, values = answer
        thought = merge(local, reading, values, nodes, prompt=prompt, history=history)
        return replace(thought, llm_calls=talk.calls)


@dataclass
class _Talk:
    """The calls about one prompt: one deadline and one second try for all of them."""

    llm: Any
    methods: tuple[Method, ...]
    prompt: str
    history: Sequence[str]
    limit_s: float
    deadline: float
    calls: int = 0
    tried_again: bool = False

    def read(self, local: Thought, nodes: Sequence[Node], budget: int) -> tuple[Reading, dict[str, float]] | Failure:
        """The answer about the prompt with all voices, and the probability of each node; or why there is none."""
        ballot = first_ballot(nodes, local.values)
        first = self.ask(ballot)
        if isinstance(first, Failure):
            return first
        values = weigh(local, local.values, first, ballot, nodes)
        voices, asked = first.voices, ballot.ids()
        for _ in range(1, budget):
            below = ballot_below(asked, values, nodes)
            more = None if below is None else self.ask(below)
            if below is None or not isinstance(more, Reading):
                break
            values = weigh(local, values, more, below, nodes)
            voices, asked = voices + more.voices, asked | below.ids()
        return replace(first, voices=voices), values

    def ask(self, ballot: Ballot) -> Reading | Failure:
        """The usable part of an answer, or why there is none."""
        answer = self._once(ballot, self.methods[0])
        if not isinstance(answer, Failure) or self.tried_again or not self._may_help(answer):
            return answer
        self.tried_again = True
        sleep(answer.wait_s)
        second = self._once(ballot, _next_method(self.methods, answer))
        return _both(answer, second) if isinstance(second, Failure) else second

    def _may_help(self, failure: Failure) -> bool:
        return failure.remedy != "nothing" and monotonic() + failure.wait_s < self.deadline

    def _once(self, ballot: Ballot, method: Method) -> Reading | Failure:
        schema = ballot.schema()
        runnable = runnable_for(self.llm, method, schema)
        if runnable is None:
            return Failure(reason=f"the LLM does not offer {method}", remedy="other")
        written = schema if method in ("json_mode", "text") else None
        messages = messages_for(self.prompt, self.history, ballot, schema=written)
        self.calls += 1
        answer = ask(runnable, messages, seconds=self.deadline - monotonic(), limit_s=self.limit_s)
        return answer if isinstance(answer, Failure) else _usable(read_reply(answer, ballot))


def _usable(reading: Reading) -> Reading | Failure:
    if reading.invented:
        log.info("the LLM named %d categories that do not exist; they are ignored", reading.invented)
    if reading.voices:
        return reading
    if reading.invented:
        return Failure(reason="the LLM named only categories that do not exist", remedy="other")
    return Failure(reason="the LLM's answer holds no usable vote", remedy="other")


def _next_method(methods: tuple[Method, ...], failure: Failure) -> Method:
    """What to try next: a rejected request says the least in plain text, a muddled answer gets the schema spelt out."""
    if failure.remedy == "again":
        return methods[0]
    return methods[-1] if failure.remedy == "plain" or len(methods) == 1 else methods[1]


def _both(first: Failure, second: Failure) -> Failure:
    if first.reason == second.reason:
        return replace(second, reason=f"{first.reason}, twice")
    return replace(second, reason=f"{first.reason}; on the second try, {second.reason}")


def _fallback(local: Thought, failure: Failure, *, calls: int) -> Thought:
    log.warning("%s; the local thinker reads the prompt instead", failure.reason)
    return replace(local, thinker="local-fallback", llm_calls=calls, fallback_reason=failure.reason)
