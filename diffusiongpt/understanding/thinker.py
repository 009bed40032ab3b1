"""What a thinker, which reads prompts, takes and returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from diffusiongpt.flow import ThinkerName, Understanding
from diffusiongpt.understanding.clauses import Clauses
from diffusiongpt.zoo import Node


@dataclass(frozen=True, kw_only=True)
class Thought:
    """A thinker's reading of a prompt.

    Attributes:
        understanding: The prompt in a closed vocabulary.
        values: Probability, for each node that was asked about, that the prompt belongs to it; subjects
            sum to at most one, and so do styles.
        matched: For each node that the text names, the words that matched it.
        thinker: `llm`, `local`, or `local-fallback` if the LLM did not answer.
        embedder: Name of the embedder that was used; `None` if there was none.
        llm_calls: Number of calls of the LLM.
        fallback_reason: Why the LLM did not answer, with `local-fallback`.
        clauses: What the clauses of the understanding's prompt are about, where they have been read.
    """

    understanding: Understanding
    values: Mapping[str, float]
    matched: Mapping[str, str]
    thinker: ThinkerName
    embedder: str | None = None
    llm_calls: int = 0
    fallback_reason: str | None = None
    clauses: Clauses | None = None


class Thinker(Protocol):
    """Anything that reads prompts."""

    def think(self, prompt: str, history: Sequence[str], nodes: Sequence[Node]) -> Thought:
        """Read a prompt.

        Args:
            prompt: What the person typed, already checked.
            history: Earlier prompts of the conversation, oldest first.
            nodes: The taxonomy nodes to judge.

        Returns:
            The reading, with a probability from 0 to 1 for each of the nodes. It does not raise: where something that
            it relies on fails, it falls back and says so in `fallback_reason`.
        """
        ...
