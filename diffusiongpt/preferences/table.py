"""The ranking table: what votes have taught, every number explained."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np

from diffusiongpt.preferences.learnt import Learnt, nothing_learnt
from diffusiongpt.preferences.rows import OUTSIDE, Prompts, rating_rows, vote_rows
from diffusiongpt.preferences.space import Prompt

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from diffusiongpt.embedding import Embedder
    from diffusiongpt.preferences.learnt import Judgement
    from diffusiongpt.preferences.observations import Floats, Indexes
    from diffusiongpt.preferences.priors import Priors
    from diffusiongpt.preferences.ratings import Rating
    from diffusiongpt.preferences.votes import Vote

UNTAUGHT = "r0"
"""Version of a table without votes."""

MOSTLY = 0.5
"""A prompt is counted at a node above this probability."""


@dataclass(frozen=True)
class Score:
    """How an expert is expected to do on a prompt.

    Attributes:
        expert: Its id.
        mean: Posterior mean in log-odds of being preferred; the sum of `parts`.
        std: Posterior standard deviation, same unit.
        parts: Those of the priors, then `global`, `nodes` and `residual`.
    """

    expert: str
    mean: float
    std: float
    parts: dict[str, float]


@dataclass(frozen=True)
class Row:
    """One line of the printed ranking.

    Attributes:
        expert: Its id.
        mean: Posterior mean in log-odds for a prompt that surely belongs to the node, prior included.
        std: Posterior standard deviation.
        votes: Ballots it was on, of prompts that belong more to the node than not.
        wins: Ballots it won; a tie counts one part in as many as were shown.
    """

    expert: str
    mean: float
    std: float
    votes: int
    wins: float


class RankingTable:
    """`u(expert, prompt) = prior + global[expert] + Σ p(node | prompt) · offset[node, expert] + residual`, in log-odds.

    Immutable, and a pure function of the set of votes and ratings and the priors: neither their order nor their time
    matters. A win enters by a logistic likelihood on differences of `u`, a tie as half a win each way, a ballot of k
    as its winner against each other one, together counting as one vote of its voter. "Both bad" is a vote for an
    outside option with a level of its own. Ratings enter by a Gaussian likelihood on differences within one prompt, on
    the scale of their source. The residual is what prompts like this one teach.

    Attributes:
        version: Name of this state of knowledge: `r0` without votes, else a hash of votes, ratings and priors.
        priors: The priors it was fitted on top of.
    """

    def __init__(
        self, votes: Iterable[Vote], priors: Priors, ratings: Iterable[Rating] = (), *, embedder: Embedder | None = None
    ) -> None:
        self._votes = sorted(votes, key=lambda vote: vote.id)
        self._ratings = rated = sorted(ratings, key=lambda rating: rating.id)
        self.priors = priors
        self.version = _version(self._votes, rated, priors)
        named = {expert for vote in self._votes for expert in vote.experts} | {rating.expert for rating in rated}
        outside = any(vote.outcome == "both_bad" for vote in self._votes)
        self._experts = {expert: i for i, expert in enumerate(sorted(named))}
        self._learnt = nothing_learnt()
        if named:
            prompts, indexes = Prompts(), self._experts | ({OUTSIDE: len(named)} if outside else {})
            rows = vote_rows(self._votes, priors, indexes, prompts), rating_rows(rated, priors, indexes, prompts)
            self._learnt = Learnt.fit(prompts.known, len(indexes), *rows, outside=outside, embedder=embedder)

    @classmethod
    def fit(
        cls, votes: Iterable[Vote], priors: Priors, ratings: Iterable[Rating] = (), *, embedder: Embedder | None = None
    ) -> RankingTable:
        """The table that these votes and ratings teach; see the class."""
        return cls(votes, priors, ratings, embedder=embedder)

    def __repr__(self) -> str:
        return f"RankingTable({self.version!r}, {len(self._votes)} votes, {len(self._experts)} experts)"

    @property
    def routing_pays(self) -> bool:
        """Whether choosing by prompt was found to beat the single best expert; if not, only levels are learnt."""
        return self._learnt.pays

    @property
    def votes(self) -> Sequence[Vote]:
        """What it was fitted on, by id."""
        return self._votes

    @property
    def ratings(self) -> Sequence[Rating]:
        """What it was fitted on, by id."""
        return self._ratings

    def learnt(self, expert_ids: Sequence[str], prompts: Sequence[Prompt]) -> Floats:
        """Score less prior of experts with a vote or rating on many prompts at once, shape (prompts, experts)."""
        return self._learnt.utilities(prompts)[:, self._who(expert_ids)]

    def score(self, expert_ids: Sequence[str], evidence: Mapping[str, float], text: str = "") -> list[Score]:
        """Score experts for a prompt, in the order given; one without votes has its prior and a wide std.

        Args:
            expert_ids: Experts to score.
            evidence: Probability per taxonomy node.
            text: The prompt; without it the residual is 0.
        """
        judged = self._learnt.judge(Prompt(text, evidence), self._who(expert_ids))
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
        """Joint samples of `u` from the posterior, for Thompson sampling.

        Returns:
            Log-odds, shape (n, experts).
        """
        mean = np.array([score.mean for score in self.score(expert_ids, evidence, text)])
        prompt, who = Prompt(text, evidence), self._who(expert_ids)
        judged = self._learnt.judge(prompt, who)
        narrow = np.sqrt(self._variances(expert_ids, judged) / judged.variance)
        covariance = narrow[:, None] * self._learnt.covariance(prompt, who) * narrow
        root = np.linalg.cholesky(covariance + 1e-12 * np.eye(len(expert_ids)))
        return mean + rng.standard_normal((n, len(expert_ids))) @ root.T

    def leaders(self, node: str, k: int = 3) -> tuple[str, ...]:
        """The experts that votes speak well of at a node, whatever their tags say, best first.

        Those whose posterior mean of global level plus offset is positive; empty for a node that no vote was about.
        """
        if node not in self._learnt.space.nodes:
            return ()
        names = tuple(self._experts)
        judged = self._learnt.judge(Prompt("", {node: 1.0}), np.arange(len(names)))
        learnt = judged.level + judged.nodes
        # experts are kept in alphabetical order, and a stable sort leaves ties in it
        best = np.argsort(-learnt, kind="stable")[:k].tolist()
        return tuple(names[index] for index in best if learnt[index] > 0)

    def rows(self, node: str | None = None, expert_ids: Iterable[str] = ()) -> list[Row]:
        """The ranking at a node, or over all prompts; best first.

        Args:
            node: Taxonomy node.
            expert_ids: Experts to list besides those with a vote.
        """
        experts = sorted({*self._experts, *expert_ids})
        votes: Counter[str] = Counter()
        wins: dict[str, float] = dict.fromkeys(experts, 0.0)
        for vote in self._votes:
            if node is None or vote.evidence.get(node, 0.0) > MOSTLY:
                votes.update(vote.experts)
                for expert in vote.experts:
                    wins[expert] += _wins(vote, expert)
        scores = self.score(experts, {node: 1.0} if node is not None else {})
        rows = [Row(s.expert, s.mean, s.std, votes[s.expert], wins[s.expert]) for s in scores]
        return sorted(rows, key=lambda row: (-row.mean, row.expert))

    def _who(self, expert_ids: Sequence[str]) -> Indexes:
        return np.array([self._experts.get(expert, -1) for expert in expert_ids], dtype=np.intp)

    def _variances(self, expert_ids: Sequence[str], judged: Judgement) -> Floats:
        """Variance of each expert, narrowed by what its prior knows about its level.

        The fit believes the same of every level; to say that a prior leaves only a share of that doubt is to add
        precision to one coordinate of the posterior (the Sherman-Morrison formula).
        """
        known = (self.priors.doubt(expert_ids) ** -2 - 1) / self._learnt.worded.scales.level**2
        taken: Floats = known * judged.level_covariance**2 / (1 + known * judged.level_variance)
        return np.asarray(judged.variance - taken, dtype=np.float64)


def _wins(vote: Vote, expert: str) -> float:
    if vote.outcome == "tie":
        return 1 / len(vote.shown)
    return float(vote.outcome == "win" and vote.winner == expert)


def _version(votes: Sequence[Vote], ratings: Sequence[Rating], priors: Priors) -> str:
    if not votes and not ratings:
        return UNTAUGHT
    digest = sha256(priors.fingerprint.encode())
    for record in (*(vote.to_record() for vote in votes), *(rating.to_record() for rating in ratings)):
        digest.update(json.dumps(record, sort_keys=True).encode())
    return f"r-{digest.hexdigest()[:12]}"
