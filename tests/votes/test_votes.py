"""Votes and ratings: which values they refuse, and what they keep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fixtures_votes import child, finish, rating, vote

from diffusiongpt.errors import VoteError
from diffusiongpt.votes import Rating, Shown, Vote

if TYPE_CHECKING:
    from collections.abc import Mapping


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"winner": "c"}, "was not shown"),
        ({"winner": None}, "was not shown"),
        ({"outcome": "tie"}, "has no winner"),
        ({"outcome": "lost"}, "unknown outcome"),
        ({"shown": (Shown(expert="a"),)}, "needs two pictures"),
        ({"shown": (Shown(expert="a"), Shown(expert="a"))}, "with itself"),
        ({"evidence": {"root": 1.5}}, "not a probability"),
        ({"evidence": {"root": float("nan")}}, "not a probability"),
        ({"weight": 0.0}, "not positive"),
        ({"weight": float("inf")}, "not positive"),
        ({"weight": 1e308}, "above 1000"),
        ({"weight": 10**5000}, "a number of 16610 bits"),
        ({"evidence": {f"node_{i}": 0.1 for i in range(10_000)}}, "names 10,000 nodes"),
        ({"evidence": {"n" * 1000: 0.1}}, "1,000 characters"),
        ({"prompt": "a " * 8_000_000}, "16,000,000 characters"),
        ({"shown": tuple(Shown(expert=f"e{i}") for i in range(3000))}, "3,000 pictures"),
        ({"winner": "w" * 10**6}, "was not shown"),
        ({"voter": " "}, "must be text"),
        ({"prompt": "\ud800"}, "binary data"),
        ({"time": "yesterday"}, "not ISO 8601"),
        ({"seconds": -0.1}, "seconds -0.1 of a vote are not from 0 to 86,400"),
        ({"seconds": 86_401}, "not from 0 to 86,400"),
        ({"seconds": float("nan")}, "not from 0 to 86,400"),
        ({"seconds": 10**400}, "a number of 1329 bits"),
        ({"seconds": "3"}, "not from 0 to 86,400"),
        ({"seconds": True}, "not from 0 to 86,400"),
    ],
)
def test_a_vote_that_contradicts_itself_is_refused(fields: Mapping[str, Any], says: str) -> None:
    """An invalid vote cannot be made; the error says why and what to do."""
    right = {"prompt": "a fox", "shown": (Shown(expert="a"), Shown(expert="b")), "outcome": "win", "winner": "a"}
    with pytest.raises(VoteError, match=says) as caught:
        Vote(**{**right, **fields})
    assert caught.value.hint


@pytest.mark.parametrize("propensity", [0.0, 1.1, float("nan"), True])
def test_a_propensity_is_a_positive_probability(propensity: float) -> None:
    """What was shown must have had a positive probability of being shown."""
    with pytest.raises(VoteError, match="not in"):
        Shown(expert="a", propensity=propensity)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"value": float("nan")}, "is not a number"),
        ({"value": True}, "is not a number"),
        ({"value": 10**400}, "is not a number"),
        ({"value": -1e308}, "is not a number up to 1,000,000"),
        ({"seed": 2**70}, "out of range"),
        ({"seed": "7"}, "out of range"),
        ({"expert": ""}, "expert of a vote must be text"),
        ({"source": None}, "source of a vote must be text"),
        ({"evidence": {"root": -0.5}}, "not a probability"),
        ({"time": "0001-01-01T00:00:00+23:00"}, "not ISO 8601"),
    ],
)
def test_a_rating_that_makes_no_sense_is_refused(fields: Mapping[str, Any], says: str) -> None:
    """A rating is a finite number for an expert; the error says why and what to do."""
    with pytest.raises(VoteError, match=says) as caught:
        rating(**fields)
    assert caught.value.hint


def test_a_time_is_kept_in_utc() -> None:
    """Times in other zones are converted, so that they can be compared as text."""
    assert vote(time="2026-01-31T12:00:00+02:00").time == "2026-01-31T10:00:00+00:00"


def test_a_record_that_is_no_vote_is_refused() -> None:
    """A record with missing or unknown fields is a `VoteError`, not a `TypeError`."""
    for record in ({}, {"shown": [{"nobody": 1}]}, {**vote().to_record(), "colour": "red"}):
        with pytest.raises(VoteError, match="not the record of a vote"):
            Vote.from_record(record)
    with pytest.raises(VoteError, match="not the record of a rating"):
        Rating.from_record({"stars": 5})


def test_importing_the_room_loads_no_database() -> None:
    """`import diffusiongpt.ranking.live` is light: no SQLAlchemy, no scipy, no torch."""
    process = child("print([m for m in ('sqlalchemy', 'scipy', 'pydantic_settings', 'torch') if m in sys.modules])")
    assert finish(process) == ("[]\n", "")
