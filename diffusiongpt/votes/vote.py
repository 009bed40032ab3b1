"""Votes and ratings: what people said about pictures, checked when they are made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal, TypeVar, get_args
from uuid import uuid4

from diffusiongpt.errors import VoteError

STRICT = {"extra": "forbid"}
"""What pydantic is told where it reads votes and ratings from a file."""


def new_id() -> str:
    """An id that nobody else has."""
    return uuid4().hex


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat()


def is_number(value: object) -> bool:
    """Whether it is a finite number; `True` is none."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


def check_text(name: str, value: object, *, may_be_empty: bool = False) -> None:
    """Check that a field is text that any database takes.

    Raises:
        VoteError: If it is none, blank, or binary data.
    """
    if not isinstance(value, str) or not (value.strip() or may_be_empty):
        raise VoteError(f"{name} of a vote must be text, not {value!r}", hint=f"Pass a {name}.")
    # Databases take neither: half of a surrogate pair is no character, and PostgreSQL ends text at NUL.
    if "\0" in value or not _has_characters_only(value):
        raise VoteError(f"{name} of a vote holds binary data", hint="Pass text.")


def _has_characters_only(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def checked_evidence(evidence: Mapping[str, float]) -> dict[str, float]:
    """Probabilities per taxonomy node.

    Raises:
        VoteError: If a value is no probability.
    """
    for node, p in evidence.items():
        check_text("evidence", node)
        if not is_number(p) or not 0 <= p <= 1:
            raise VoteError(f"evidence of {node!r} is {p!r}, not a probability", hint="Use a number from 0 to 1.")
    return {node: float(p) for node, p in evidence.items()}


def as_utc(time: str) -> str:
    """A time in UTC, so that times can be compared as text; without a zone it is taken to be UTC.

    Raises:
        VoteError: If it is not ISO 8601.
    """
    try:
        moment = datetime.fromisoformat(time)
        return (moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()
    except (TypeError, ValueError, OverflowError) as error:
        raise VoteError(f"time {time!r} is not ISO 8601", hint="Write it like 2026-01-31T12:00:00+00:00.") from error


Outcome = Literal["win", "tie", "both_bad"]

FEWEST_SHOWN = 2
"""A choice needs an alternative."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One picture of a ballot.

    Attributes:
        expert: Id of the expert that drew it.
        propensity: Probability that this expert was shown, in (0, 1]; kept for off-policy correction.
        seed: Seed of the picture.
        ranking_version: Version of the table that chose it.
    """

    __pydantic_config__: ClassVar = STRICT

    expert: str
    propensity: float = 1.0
    seed: int | None = None
    ranking_version: str = "r0"

    def __post_init__(self) -> None:
        check_text("expert", self.expert)
        check_text("ranking_version", self.ranking_version)
        if not is_number(self.propensity) or not 0 < self.propensity <= 1:
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

    __pydantic_config__: ClassVar = STRICT

    prompt: str
    shown: tuple[Shown, ...]
    outcome: Outcome
    winner: str | None = None
    evidence: Mapping[str, float] = field(default_factory=dict)
    voter: str = "me"
    source: str = "human"
    weight: float = 1.0
    ballot: str | None = None
    id: str = field(default_factory=new_id)
    time: str = field(default_factory=now)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shown", tuple(self.shown))
        object.__setattr__(self, "evidence", checked_evidence(self.evidence))
        object.__setattr__(self, "time", as_utc(self.time))
        check_text("prompt", self.prompt, may_be_empty=True)
        for name in ("voter", "source", "id"):
            check_text(name, getattr(self, name))
        if self.ballot is not None:
            check_text("ballot", self.ballot)
        if not is_number(self.weight) or self.weight <= 0:
            raise VoteError(f"weight {self.weight!r} is not positive", hint="Use 1.0 for an ordinary vote.")
        self._check_ballot()

    @property
    def experts(self) -> tuple[str, ...]:
        """Ids of the experts shown, in order."""
        return tuple(shown.expert for shown in self.shown)

    @property
    def said(self) -> tuple[object, ...]:
        """Who said what about what; two votes of one id that differ in it contradict each other."""
        return self.prompt, frozenset(self.experts), self.outcome, self.winner, self.voter

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

    def to_record(self) -> dict[str, Any]:
        """The vote as plain values that JSON and a database row can hold."""
        # not dataclasses.asdict, whose deep copies take as long as all the rest of reading a large store
        record = {one.name: getattr(self, one.name) for one in fields(self)}
        shown = [{one.name: getattr(each, one.name) for one in fields(each)} for each in self.shown]
        return {**record, "evidence": dict(self.evidence), "shown": shown}

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


@dataclass(frozen=True, kw_only=True)
class Rating:
    """One expert's picture for one prompt, rated; checked when made, never changed afterwards.

    Attributes:
        prompt: What the picture was drawn from.
        expert: Id of the expert that drew it.
        rating: Higher is better. The scale is that of the source, which should keep to one.
        evidence: Probability per taxonomy node, as the route had it.
        voter: Who rated.
        source: What kind of judge: `"human"`, or the name of a reward model such as `"image_reward"`.
        seed: Seed of the picture.
        ranking_version: Version of the table that chose the expert.
        id: Unique; the fit sorts by it.
        time: UTC, ISO 8601.

    Raises:
        VoteError: If a field makes no sense.
    """

    __pydantic_config__: ClassVar = STRICT

    prompt: str
    expert: str
    rating: float
    evidence: Mapping[str, float] = field(default_factory=dict)
    voter: str = "me"
    source: str = "human"
    seed: int | None = None
    ranking_version: str = "r0"
    id: str = field(default_factory=new_id)
    time: str = field(default_factory=now)

    def __post_init__(self) -> None:
        check_text("prompt", self.prompt, may_be_empty=True)
        for name in ("expert", "voter", "source", "ranking_version", "id"):
            check_text(name, getattr(self, name))
        if not is_number(self.rating):
            raise VoteError(f"rating {self.rating!r} is not a number", hint="Use a finite number; higher is better.")
        object.__setattr__(self, "rating", float(self.rating))
        object.__setattr__(self, "evidence", checked_evidence(self.evidence))
        object.__setattr__(self, "time", as_utc(self.time))

    @property
    def experts(self) -> tuple[str, ...]:
        """The expert, as votes have several."""
        return (self.expert,)

    @property
    def said(self) -> tuple[object, ...]:
        """Who said what about what; two of one id that differ in it contradict each other."""
        return self.prompt, self.expert, self.rating, self.voter

    def to_record(self) -> dict[str, Any]:
        """The rating as plain values that JSON and a database row can hold."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Rating:
        """The rating of `to_record`.

        Raises:
            VoteError: If the record is not one of a rating.
        """
        try:
            return cls(**record)
        except (TypeError, AttributeError) as error:
            raise VoteError(f"not the record of a rating: {error}", hint="Was it written by this package?") from error


Entry = TypeVar("Entry", Vote, Rating)
"""What a vote store keeps."""
