"""A vote: what a person saw, what they chose, and how likely each picture was to be shown."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, get_args
from uuid import uuid4

from diffusiongpt.errors import VoteError

if TYPE_CHECKING:
    from collections.abc import Mapping

Outcome = Literal["win", "tie", "both_bad"]

FEWEST_SHOWN = 2
"""A choice needs an alternative."""


def _new_id() -> str:
    return uuid4().hex


def _now() -> str:
    return datetime.now(UTC).isoformat()


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One picture of a ballot.

    Attributes:
        expert: Id of the expert that drew it.
        propensity: Probability that this expert was shown, in (0, 1]; kept for off-policy correction.
        seed: Seed of the picture.
        ranking_version: Version of the table that chose it.
    """

    expert: str
    propensity: float = 1.0
    seed: int | None = None
    ranking_version: str = "r0"

    def __post_init__(self) -> None:
        _check_text("expert", self.expert)
        if not _is_number(self.propensity) or not 0 < self.propensity <= 1:
            raise VoteError(
                f"propensity {self.propensity!r} of {self.expert!r} is not in (0, 1]",
                hint="Pass the probability with which it was shown, 1.0 if it always is.",
            )


@dataclass(frozen=True, kw_only=True)
class Vote:
    """One ballot and its outcome; checked when made, never changed afterwards.

    Attributes:
        prompt: What the pictures were drawn from.
        shown: The pictures, at least two, in the order they were shown.
        outcome: `"win"`; `"tie"`, all equally good; `"both_bad"`, none will do.
        winner: Expert id, for a win only.
        evidence: Probability per taxonomy node, as the route had it.
        voter: Who chose.
        source: What kind of judge, such as `"human"`.
        weight: How many ordinary votes it counts for.
        ballot: Shared by votes that were cast at once, for example the pairs of one k-way ballot.
        id: Unique; the fit sorts by it.
        time: UTC, ISO 8601.

    Raises:
        VoteError: If it contradicts itself.
    """

    prompt: str
    shown: tuple[Shown, ...]
    outcome: Outcome
    winner: str | None = None
    evidence: Mapping[str, float] = field(default_factory=dict)
    voter: str = "me"
    source: str = "human"
    weight: float = 1.0
    ballot: str | None = None
    id: str = field(default_factory=_new_id)
    time: str = field(default_factory=_now)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shown", tuple(self.shown))
        object.__setattr__(self, "evidence", {node: float(p) for node, p in self.evidence.items()})
        object.__setattr__(self, "time", _utc(self.time))
        _check_text("prompt", self.prompt, may_be_empty=True)
        for name in ("voter", "source", "id"):
            _check_text(name, getattr(self, name))
        self._check_ballot()
        self._check_numbers()

    @property
    def experts(self) -> tuple[str, ...]:
        """Ids of the experts shown, in order."""
        return tuple(shown.expert for shown in self.shown)

    def _check_ballot(self) -> None:
        if self.outcome not in get_args(Outcome):
            known = ", ".join(get_args(Outcome))
            raise VoteError(f"unknown outcome {self.outcome!r}", hint=f"Use one of: {known}.")
        if len(self.shown) < FEWEST_SHOWN:
            raise VoteError(f"a vote needs two pictures, got {len(self.shown)}", hint="Show at least two experts.")
        if len(set(self.experts)) < len(self.experts):
            raise VoteError(
                f"an expert cannot be compared with itself: {', '.join(self.experts)}",
                hint="Show each expert once.",
            )
        if self.outcome == "win" and self.winner not in self.experts:
            raise VoteError(f"winner {self.winner!r} was not shown", hint=f"Shown were: {', '.join(self.experts)}.")
        if self.outcome != "win" and self.winner is not None:
            raise VoteError(f"a {self.outcome} has no winner, got {self.winner!r}", hint="Leave the winner out.")

    def _check_numbers(self) -> None:
        if not _is_number(self.weight) or self.weight <= 0:
            raise VoteError(f"weight {self.weight!r} is not positive", hint="Use 1.0 for an ordinary vote.")
        for node, p in self.evidence.items():
            if not 0 <= p <= 1:
                raise VoteError(f"evidence of {node!r} is {p!r}, not a probability", hint="Use a number from 0 to 1.")

    def to_record(self) -> dict[str, Any]:
        """The vote as plain values that JSON and a database row can hold."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Vote:
        """The vote of `to_record`.

        Raises:
            VoteError: If the record is not one of a vote.
        """
        try:
            shown = tuple(Shown(**one) for one in record["shown"])
            return cls(**{**record, "shown": shown})
        except (KeyError, TypeError, AttributeError) as error:
            raise VoteError(f"not the record of a vote: {error}", hint="Was it written by this package?") from error


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_text(name: str, value: object, *, may_be_empty: bool = False) -> None:
    if not isinstance(value, str) or not (value.strip() or may_be_empty):
        raise VoteError(f"{name} of a vote must be text, not {value!r}", hint=f"Pass a {name}.")
    # Databases take neither: half of a surrogate pair is no character, and PostgreSQL ends text at NUL.
    if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
        raise VoteError(f"{name} of a vote holds binary data", hint="Pass text.")


def _utc(time: str) -> str:
    try:
        moment = datetime.fromisoformat(time)
    except (TypeError, ValueError) as error:
        raise VoteError(f"time {time!r} is not ISO 8601", hint="Write it like 2026-01-31T12:00:00+00:00.") from error
    return (moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()
