"""What votes and ratings of one kind of task have taught: drawing and changing pictures are learnt apart."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from diffusiongpt.ranking.model import (
    DEFAULTS,
    OUTSIDE,
    FitOptions,
    Fitted,
    Prompt,
    Prompts,
    noise_by_source,
    nothing_fitted,
    rating_rows,
    vote_rows,
)
from diffusiongpt.zoo import EDITING, is_editing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from diffusiongpt.embedding import Embedder
    from diffusiongpt.ranking.model import Floats, Indexes, RatingNoise
    from diffusiongpt.ranking.priors import Priors
    from diffusiongpt.votes import Rating, Vote


MOST_EXPERTS = 2000
"""Experts that a table learns about. Files of votes may name any number; more than this would not fit into the memory
of a small machine, and each would have hardly a vote."""

MOST_NEW = 20
"""Experts that may join a table between two fits although its features leave no room for them."""


@dataclass(frozen=True)
class Said:
    """Votes and ratings, sorted, because sums of floats depend on their order.

    Attributes:
        votes: Votes.
        ratings: Ratings.
        earlier: Ratings that are known already, of the same prompts and voters.
    """

    votes: Sequence[Vote]
    ratings: Sequence[Rating]
    earlier: Sequence[Rating] = ()

    @classmethod
    def of(cls, votes: Iterable[Vote], ratings: Iterable[Rating], earlier: Iterable[Rating] = ()) -> Said:
        """Sort them."""
        return cls(sorted(votes, key=_id), sorted(ratings, key=_id), sorted(earlier, key=_id))

    def about(self, *, editing: bool) -> Said:
        """Those about changing pictures, or all others."""
        return Said(
            [vote for vote in self.votes if is_editing(vote.evidence) is editing],
            [rating for rating in self.ratings if is_editing(rating.evidence) is editing],
            [rating for rating in self.earlier if is_editing(rating.evidence) is editing],
        )

    def among(self, names: Iterable[str]) -> Said:
        """Those about these experts and no others."""
        kept = set(names)
        return Said(
            [vote for vote in self.votes if kept.issuperset(vote.experts)],
            *([one for one in some if one.expert in kept] for some in (self.ratings, self.earlier)),
        )

    def named(self) -> list[str]:
        """The experts that are learnt about, alphabetical: those on most ballots, `MOST_EXPERTS` at most."""
        counts = Counter(expert for vote in self.votes for expert in vote.experts)
        counts.update(rating.expert for rating in (*self.earlier, *self.ratings))
        return sorted(sorted(counts, key=lambda expert: (-counts[expert], expert))[:MOST_EXPERTS])


@dataclass(frozen=True)
class Learnt:
    """A fitted model, and what its rows mean.

    Attributes:
        fitted: The model.
        experts: Row of each expert.
        noise: Noise of the ratings of each rater at the fit.
    """

    fitted: Fitted = field(default_factory=nothing_fitted)
    experts: Mapping[str, int] = field(default_factory=dict)
    noise: Mapping[str, RatingNoise] = field(default_factory=dict)

    @classmethod
    def fit(
        cls, said: Said, priors: Priors, *, embedder: Embedder | None = None, options: FitOptions = DEFAULTS
    ) -> Learnt:
        """What these votes and ratings teach; see `RankingTable.fit`."""
        names = said.named()
        if not names:
            return cls()
        said = said.among(names)
        outside = any(vote.outcome == "both_bad" for vote in said.votes)
        prompts, indexes = Prompts(), _indexes(names, outside=outside)
        noise = noise_by_source(said.ratings)
        rows = (
            vote_rows(said.votes, priors, indexes, prompts),
            rating_rows(said.ratings, priors, indexes, prompts, noise),
        )
        fitted = Fitted.fit(
            [*map(without_task, prompts.known)], len(indexes), *rows, outside=outside, embedder=embedder,
            options=options,
        )  # fmt: skip
        return cls(fitted, {expert: row for row, expert in enumerate(names)}, noise)

    def updated(self, said: Said, priors: Priors) -> Learnt:
        """With more votes and ratings; see `RankingTable.updated`."""
        if not self.experts:
            return Learnt.fit(Said(said.votes, said.ratings), priors)
        new = [name for name in said.named() if name not in self.experts]
        # the others wait for the next fit, which makes room for them
        most = min(MOST_EXPERTS, max(self.fitted.worded.most_experts, len(self.experts) + MOST_NEW))
        names = sorted({*self.experts, *new[: max(most - len(self.experts), 0)]})
        said = said.among(names)
        had_outside = len(self.fitted.worded.mean) > len(self.experts)
        outside = had_outside or any(vote.outcome == "both_bad" for vote in said.votes)
        prompts, indexes = Prompts(), _indexes(names, outside=outside)
        voted = vote_rows(said.votes, priors, indexes, prompts)
        compared = rating_rows([*said.earlier, *said.ratings], priors, indexes, prompts, self.noise)
        before = {**self.experts, **({OUTSIDE: len(self.experts)} if had_outside else {})}
        order = np.array([before.get(name, -1) for name in indexes], dtype=np.intp)
        known = [*map(without_task, prompts.known)]
        fitted = self.fitted.updated(known, order, voted, compared, known=len(said.earlier), outside=outside)
        return Learnt(fitted, {expert: row for row, expert in enumerate(names)}, self.noise)

    def index_of(self, expert_ids: Sequence[str]) -> Indexes:
        """Row of each expert, -1 for one that nothing was said of."""
        return np.array([self.experts.get(expert, -1) for expert in expert_ids], dtype=np.intp)

    def utilities(self, expert_ids: Sequence[str], prompts: Sequence[Prompt]) -> Floats:
        """What votes add to the prior of experts on many prompts, in log-odds, shape (prompts, experts)."""
        index = self.index_of(expert_ids)
        utilities = np.zeros((len(prompts), len(index)))
        known = self.fitted.utilities([*map(without_task, prompts)])
        utilities[:, index >= 0] = known[:, index[index >= 0]]
        return utilities


def without_task(prompt: Prompt) -> Prompt:
    """A prompt without the task, which says nothing once tasks are apart."""
    if EDITING not in prompt.evidence:
        return prompt
    return Prompt(prompt.text, {node: p for node, p in prompt.evidence.items() if node != EDITING})


def _id(entry: Vote | Rating) -> str:
    return entry.id


def _indexes(names: Sequence[str], *, outside: bool) -> dict[str, int]:
    """Index of each expert; the outside option is the last."""
    return {name: i for i, name in enumerate([*names, *([OUTSIDE] if outside else [])])}
