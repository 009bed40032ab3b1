"""Votes and ratings: what people said about pictures, checked when they are made; and how they change."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal, TypeVar, get_args
from uuid import uuid4

from diffusiongpt.errors import VoteError

NAME_CHARS = 256
"""Longest name of an expert, a voter, a source, a ballot or a node. Those of the zoo have at most 80 characters."""

PROMPT_CHARS = 32_000
"""Longest prompt, the same as of a request."""

MOST_NODES = 128
"""Nodes in the evidence of one vote; a route knows about sixty."""

MOST_SHOWN = 100
"""Pictures on one ballot. A comparison shows 26 at most; a ranking from elsewhere may be longer."""

MOST_WEIGHT = 1000.0
"""Ordinary votes that one vote may count for. A stated bound: beyond it, one line of a file would outvote everyone."""

MOST_RATING = 1e6
"""Largest rating, either way: scales of people and of reward models end far below it."""

MOST_SEED = 2**64 - 1

MOST_SECONDS = 86_400.0
"""Longest time to decide, a day. A stated bound: whoever looks for longer has done something else meanwhile."""

STRICT = {"extra": "forbid"}
"""Configuration for pydantic, which reads votes and ratings from files."""


def new_id() -> str:
    """A new unique id."""
    return uuid4().hex


def now() -> str:
    """The current time in UTC, ISO 8601."""
    return datetime.now(UTC).isoformat()


def is_number(value: object) -> bool:
    """Whether a value is a finite number; a Boolean is not."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


_BINARY = re.compile("[\0\ud800-\udfff]")


def check_text(name: str, value: object, *, most: int = NAME_CHARS, may_be_empty: bool = False) -> None:
    """Check that a field is text that any database can store.

    Raises:
        VoteError: If it is not text, is blank, is longer than `most` characters, or is binary data.
    """
    if not isinstance(value, str) or not (value.strip() or may_be_empty):
        raise VoteError(f"{name} of a vote must be text, not {_short(value)}", hint=f"Pass a {name} that is not empty.")
    if len(value) > most:
        raise VoteError(f"{name} of a vote has {len(value):,} characters", hint=f"Use at most {most:,}.")
    # No database stores half of a surrogate pair, and PostgreSQL ends text at NUL.
    if _BINARY.search(value):
        raise VoteError(f"{name} of a vote holds binary data", hint="Pass text in Unicode, without NUL characters.")


def checked_evidence(evidence: Mapping[str, float]) -> dict[str, float]:
    """Probabilities per taxonomy node, as floats.

    Raises:
        VoteError: If a value is not a probability, or there are more than `MOST_NODES`.
    """
    if len(evidence) > MOST_NODES:
        raise VoteError(f"the evidence of a vote names {len(evidence):,} nodes", hint=f"Name at most {MOST_NODES}.")
    for node, p in evidence.items():
        check_text("evidence", node)
        if not is_number(p) or not 0 <= p <= 1:
            raise VoteError(
                f"evidence of {node!r} is {_short(p)}, not a probability", hint="Pass a number from 0 to 1."
            )
    return {node: float(p) for node, p in evidence.items()}


def strongest(evidence: Mapping[str, float]) -> dict[str, float]:
    """The most probable nodes of a record, `MOST_NODES` at most: the record of a stranger may name any number."""
    if len(evidence) <= MOST_NODES:
        return dict(evidence)
    return dict(sorted(evidence.items(), key=lambda item: -item[1] if is_number(item[1]) else 0.0)[:MOST_NODES])


def check_seed(seed: object) -> None:
    """Check that a seed is a whole number that torch knows, or absent.

    Raises:
        VoteError: If it is not.
    """
    if seed is None or (isinstance(seed, int) and not isinstance(seed, bool) and -MOST_SEED <= seed <= MOST_SEED):
        return
    raise VoteError(f"seed {_short(seed)} of a vote is out of range", hint=f"Use a whole number up to {MOST_SEED}.")


def _short(value: object) -> str:
    """A value for a message, of whatever size it is."""
    if isinstance(value, int) and value.bit_length() > 256:  # Python refuses to print numbers of many digits
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, str | bytes):
        return repr(value[:80])
    return repr(value)[:80]


def as_utc(time: str) -> str:
    """A time in UTC, so that times can be compared as text; a time without a zone is read as UTC.

    Raises:
        VoteError: If it is not ISO 8601.
    """
    try:
        moment = datetime.fromisoformat(time)
        return (moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()
    except (TypeError, ValueError, OverflowError) as error:
        raise VoteError(
            f"time {_short(time)} is not ISO 8601", hint="Write it like 2026-01-31T12:00:00+00:00."
        ) from error


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
        ranking_version: Version of the ranking table that chose the expert.
    """

    __pydantic_config__: ClassVar = STRICT

    expert: str
    propensity: float = 1.0
    seed: int | None = None
    ranking_version: str = "r0"

    def __post_init__(self) -> None:
        check_text("expert", self.expert)
        check_text("ranking_version", self.ranking_version)
        check_seed(self.seed)
        if not is_number(self.propensity) or not 0 < self.propensity <= 1:
            raise VoteError(
                f"propensity {_short(self.propensity)} of {self.expert!r} is not in (0, 1]",
                hint="Pass the probability with which it was shown, or 1.0 if it always is.",
            )


@dataclass(frozen=True, kw_only=True)
class Vote:
    """One ballot and its outcome; checked when made, never changed afterwards.

    Attributes:
        prompt: The prompt of the pictures.
        shown: The pictures, at least two, in the order they were shown.
        outcome: `"win"`; `"tie"`, all are equally good; `"both_bad"`, none is acceptable.
        winner: Id of the winning expert, for a win only.
        evidence: Probability per taxonomy node, as in the route.
        voter: Name of the person or judge that chose.
        source: Kind of judge, such as `"human"`.
        weight: Number of ordinary votes it counts for, at most `MOST_WEIGHT`.
        seconds: Seconds from seeing the pictures to the choice, at most `MOST_SECONDS`; `None` if not measured.
        ballot: Id shared by votes that were cast at once, for example the pairs of one k-way ballot.
        id: Unique id; the fit sorts by it.
        time: Time of the vote, UTC, ISO 8601.

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
    seconds: float | None = None
    ballot: str | None = None
    id: str = field(default_factory=new_id)
    time: str = field(default_factory=now)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shown", tuple(self.shown))
        object.__setattr__(self, "evidence", checked_evidence(self.evidence))
        object.__setattr__(self, "time", as_utc(self.time))
        check_text("prompt", self.prompt, most=PROMPT_CHARS, may_be_empty=True)
        for name in ("voter", "source", "id"):
            check_text(name, getattr(self, name))
        if self.ballot is not None:
            check_text("ballot", self.ballot)
        if not is_number(self.weight) or not 0 < self.weight <= MOST_WEIGHT:
            raise VoteError(
                f"weight {_short(self.weight)} is not positive, or above {MOST_WEIGHT:g}",
                hint="Use 1.0 for an ordinary vote.",
            )
        if self.seconds is not None:
            if not is_number(self.seconds) or not 0 <= self.seconds <= MOST_SECONDS:
                raise VoteError(
                    f"seconds {_short(self.seconds)} of a vote are not from 0 to {MOST_SECONDS:,.0f}",
                    hint="Pass how long the choice took, or leave it out.",
                )
            object.__setattr__(self, "seconds", float(self.seconds))
        self._check_ballot()

    @property
    def experts(self) -> tuple[str, ...]:
        """Ids of the experts shown, in order."""
        return tuple(shown.expert for shown in self.shown)

    @property
    def content(self) -> tuple[object, ...]:
        """Prompt, experts, outcome and voter; two votes with one id that differ in these contradict each other."""
        return self.prompt, frozenset(self.experts), self.outcome, self.winner, self.voter

    def _check_ballot(self) -> None:
        if self.outcome not in get_args(Outcome):
            known = ", ".join(get_args(Outcome))
            raise VoteError(f"unknown outcome {_short(self.outcome)}", hint=f"Use one of: {known}.")
        if len(self.shown) < FEWEST_SHOWN:
            raise VoteError(f"a vote needs two pictures, but got {len(self.shown)}", hint="Show at least two experts.")
        if len(self.shown) > MOST_SHOWN:
            raise VoteError(f"a vote on {len(self.shown):,} pictures", hint=f"Show at most {MOST_SHOWN} at once.")
        if len(set(self.experts)) < len(self.experts):
            raise VoteError(
                f"an expert cannot be compared with itself: {', '.join(self.experts)}",
                hint="Show each expert once.",
            )
        if self.outcome == "win" and self.winner not in self.experts:
            raise VoteError(
                f"winner {_short(self.winner)} was not shown", hint=f"Name one of: {', '.join(self.experts)}."
            )
        if self.outcome != "win" and self.winner is not None:
            raise VoteError(
                f"a {self.outcome} has no winner, but got {_short(self.winner)}", hint="Leave the winner out."
            )

    def to_record(self) -> dict[str, Any]:
        """The vote as plain values that JSON and a database row can hold."""
        # not dataclasses.asdict, whose deep copies double the time of reading a large store
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
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise VoteError(
                f"this is not the record of a vote: {error}", hint="Pass a record made by `Vote.to_record`."
            ) from error


@dataclass(frozen=True, kw_only=True)
class Rating:
    """The rating of one expert's picture for one prompt; checked when made, never changed afterwards.

    Attributes:
        prompt: The prompt of the picture.
        expert: Id of the expert that drew it.
        rating: Higher is better. Each source has a scale of its own, which it should keep.
        evidence: Probability per taxonomy node, as in the route.
        voter: Name of the person or judge that rated.
        source: Kind of judge: `"human"`, or the name of a reward model such as `"image_reward"`.
        seed: Seed of the picture.
        ranking_version: Version of the ranking table that chose the expert.
        id: Unique id; the fit sorts by it.
        time: Time of the rating, UTC, ISO 8601.

    Raises:
        VoteError: If a field is not valid.
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
        check_text("prompt", self.prompt, most=PROMPT_CHARS, may_be_empty=True)
        for name in ("expert", "voter", "source", "ranking_version", "id"):
            check_text(name, getattr(self, name))
        check_seed(self.seed)
        if not is_number(self.rating) or abs(self.rating) > MOST_RATING:
            raise VoteError(
                f"rating {_short(self.rating)} is not a number up to {MOST_RATING:,.0f}",
                hint="Pass a finite number; higher is better.",
            )
        object.__setattr__(self, "rating", float(self.rating))
        object.__setattr__(self, "evidence", checked_evidence(self.evidence))
        object.__setattr__(self, "time", as_utc(self.time))

    @property
    def experts(self) -> tuple[str, ...]:
        """The expert, in a tuple as for votes, which have several."""
        return (self.expert,)

    @property
    def content(self) -> tuple[object, ...]:
        """Prompt, expert, rating and voter; two ratings with one id that differ in these contradict each other."""
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
        except (TypeError, ValueError, AttributeError) as error:
            raise VoteError(
                f"this is not the record of a rating: {error}", hint="Pass a record made by `Rating.to_record`."
            ) from error


@dataclass(frozen=True, kw_only=True)
class Undo:
    """A retraction that waits for the server: what exactly it takes back is known when it arrives there.

    Attributes:
        voter: Whose last vote or rating it takes back, of those said until then; empty where it names one.
        entry: Id of the vote or rating that it takes back; empty where that is the last one of a voter.
        time: When it was asked for, UTC, ISO 8601.
    """

    voter: str = ""
    entry: str = ""
    time: str = field(default_factory=now)


Entry = TypeVar("Entry", Vote, Rating)
"""A vote or a rating, the entries of a vote store."""


EMPTY = "0"
"""`VoteStore.version` of a store without votes and ratings."""


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Changes of a store since a version.

    Attributes:
        votes: Votes that were added and count; none unless `intact`.
        ratings: Ratings that were added and count; none unless `intact`.
        earlier: Ratings from before, of the same prompts and voters, to compare the added ones with.
        version: Version of the store after these changes.
        intact: Whether all earlier entries are still there, retracted or not: no voter was erased, and the store was
            not replaced.
        retracted: Whether anything was retracted.
    """

    votes: tuple[Vote, ...] = ()
    ratings: tuple[Rating, ...] = ()
    earlier: tuple[Rating, ...] = ()
    version: str = EMPTY
    intact: bool = True
    retracted: bool = False
