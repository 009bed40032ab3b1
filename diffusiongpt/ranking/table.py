"""The ranking table: what votes have taught, with every number explained."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from diffusiongpt.errors import VoteError
from diffusiongpt.files import replace_file
from diffusiongpt.ranking.model import (
    DEFAULTS,
    OUTSIDE,
    FitOptions,
    Fitted,
    Prompt,
    Prompts,
    Tallies,
    noise_by_source,
    nothing_fitted,
    rating_rows,
    vote_rows,
)
from diffusiongpt.ranking.table_file import About, as_bytes, read

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from diffusiongpt.embedding import Embedder
    from diffusiongpt.ranking.model import Floats, Indexes, Judgement, RatingNoise, Scales
    from diffusiongpt.ranking.priors import Priors
    from diffusiongpt.votes import Rating, Vote


NO_VOTES = "r0"
"""Version of a table without votes."""


MOST_EXPERTS = 2000
"""Experts that a table learns about. Files of votes may name any number; more than this would not fit into the memory
of a small machine, and each would have hardly a vote."""


@dataclass(frozen=True)
class Score:
    """How an expert is expected to do on a prompt.

    Attributes:
        expert: Id of the expert.
        mean: Posterior mean in log-odds of being preferred; the sum of `parts`.
        std: Posterior standard deviation, in log-odds.
        parts: The parts of the priors, then `global`, `nodes` and `residual`.
    """

    expert: str
    mean: float
    std: float
    parts: dict[str, float]


@dataclass(frozen=True)
class Standing:
    """The place of one expert in the ranking at a node.

    Attributes:
        expert: Id of the expert.
        mean: Posterior mean in log-odds for a prompt that surely belongs to the node, prior included.
        std: Posterior standard deviation, in log-odds.
        votes: Ballots it was on, for prompts that belong to the node with a probability above one half.
        wins: Ballots it won; a tie among k counts 1/k.
    """

    expert: str
    mean: float
    std: float
    votes: int
    wins: float


class RankingTable:
    """`u(expert, prompt) = prior + global[expert] + Σ p(node | prompt) · offset[node, expert] + residual`, in log-odds.

    Immutable. A table made by `fit` is a pure function of the priors and the set of votes and ratings: neither their
    order nor their time matters. A win enters by a logistic likelihood on differences of `u` (Bradley and Terry 1952),
    a tie as half a win each way, and a ballot of k as its winner against each other expert, all of them together
    counting as one vote. "Both bad" is a vote for an outside option with a level of its own. Ratings enter by a
    Gaussian likelihood on differences within one prompt, on the scale of their source. The residual is what similar
    prompts teach.

    Attributes:
        priors: The priors it was fitted on top of.
        tallies: Counts of votes and ratings.
        pending: Votes and ratings added since the fit.
        noise: Noise of the ratings of each rater at the fit.
    """

    def __init__(
        self,
        priors: Priors,
        fitted: Fitted | None = None,
        experts: Sequence[str] = (),
        tallies: Tallies | None = None,
        *,
        pending: int = 0,
        noise: Mapping[str, RatingNoise] | None = None,
    ) -> None:
        self.priors = priors
        self.tallies = tallies or Tallies()
        self.pending = pending
        self.noise = noise or {}
        self._fitted = fitted or nothing_fitted()
        self._experts = {expert: i for i, expert in enumerate(experts)}

    @classmethod
    def fit(
        cls,
        votes: Iterable[Vote],
        priors: Priors,
        ratings: Iterable[Rating] = (),
        *,
        embedder: Embedder | None = None,
        options: FitOptions = DEFAULTS,
    ) -> RankingTable:
        """The table that these votes and ratings teach.

        Args:
            votes: All votes that count.
            priors: Scores without any vote.
            ratings: All ratings that count.
            embedder: Embeds sentences, if prompts are to be compared by their meaning too.
            options: Where the fit starts, and when it approximates.
        """
        # sorted, because sums of floats depend on their order
        cast, rated = sorted(votes, key=lambda vote: vote.id), sorted(ratings, key=lambda rating: rating.id)
        tallies = Tallies().plus(cast, rated)
        names = _named(cast, rated)
        if not names:
            return cls(priors)
        cast, rated = _among(names, cast, rated)
        outside = any(vote.outcome == "both_bad" for vote in cast)
        prompts, indexes = Prompts(), _indexes(names, outside=outside)
        noise = noise_by_source(rated)
        rows = vote_rows(cast, priors, indexes, prompts), rating_rows(rated, priors, indexes, prompts, noise)
        fitted = Fitted.fit(prompts.known, len(indexes), *rows, outside=outside, embedder=embedder, options=options)
        return cls(priors, fitted, names, tallies, noise=noise)

    def updated(
        self,
        votes: Iterable[Vote],
        ratings: Iterable[Rating] = (),
        earlier: Iterable[Rating] = (),
        *,
        pending: bool = True,
    ) -> RankingTable:
        """The table with more votes and ratings, each added by a sequential update instead of a refit.

        Nodes, landmarks and scales stay those of this table. Ratings are read on the scale that their source had at
        the fit; the scale of a new source is estimated from its ratings here. A ballot that is split over several votes
        has the weight of one vote only if they come together.

        Args:
            votes: The new votes.
            ratings: The new ratings.
            earlier: Ratings that are part of this table, of the same prompts and voters, to compare the new ones with.
            pending: Whether the new ones count as added since the fit.
        """
        cast, rated = sorted(votes, key=lambda vote: vote.id), sorted(ratings, key=lambda rating: rating.id)
        known = sorted(earlier, key=lambda rating: rating.id)
        tallies, pending_now = self.tallies.plus(cast, rated), (len(cast) + len(rated)) * pending
        new = [name for name in _named(cast, [*known, *rated]) if name not in self._experts]
        names = sorted({*self._experts, *new[: max(MOST_EXPERTS - len(self._experts), 0)]})
        cast, rated = _among(names, cast, rated)
        known = _among(names, (), known)[1]
        had_outside = self._rows > len(self._experts)
        outside = had_outside or any(vote.outcome == "both_bad" for vote in cast)
        prompts, indexes = Prompts(), _indexes(names, outside=outside)
        voted = vote_rows(cast, self.priors, indexes, prompts)
        compared = rating_rows([*known, *rated], self.priors, indexes, prompts, self.noise)
        before = {**self._experts, **({OUTSIDE: len(self._experts)} if had_outside else {})}
        order = np.array([before.get(name, -1) for name in indexes], dtype=np.intp)
        return RankingTable(
            self.priors,
            self._fitted.updated(prompts.known, order, voted, compared, known=len(known), outside=outside),
            names,
            tallies,
            pending=self.pending + pending_now,
            noise=self.noise,
        )

    def save(self, path: Path) -> None:
        """Write the table to a file; an existing file is replaced.

        Raises:
            VoteError: If it cannot be written, or compares sentences by an embedder, which no file can hold.
        """
        try:
            replace_file(path, self.as_bytes())
        except OSError as error:
            raise VoteError(
                f"could not write {path}: {error.strerror}", hint="Name a file that you may write to."
            ) from error

    def as_bytes(self, seen: str = "") -> bytes:
        """The contents of a file with this table.

        Args:
            seen: Version of the store it was learnt from, for a snapshot next to that store; without it, the file
                names no voters and can be given to others.

        Raises:
            VoteError: If it compares sentences by an embedder, which no file can hold.
        """
        counted = self.tallies
        about = About(
            experts=tuple(self._experts),
            votes=counted.votes,
            ratings=counted.ratings,
            digest=f"{counted.digest:x}",
            counts=counted.counts,
            pending=self.pending,
            priors=self.priors.fingerprint,
            seen=seen,
            scatters=self.noise if seen else {},
        )
        return as_bytes(self._fitted, about)

    @classmethod
    def load(cls, path: Path, priors: Priors) -> RankingTable:
        """The table of a file on top of priors, which should be those it was fitted on.

        Raises:
            VoteError: If it cannot be read, is damaged, is not such a file, or was written by a newer version.
        """
        return cls.of(*read(path), priors)

    @classmethod
    def of(cls, fitted: Fitted, about: About, priors: Priors) -> RankingTable:
        """The table of what was read from a file."""
        tallies = Tallies(about.votes, about.ratings, int(about.digest, 16), about.counts)
        return cls(priors, fitted, about.experts, tallies, pending=about.pending, noise=about.scatters)

    @property
    def version(self) -> str:
        """Name of this state of knowledge: `r0` without votes, else a hash of votes, ratings and priors.

        A suffix such as `+3` counts the votes and ratings that were added since the fit.
        """
        if not self.size:
            return NO_VOTES
        pending = f"+{self.pending}" if self.pending else ""
        return f"r-{self.tallies.name(self.priors.fingerprint)}{pending}"

    def __repr__(self) -> str:
        return f"RankingTable({self.version!r}, {self.tallies.votes} votes, {len(self._experts)} experts)"

    @property
    def size(self) -> int:
        """Number of votes and ratings it has learnt from."""
        return self.tallies.votes + self.tallies.ratings

    @property
    def scales(self) -> Scales:
        """Prior standard deviations that the fit chose."""
        return self._fitted.scales

    @property
    def beats_best_single(self) -> bool:
        """Whether choosing by prompt was found to beat the best single expert; if not, only levels are learnt."""
        return self._fitted.beats_best_single

    def utilities(self, expert_ids: Sequence[str], prompts: Sequence[Prompt]) -> Floats:
        """What votes add to the prior of experts on many prompts, in log-odds, shape (prompts, experts)."""
        index = self._index_of(expert_ids)
        utilities = np.zeros((len(prompts), len(index)))
        utilities[:, index >= 0] = self._fitted.utilities(prompts)[:, index[index >= 0]]
        return utilities

    def score(self, expert_ids: Sequence[str], evidence: Mapping[str, float], text: str = "") -> list[Score]:
        """Score experts for a prompt, in the order given; an expert without votes has its prior and a wide std.

        Args:
            expert_ids: Experts to score.
            evidence: Probability per taxonomy node.
            text: The prompt; without it the residual is 0.
        """
        judged = self._fitted.judge(Prompt(text, evidence), self._index_of(expert_ids))
        parts = {
            **self.priors.parts(expert_ids, evidence),
            "global": judged.level,
            "nodes": judged.nodes,
            "residual": judged.residual,
        }
        stds = np.sqrt(self._variances(expert_ids, judged)).tolist()
        columns = zip(*(values.tolist() for values in parts.values()), strict=True)
        return [
            Score(expert, sum(column), std, dict(zip(parts, column, strict=True)))
            for expert, column, std in zip(expert_ids, columns, stds, strict=True)
        ]

    def sample(
        self,
        expert_ids: Sequence[str],
        evidence: Mapping[str, float],
        rng: np.random.Generator,
        n: int = 1,
        *,
        text: str = "",
    ) -> Floats:
        """Joint samples of `u` from the posterior, for Thompson sampling (Thompson 1933).

        Returns:
            Log-odds, shape (n, experts).
        """
        mean = np.array([score.mean for score in self.score(expert_ids, evidence, text)])
        prompt, index = Prompt(text, evidence), self._index_of(expert_ids)
        judged = self._fitted.judge(prompt, index)
        # correlations are those of the fit; standard deviations are those that are printed
        narrow = np.sqrt(self._variances(expert_ids, judged) / judged.variance)
        covariance = narrow[:, None] * self._fitted.covariance(prompt, index) * narrow
        root = np.linalg.cholesky(covariance + 1e-12 * np.eye(len(expert_ids)))
        return mean + rng.standard_normal((n, len(expert_ids))) @ root.T

    def leaders(self, node: str, k: int = 3) -> tuple[str, ...]:
        """The experts that votes favour at a node, whatever their tags say, best first.

        Those whose posterior mean of global level plus offset is positive; empty for a node without votes.
        """
        return self._best(Prompt("", {node: 1.0}), k) if node in self._fitted.space.nodes else ()

    def leaders_on(self, text: str, evidence: Mapping[str, float], k: int = 3) -> tuple[str, ...]:
        """The experts that votes favour on prompts like this one, whatever their tags say, best first."""
        return self._best(Prompt(text, evidence), k)

    def _best(self, prompt: Prompt, k: int) -> tuple[str, ...]:
        names = tuple(self._experts)
        if not names:
            return ()
        utilities = self.utilities(names, [prompt])[0]
        # experts are kept in alphabetical order, and a stable sort leaves ties in it
        best = np.argsort(-utilities, kind="stable")[:k].tolist()
        return tuple(names[index] for index in best if utilities[index] > 0)

    def standings(self, node: str | None = None, expert_ids: Iterable[str] = ()) -> list[Standing]:
        """The ranking at a node, or over all prompts; best first.

        Args:
            node: Taxonomy node; all prompts if it is `None`.
            expert_ids: Experts to list in addition to those with a vote.
        """
        experts = sorted({*self._experts, *expert_ids})
        tallies = self.tallies.at(node)
        scores = self.score(experts, {node: 1.0} if node is not None else {})
        standings = [Standing(s.expert, s.mean, s.std, *tallies.get(s.expert, (0, 0.0))) for s in scores]
        return sorted(standings, key=lambda one: (-one.mean, one.expert))

    @property
    def _rows(self) -> int:
        """Number of experts that have weights, including the outside option."""
        return len(self._fitted.worded.mean)

    def _index_of(self, expert_ids: Sequence[str]) -> Indexes:
        return np.array([self._experts.get(expert, -1) for expert in expert_ids], dtype=np.intp)

    def _variances(self, expert_ids: Sequence[str], judged: Judgement) -> Floats:
        """Variance of each expert, narrowed by what its prior knows about its level.

        The fit has one prior variance for every level. A prior that leaves only the share `doubt` of that standard
        deviation adds precision to one coordinate of the posterior, by the Sherman-Morrison formula.
        """
        known = (self.priors.doubt(expert_ids) ** -2 - 1) / self._fitted.scales.level**2
        taken: Floats = known * judged.level_covariance**2 / (1 + known * judged.level_variance)
        # rounding, or a table of someone else, can leave a tiny negative variance
        return np.asarray(np.maximum(judged.variance - taken, 0.0), dtype=np.float64)


def _named(votes: Iterable[Vote], ratings: Iterable[Rating]) -> list[str]:
    """The experts that are learnt about, in alphabetical order: those on most ballots, `MOST_EXPERTS` at most."""
    named = Counter(expert for vote in votes for expert in vote.experts)
    named.update(rating.expert for rating in ratings)
    return sorted(sorted(named, key=lambda expert: (-named[expert], expert))[:MOST_EXPERTS])


def _among(names: Iterable[str], votes: Sequence[Vote], ratings: Sequence[Rating]) -> tuple[list[Vote], list[Rating]]:
    """The votes and ratings that are about these experts and no others."""
    kept = set(names)
    return [vote for vote in votes if kept.issuperset(vote.experts)], [one for one in ratings if one.expert in kept]


def _indexes(names: Sequence[str], *, outside: bool) -> dict[str, int]:
    """Index of each expert; the outside option is the last."""
    return {name: i for i, name in enumerate([*names, *([OUTSIDE] if outside else [])])}
