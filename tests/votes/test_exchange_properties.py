"""For any votes: what is exported and imported is the same, and what was retracted is not exported."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from diffusiongpt.votes import Rating, Shown, Vote, VoteStore
from diffusiongpt.votes.exchange import export_text, import_file
from diffusiongpt.votes.vote import MOST_RATING, MOST_SECONDS, MOST_WEIGHT

if TYPE_CHECKING:
    from collections.abc import Sequence

CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
WORDS = st.text(CHARACTERS, min_size=1, max_size=12).filter(str.strip)
PROMPTS = st.text(CHARACTERS, max_size=40) | st.sampled_from(
    ['"', "a,b", "\r", "\r\n", "=1+1", "\ufeff", " ", "\u2028"]
)
TIMES = st.datetimes(timezones=st.timezones()).map(lambda moment: moment.isoformat())
PROBABILITIES = st.floats(min_value=0, max_value=1)
SEEDS = st.none() | st.integers(0, 2**64 - 1)
EVIDENCE = st.dictionaries(WORDS, PROBABILITIES, max_size=3)
SHARED = {
    "prompt": PROMPTS, "evidence": EVIDENCE, "voter": WORDS, "source": WORDS, "time": TIMES, "id": st.uuids().map(str),
}  # fmt: skip


@st.composite
def votes(draw: st.DrawFn) -> Vote:
    """Any vote."""
    shown = draw(
        st.lists(
            st.builds(
                Shown,
                expert=WORDS,
                propensity=PROBABILITIES.filter(bool),
                seed=SEEDS,
                ranking_version=WORDS,
            ),
            min_size=2,
            max_size=4,
            unique_by=lambda one: one.expert,
        )
    )
    outcome = draw(st.sampled_from(["win", "tie", "both_bad"]))
    return Vote(
        **{name: draw(values) for name, values in SHARED.items()},
        shown=tuple(shown),
        outcome=outcome,
        winner=draw(st.sampled_from(shown)).expert if outcome == "win" else None,
        weight=draw(st.floats(min_value=0, exclude_min=True, max_value=MOST_WEIGHT)),
        seconds=draw(st.none() | st.floats(min_value=0, max_value=MOST_SECONDS)),
        ballot=draw(st.none() | WORDS),
    )


RATINGS = st.builds(
    Rating,
    **SHARED,
    expert=WORDS,
    rating=st.floats(-MOST_RATING, MOST_RATING),
    seed=SEEDS,
    ranking_version=WORDS,
)
SOME_VOTES = st.lists(votes(), max_size=6, unique_by=lambda vote: vote.id)
SOME_RATINGS = st.lists(RATINGS, max_size=6, unique_by=lambda rating: rating.id)


def round_trip(entries: Sequence[Vote | Rating], name: str, **options: Any) -> tuple[list[Vote], list[Rating]]:
    """The votes and ratings that are exported from one store and imported into another."""
    with tempfile.TemporaryDirectory() as folder:
        first, second = VoteStore(Path(folder) / "first.db"), VoteStore(Path(folder) / "second.db")
        first.merge(entries)
        file = Path(folder) / name
        file.write_bytes(export_text(first, "csv" if file.suffix == ".csv" else "jsonl", **options).encode())
        import_file(second, file)
        assert sum(import_file(second, file).__dict__[kind] for kind in ("votes", "ratings")) == 0
        return second.all(), second.ratings()


def in_csv(vote: Vote) -> dict[str, Any]:
    """What CSV keeps of a vote: not the order shown, evidence, seeds or versions; the mean of the propensities."""
    record = vote.to_record()
    pair = sorted(shown.propensity for shown in vote.shown) if len(vote.shown) == 2 else []
    for name in ("evidence", "shown"):
        del record[name]
    return {**record, "experts": set(vote.experts), "mean": (pair[0] * pair[1]) ** 0.5 if pair else None}


@settings(max_examples=40, deadline=None)
@given(some_votes=SOME_VOTES, some_ratings=SOME_RATINGS)
def test_jsonl_gives_back_every_field(some_votes: list[Vote], some_ratings: list[Rating]) -> None:
    """Votes are exported in the order they were recorded."""
    assume(some_votes or some_ratings)
    assert round_trip([*some_votes, *some_ratings], "all.jsonl") == (some_votes, some_ratings)


@settings(max_examples=40, deadline=None)
@given(some_votes=SOME_VOTES)
def test_csv_gives_back_every_choice(some_votes: list[Vote]) -> None:
    """Voter, experts, choice, time and weight are kept; ballots of several experts are restored completely."""
    back, ratings = round_trip(some_votes, "votes.csv")
    assert ratings == []
    for got, cast in zip(back, some_votes, strict=True):
        found, wanted = in_csv(got), in_csv(cast)
        assert found.pop("mean") == pytest.approx(wanted.pop("mean"))
        assert found == wanted


@settings(max_examples=40, deadline=None)
@given(some_ratings=SOME_RATINGS)
def test_csv_gives_back_every_rating(some_ratings: list[Rating]) -> None:
    """Numbers are kept to the last digit."""
    _, back = round_trip(some_ratings, "ratings.csv", ratings=True)
    kept = ("id", "time", "prompt", "expert", "rating", "voter", "source")
    assert [[getattr(r, name) for name in kept] for r in back] == [
        [getattr(r, name) for name in kept] for r in some_ratings
    ]


@settings(max_examples=25, deadline=None)
@given(some_votes=SOME_VOTES, more=SOME_VOTES, some_ratings=SOME_RATINGS)
def test_retracting_what_was_added_restores_the_store(
    some_votes: list[Vote], more: list[Vote], some_ratings: list[Rating]
) -> None:
    """`all` and `ratings` return what they did before, in the same order."""
    added = [vote for vote in more if vote.id not in {first.id for first in some_votes}]
    with tempfile.TemporaryDirectory() as folder:
        store = VoteStore(Path(folder) / "votes.db")
        store.merge(some_votes)
        before = store.all()
        store.merge([*added, *some_ratings])
        for entry in (*added, *some_ratings):
            store.retract(entry.id)
        assert (store.all(), store.ratings()) == (before, [])
