"""A rating: how good one picture is by itself, in the eyes of a person or of a reward model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, TypeVar

from diffusiongpt.errors import VoteError
from diffusiongpt.preferences.checks import STRICT, as_utc, check_text, checked_evidence, is_number, new_id, now
from diffusiongpt.preferences.votes import Vote


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
