"""One reading for all that a turn of a conversation has routed: its description, or its order to an editor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from diffusiongpt.understanding.thinker import Thinker, Thought
from diffusiongpt.understanding.turn_kinds import TurnKind
from diffusiongpt.zoo import Node


@dataclass(frozen=True, kw_only=True)
class TurnReading:
    """A thinker's reading of a turn.

    Attributes:
        kind: What it asks for; `None` if the thinker cannot say.
        thought_of: The thought about a text that the turn leads to, with no further call of an LLM.
    """

    kind: TurnKind | None
    thought_of: Callable[[str], Thought]


@runtime_checkable
class ReadsTurns(Protocol):
    """A thinker that reads turns as a whole."""

    def read_turn(self, text: str, earlier: Sequence[str], nodes: Sequence[Node]) -> TurnReading:
        """Read a turn.

        Args:
            text: What the person typed.
            earlier: Descriptions of the pictures before it, oldest first.
            nodes: The taxonomy nodes to judge.
        """
        ...


class TurnThinker:
    """A thinker that reads a turn once, where the thinker that it asks can, however many texts are then routed.

    Args:
        thinker: Reads prompts, and turns if it can.
    """

    def __init__(self, thinker: Thinker) -> None:
        self._thinker = thinker
        self._turn: ContextVar[TurnReading | None] = ContextVar("turn", default=None)

    def think(self, prompt: str, history: Sequence[str], nodes: Sequence[Node]) -> Thought:
        """Read a prompt, in a turn as the turn was read; see `Thinker.think`."""
        turn = self._turn.get()
        return turn.thought_of(prompt) if turn else self._thinker.think(prompt, history, nodes)

    @contextmanager
    def turn(self, text: str, earlier: Sequence[str], nodes: Sequence[Node]) -> Iterator[TurnKind | None]:
        """Read a turn, and all texts in the block as it was read.

        Yields:
            What it asks for; `None` if that is left to the local rule.
        """
        reading = self._thinker.read_turn(text, earlier, nodes) if isinstance(self._thinker, ReadsTurns) else None
        token = self._turn.set(reading)
        try:
            yield reading.kind if reading else None
        finally:
            self._turn.reset(token)
