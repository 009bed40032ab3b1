"""The ranking table: what votes have taught, every number explained."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np

from diffusiongpt.preferences.contrasts import Floats, contrasts_of
from diffusiongpt.preferences.laplace import Posterior, fit_posterior

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from diffusiongpt.preferences.priors import Priors
    from diffusiongpt.preferences.votes import Vote

UNTAUGHT = "r0"
"""Version of a table without votes."""

MOSTLY = 0.5
"""A prompt is counted at a node above this probability."""

LEAST_P = 0.01
"""Node probabilities below this are left out: they cost a parameter per expert and teach nothing."""


@dataclass(frozen=True)
class Score:
    """How an expert is expected to do on a prompt.

    Attributes:
        expert: Its id.
        mean: Posterior mean in log-odds of being preferred; the sum of `parts`.
        std: Posterior standard deviation, same unit.
        parts: Those of the priors, then `global` and `nodes`.
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
    """`u(expert, prompt) = prior + global[expert] + Σ p(node | prompt) · offset[node, expert]`, in log-odds.

    Immutable, and a pure function of the set of votes and the priors: neither the order nor the time
    of votes matters. A win enters by a logistic likelihood on differences of `u`, a tie as half a win
    each way, a ballot of k as its winner against each other one, together counting as one vote of its voter.
    "Both bad" says nothing about which of them is better; it is kept and counted, and not yet learnt from.

    Attributes:
        version: Name of this state of knowledge: `r0` without votes, else a hash of votes and priors.
        priors: The priors it was fitted on top of.
    """

    def __init__(self, votes: Iterable[Vote], priors: Priors) -> None:
        self._votes = sorted(votes, key=lambda vote: vote.id)
        self.priors = priors
        self.version = _version(self._votes, priors)
        self._experts = {expert: i for i, expert in enumerate(sorted({e for v in self._votes for e in v.experts}))}
        self._names = tuple(self._experts)
        named = {node for vote in self._votes for node, p in vote.evidence.items() if p >= LEAST_P}
        self._nodes = {node: i + 1 for i, node in enumerate(sorted(named))}
        self._posterior = fit_posterior(
            contrasts_of(self._votes, priors, self._experts, lambda evidence: self._features(evidence)[0])
        )
        self._mean, self._blocks = _with_stranger(self._posterior)

    @classmethod
    def fit(cls, votes: Iterable[Vote], priors: Priors) -> RankingTable:
        """The table that these votes teach; see the class."""
        return cls(votes, priors)

    def __repr__(self) -> str:
        return f"RankingTable({self.version!r}, {len(self._votes)} votes, {len(self._experts)} experts)"

    def score(self, expert_ids: Sequence[str], evidence: Mapping[str, float]) -> list[Score]:
        """Score experts for a prompt, in the order given; one without votes has its prior and a wide std.

        Args:
            expert_ids: Experts to score.
            evidence: Probability per taxonomy node.
        """
        who, features, beyond = self._who(expert_ids), *self._features(evidence)
        parts = {
            **self.priors.parts(expert_ids, evidence),
            "global": self._mean[who, 0],
            "nodes": self._mean[who, 1:] @ features[1:],
        }
        stds = np.sqrt(self._variances(expert_ids, features) + beyond).tolist()
        columns = zip(*(values.tolist() for values in parts.values()), strict=True)
        return [
            Score(expert, sum(column), std, dict(zip(parts, column, strict=True)))
            for expert, column, std in zip(expert_ids, columns, stds, strict=True)
        ]

    def sample(
        self, expert_ids: Sequence[str], evidence: Mapping[str, float], rng: np.random.Generator, n: int = 1
    ) -> Floats:
        """Joint samples of `u` from the posterior, for Thompson sampling.

        Returns:
            Log-odds, shape (n, experts).
        """
        mean = np.array([score.mean for score in self.score(expert_ids, evidence)])
        root = np.linalg.cholesky(self._covariance(expert_ids, evidence) + 1e-12 * np.eye(len(expert_ids)))
        return mean + rng.standard_normal((n, len(expert_ids))) @ root.T

    def leaders(self, node: str, k: int = 3) -> tuple[str, ...]:
        """The experts that votes speak well of at a node, whatever their tags say, best first.

        Those whose posterior mean of global level plus offset is positive; empty for a node that no vote was about.
        """
        if node not in self._nodes:
            return ()
        learnt = self._mean[:-1, 0] + self._mean[:-1, self._nodes[node]]
        # experts are kept in alphabetical order, and a stable sort leaves ties in it
        best = np.argsort(-learnt, kind="stable")[:k].tolist()
        return tuple(self._names[index] for index in best if learnt[index] > 0)

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

    def _who(self, expert_ids: Sequence[str]) -> NDArray[np.intp]:
        return np.array([self._experts.get(expert, -1) for expert in expert_ids], dtype=np.intp)

    def _features(self, evidence: Mapping[str, float]) -> tuple[Floats, float]:
        """Features of a prompt, and the variance that nodes without votes add."""
        features = np.zeros(len(self._nodes) + 1)
        features[0], beyond = 1.0, 0.0
        for node, p in evidence.items():
            if p < LEAST_P:
                continue
            if node in self._nodes:
                features[self._nodes[node]] = p
            else:
                beyond += (self._posterior.node_sd * p) ** 2
        return features, beyond

    def _variances(self, expert_ids: Sequence[str], features: Floats) -> Floats:
        """Variance of each expert on known nodes, narrowed by what its prior knows about its level.

        The fit believes the same of every level; to say that a prior leaves only a share of that doubt is to add
        precision to one coordinate of the posterior (the Sherman-Morrison formula).
        """
        blocks = self._blocks[self._who(expert_ids)]
        through = blocks @ features
        known = (self.priors.doubt(expert_ids) ** -2 - 1) / self._posterior.global_sd**2
        taken: Floats = known * through[:, 0] ** 2 / (1 + known * blocks[:, 0, 0])
        return np.asarray(through @ features - taken, dtype=np.float64)

    def _covariance(self, expert_ids: Sequence[str], evidence: Mapping[str, float]) -> Floats:
        who, features, beyond = self._who(expert_ids), *self._features(evidence)
        wide = np.einsum("k,ekl,l->e", features, self._blocks[who], features)
        covariance: Floats = np.diag(wide)
        if self._posterior.full is not None:
            known = np.flatnonzero(who >= 0)
            between = np.einsum("k,ekg->eg", features, self._posterior.full @ features)
            covariance[np.ix_(known, known)] = between[np.ix_(who[known], who[known])]
        narrow = np.sqrt(self._variances(expert_ids, features) / wide)
        covariance = narrow[:, None] * covariance * narrow
        return covariance + beyond * np.eye(len(who))


def _wins(vote: Vote, expert: str) -> float:
    if vote.outcome == "tie":
        return 1 / len(vote.shown)
    return float(vote.outcome == "win" and vote.winner == expert)


def _with_stranger(posterior: Posterior) -> tuple[Floats, Floats]:
    """Means and blocks with one more expert at the end, whom nobody has voted on."""
    width = posterior.mean.shape[1]
    variances = np.full(width, posterior.node_sd**2)
    variances[0] = posterior.global_sd**2
    mean = np.concatenate([posterior.mean, np.zeros((1, width))])
    return mean, np.concatenate([posterior.blocks, np.diag(variances)[None]])


def _version(votes: Sequence[Vote], priors: Priors) -> str:
    if not votes:
        return UNTAUGHT
    digest = sha256(priors.fingerprint.encode())
    for vote in votes:
        digest.update(json.dumps(vote.to_record(), sort_keys=True).encode())
    return f"r-{digest.hexdigest()[:12]}"
