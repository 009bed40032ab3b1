"""The ranking table: what votes have taught, every number explained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from diffusiongpt.errors import VoteError
from diffusiongpt.files import replace_file
from diffusiongpt.ranking.model.fitted import Learnt, nothing_learnt
from diffusiongpt.ranking.model.observations import scatters_of
from diffusiongpt.ranking.model.rows import OUTSIDE, Prompts, Tallies, rating_rows, vote_rows
from diffusiongpt.ranking.model.space import Prompt
from diffusiongpt.ranking.snapshot import About, as_bytes, read

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from diffusiongpt.embedding.lexical import Embedder
    from diffusiongpt.ranking.model.fitted import Judgement
    from diffusiongpt.ranking.model.laplace import Scales
    from diffusiongpt.ranking.model.observations import Floats, Indexes, Scatter
    from diffusiongpt.ranking.priors import Priors
    from diffusiongpt.votes.vote import Rating, Vote


UNTAUGHT = "r0"
"""Version of a table without votes."""


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

    Immutable. One that `fit` makes is a pure function of the set of votes and ratings and the priors: neither their
    order nor their time matters, unless scales of an earlier fit were kept, which its version then names. A win
    enters by a logistic likelihood on differences of `u`, a tie as half a win each way, a ballot of k as its winner
    against each other one, together counting as one vote of its voter. "Both bad" is a vote for an outside option
    with a level of its own. Ratings enter by a Gaussian likelihood on differences within one prompt, on the scale of
    their source. The residual is what prompts like this one teach.

    Attributes:
        priors: The priors it was fitted on top of.
        tallies: What was counted.
        pending: Votes and ratings taken in since the fit.
        scatters: How ratings of each source scattered at the fit.
    """

    def __init__(
        self,
        priors: Priors,
        learnt: Learnt | None = None,
        experts: Sequence[str] = (),
        tallies: Tallies | None = None,
        *,
        pending: int = 0,
        scatters: Mapping[str, Scatter] | None = None,
    ) -> None:
        self.priors = priors
        self.tallies = tallies or Tallies()
        self.pending = pending
        self.scatters = scatters or {}
        self._learnt = learnt or nothing_learnt()
        self._experts = {expert: i for i, expert in enumerate(experts)}

    @classmethod
    def fit(
        cls,
        votes: Iterable[Vote],
        priors: Priors,
        ratings: Iterable[Rating] = (),
        *,
        embedder: Embedder | None = None,
        before: Scales | None = None,
    ) -> RankingTable:
        """The table that these votes and ratings teach.

        Args:
            votes: Votes.
            priors: What is believed without them.
            ratings: Ratings.
            embedder: Embeds sentences, if prompts are to be compared by their meaning too.
            before: Scales of the last fit; they stay if those found now predict votes held out worse.
        """
        cast, rated = sorted(votes, key=lambda vote: vote.id), sorted(ratings, key=lambda rating: rating.id)
        names = _named(cast, rated)
        if not names:
            return cls(priors)
        outside = any(vote.outcome == "both_bad" for vote in cast)
        prompts, indexes = Prompts(), _indexes(names, outside=outside)
        scattered = scatters_of(rated)
        rows = vote_rows(cast, priors, indexes, prompts), rating_rows(rated, priors, indexes, prompts, scattered)
        learnt = Learnt.fit(prompts.known, len(indexes), *rows, outside=outside, embedder=embedder, before=before)
        return cls(priors, learnt, names, Tallies().plus(cast, rated), scatters=scattered)

    def updated(
        self,
        votes: Iterable[Vote],
        ratings: Iterable[Rating] = (),
        beside: Iterable[Rating] = (),
        *,
        pending: bool = True,
    ) -> RankingTable:
        """The table that knows these too, without a fit: each is taken in by itself.

        It has the nodes, the landmarks and the scales of this one, and reads ratings on the scale that their source
        had at the fit; those of a source that is new are read by what there is of it here. A ballot that is split
        over several votes shares the weight of one only if they come together.

        Args:
            votes: New votes.
            ratings: New ratings.
            beside: Ratings that it knows, of the same prompts and voters: new ones say something beside these.
            pending: Whether they count as taken in since the fit.
        """
        cast, rated = sorted(votes, key=lambda vote: vote.id), sorted(ratings, key=lambda rating: rating.id)
        known = sorted(beside, key=lambda rating: rating.id)
        names = sorted({*self._experts, *_named(cast, [*known, *rated])})
        had_outside = self._rows > len(self._experts)
        outside = had_outside or any(vote.outcome == "both_bad" for vote in cast)
        prompts, indexes = Prompts(), _indexes(names, outside=outside)
        voted = vote_rows(cast, self.priors, indexes, prompts)
        in_rows = rating_rows([*known, *rated], self.priors, indexes, prompts, self.scatters)
        before = {**self._experts, **({OUTSIDE: len(self._experts)} if had_outside else {})}
        order = np.array([before.get(name, -1) for name in indexes], dtype=np.intp)
        return RankingTable(
            self.priors,
            self._learnt.updated(prompts.known, order, voted, in_rows, known=len(known), outside=outside),
            names,
            self.tallies.plus(cast, rated),
            pending=self.pending + (len(cast) + len(rated)) * pending,
            scatters=self.scatters,
        )

    def save(self, path: Path) -> None:
        """Write the table into a file, in place of one that is there.

        Raises:
            VoteError: If it cannot be written, or compares sentences by an embedder, which no file can hold.
        """
        try:
            replace_file(path, self.as_bytes())
        except OSError as error:
            raise VoteError(f"cannot write {path}: {error.strerror}", hint="Name a file you may write to.") from error

    def as_bytes(self, seen: str = "") -> bytes:
        """The table as a file.

        Args:
            seen: Version of the store that it was learnt from, if it is to be found again there.

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
            kept=self._learnt.kept,
            priors=self.priors.fingerprint,
            seen=seen,
            scatters=self.scatters if seen else {},
        )
        return as_bytes(self._learnt, about)

    @classmethod
    def load(cls, path: Path, priors: Priors) -> RankingTable:
        """The table of a file, on top of these priors; best of those that it was learnt with.

        Raises:
            VoteError: If it cannot be read, is damaged, is no such table, or was written by a newer version.
        """
        return cls.of(*read(path), priors)

    @classmethod
    def of(cls, learnt: Learnt, about: About, priors: Priors) -> RankingTable:
        """The table of what was read from a file."""
        tallies = Tallies(about.votes, about.ratings, int(about.digest, 16), about.counts)
        return cls(priors, learnt, about.experts, tallies, pending=about.pending, scatters=about.scatters)

    @property
    def version(self) -> str:
        """Name of this state of knowledge: `r0` without votes, else a hash of votes, ratings and priors.

        With `+3`, the last three of them were taken in since the fit. Where a refit kept the scales of the one before,
        they are in the hash too.
        """
        if not self.tallies.votes and not self.tallies.ratings:
            return UNTAUGHT
        kept = [str(tuple(self._learnt.scales))] if self._learnt.kept else []
        pending = f"+{self.pending}" if self.pending else ""
        return f"r-{self.tallies.name(self.priors.fingerprint, *kept)}{pending}"

    def __repr__(self) -> str:
        return f"RankingTable({self.version!r}, {self.tallies.votes} votes, {len(self._experts)} experts)"

    @property
    def size(self) -> int:
        """Votes and ratings it has learnt from."""
        return self.tallies.votes + self.tallies.ratings

    @property
    def scales(self) -> Scales:
        """Prior standard deviations that the fit chose."""
        return self._learnt.scales

    @property
    def routing_pays(self) -> bool:
        """Whether choosing by prompt was found to beat the single best expert; if not, only levels are learnt."""
        return self._learnt.pays

    def learnt(self, expert_ids: Sequence[str], prompts: Sequence[Prompt]) -> Floats:
        """Score less prior of experts on many prompts at once, shape (prompts, experts)."""
        who = self._who(expert_ids)
        learnt = np.zeros((len(prompts), len(who)))
        learnt[:, who >= 0] = self._learnt.utilities(prompts)[:, who[who >= 0]]
        return learnt

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
        return self._best(Prompt("", {node: 1.0}), k) if node in self._learnt.space.nodes else ()

    def leaders_on(self, text: str, evidence: Mapping[str, float], k: int = 3) -> tuple[str, ...]:
        """The experts that votes speak well of on prompts like this one, whatever their tags say, best first."""
        return self._best(Prompt(text, evidence), k)

    def _best(self, prompt: Prompt, k: int) -> tuple[str, ...]:
        names = tuple(self._experts)
        learnt = self.learnt(names, [prompt])[0]
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
        tallies = self.tallies.at(node)
        scores = self.score(experts, {node: 1.0} if node is not None else {})
        rows = [Row(s.expert, s.mean, s.std, *tallies.get(s.expert, (0, 0.0))) for s in scores]
        return sorted(rows, key=lambda row: (-row.mean, row.expert))

    @property
    def _rows(self) -> int:
        """Experts that have weights, the outside option among them."""
        return len(self._learnt.worded.mean)

    def _who(self, expert_ids: Sequence[str]) -> Indexes:
        return np.array([self._experts.get(expert, -1) for expert in expert_ids], dtype=np.intp)

    def _variances(self, expert_ids: Sequence[str], judged: Judgement) -> Floats:
        """Variance of each expert, narrowed by what its prior knows about its level.

        The fit believes the same of every level; to say that a prior leaves only a share of that doubt is to add
        precision to one coordinate of the posterior (the Sherman-Morrison formula).
        """
        known = (self.priors.doubt(expert_ids) ** -2 - 1) / self._learnt.scales.level**2
        taken: Floats = known * judged.level_covariance**2 / (1 + known * judged.level_variance)
        return np.asarray(judged.variance - taken, dtype=np.float64)


def _named(votes: Iterable[Vote], ratings: Iterable[Rating]) -> list[str]:
    return sorted({expert for vote in votes for expert in vote.experts} | {rating.expert for rating in ratings})


def _indexes(names: Sequence[str], *, outside: bool) -> dict[str, int]:
    """Index of each expert, the outside option's being the last."""
    return {name: i for i, name in enumerate([*names, *([OUTSIDE] if outside else [])])}
