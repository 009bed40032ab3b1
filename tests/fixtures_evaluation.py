"""A small world for evaluation: foxes are best drawn by `furry`, buses by `metal`, and `plain` draws all fairly."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

EXPERTS = ("furry", "metal", "plain")
RATINGS = {"fox": (80.0, 20.0, 60.0), "bus": (30.0, 90.0, 60.0)}
PLACES = (
    "in the snow", "on the beach", "by a lake", "at midnight", "under palm trees", "near the old castle",
    "above the clouds", "inside a kitchen", "at a birthday party", "on the moon", "behind green hills", "among ruins",
)  # fmt: skip
RATED = ("prompt_id", "prompt", "category", "expert", "rating")
VOTED = ("prompt_id", "prompt", "category", "winner", "loser")


def write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    """Write a CSV file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def rated_rows(places: Sequence[str] = PLACES, *, first: int = 0) -> list[tuple[object, ...]]:
    """Every expert's rating of a fox and a bus in each place; the place adds a point or two to all of them."""
    rows: list[tuple[object, ...]] = []
    for number, place in enumerate(places):
        for kind, (thing, ratings) in enumerate(RATINGS.items()):
            name = f"p{first + 2 * number + kind}"
            prompt = f"a {thing} {place}"
            rows += [(name, prompt, thing, e, r + number % 3) for e, r in zip(EXPERTS, ratings, strict=True)]
    return rows


def vote_rows(count: int, *, seed: int = 0, places: Sequence[str] = PLACES) -> list[tuple[object, ...]]:
    """Votes that the better expert wins nine times in ten."""
    rng, rows = np.random.default_rng(seed), []
    for _ in range(count):
        number, kind = int(rng.integers(len(places))), int(rng.integers(2))
        thing = list(RATINGS)[kind]
        pair = rng.permutation(3)[:2]
        best, other = sorted(pair, key=lambda e: -RATINGS[thing][e])
        if rng.random() < 0.1:
            best, other = other, best
        rows.append((f"p{2 * number + kind}", f"a {thing} {places[number]}", thing, EXPERTS[best], EXPERTS[other]))
    return rows
