"""The ranking table: what votes have taught, with every number explained."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import IO, TYPE_CHECKING, NamedTuple

import numpy as np

from diffusiongpt.errors import VoteError
from diffusiongpt.files import replace_file
from diffusiongpt.ranking.learnt import Learnt, Said, without_task
from diffusiongpt.ranking.model import DEFAULTS, FitOptions, Fitted, Prompt, Tallies
from diffusiongpt.ranking.table_file import About, read, write
from diffusiongpt.zoo import is_editing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from diffusiongpt.embedding import Embedder
    from diffusiongpt.ranking.model import Floats, Judgement, RatingNoise, Scales
    from diffusiongpt.ranking.priors import Priors
    from diffusiongpt.votes import Rating, Vote


NO_VOTES = "r0"
"""Version of a table without votes."""

NOTHING_LEARNT = Learnt()
"""What is learnt of a task before the first vote on it."""


class Score(NamedTuple):
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

    Changing pictures by instruction is another skill than drawing them: votes whose evidence has `EDITING` are learnt
    apart, with levels, offsets, scales and a cross-validation of their own, and count on such prompts alone.

    Attributes:
        priors: The priors it was fitted on top of.
        tallies: Counts of votes and ratings; those on edits are counted at `EDITING` alone.
        pending: Votes and ratings added since the fit.
    """

    def __init__(
        self,
        priors: Priors,
        drawing: Learnt = NOTHING_LEARNT,
        editing: Learnt = NOTHING_LEARNT,
        tallies: Tallies | None = None,
        *,
        pending: int = 0,
    ) -> None:
        self.priors = priors
        self.tallies = tallies or Tallies()
        self.pending = pending
        self._drawing, self._editing = drawing, editing

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
        said = Said.of(votes, ratings)
        drawing, editing = (
            Learnt.fit(said.about(editing=edits), priors, embedder=embedder, options=options) for edits in (False, True)
        )
        return cls(priors, drawing, editing, Tallies().plus(said.votes, said.ratings))

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
        said = Said.of(votes, ratings, earlier)
        pending_now = (len(said.votes) + len(said.ratings)) * pending
        drawing, editing = (
            part.updated(said.about(editing=edits), self.priors)
            for part, edits in ((self._drawing, False), (self._editing, True))
        )
        tallies = self.tallies.plus(said.votes, said.ratings)
        return RankingTable(self.priors, drawing, editing, tallies, pending=self.pending + pending_now)

    def save(self, path: Path) -> None:
        """Write the table to a file; an existing file is replaced.

        Raises:
            VoteError: If it cannot be written, or compares sentences by an embedder, which no file can hold.
        """
        try:
            replace_file(path, self.write)
        except OSError as error:
            raise VoteError(
                f"could not write {path}: {error.strerror}", hint="Name a file that you may write to."
            ) from error

    def write(self, stream: IO[bytes], seen: str = "") -> None:
        """Write the contents of a file with this table.

        Args:
            stream: Takes the bytes.
            seen: Version of the store it was learnt from, for a snapshot next to that store; without it, the file
                names no voters and can be given to others.

        Raises:
            VoteError: If it compares sentences by an embedder, which no file can hold.
        """
        counted = self.tallies
        about = About(
            experts=tuple(self._drawing.experts),
            votes=counted.votes,
            ratings=counted.ratings,
            digest=f"{counted.digest:x}",
            counts=counted.counts,
            pending=self.pending,
            priors=self.priors.fingerprint,
            seen=seen,
            scatters=self._drawing.noise if seen else {},
            editors=tuple(self._editing.experts),
            edit_scatters=self._editing.noise if seen else {},
        )
        write(stream, self._drawing.fitted, about, self._editing.fitted if self._editing.experts else None)

    def as_bytes(self) -> bytes:
        """The contents of a file with this table; see `write`."""
        file = BytesIO()
        self.write(file)
        return file.getvalue()

    @classmethod
    def load(cls, path: Path, priors: Priors) -> RankingTable:
        """The table of a file on top of priors, which should be those it was fitted on.

        Raises:
            VoteError: If it cannot be read, is damaged, is not such a file, or was written by a newer version.
        """
        return cls.of(*read(path), priors)

    @classmethod
    def of(cls, fitted: Fitted, editing: Fitted | None, about: About, priors: Priors) -> RankingTable:
        """The table of what was read from a file."""
        tallies = Tallies(about.votes, about.ratings, int(about.digest, 16), about.counts)
        rows = {expert: row for row, expert in enumerate(about.experts)}
        edits = {expert: row for row, expert in enumerate(about.editors)}
        drawing = Learnt(fitted, rows, about.scatters)
        changing = NOTHING_LEARNT if editing is None else Learnt(editing, edits, about.edit_scatters)
        return cls(priors, drawing, changing, tallies, pending=about.pending)

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
        return f"RankingTable({self.version!r}, {self.tallies.votes} votes, {len(self.experts)} experts)"

    @property
    def size(self) -> int:
        """Number of votes and ratings it has learnt from."""
        return self.tallies.votes + self.tallies.ratings

    @property
    def experts(self) -> frozenset[str]:
        """The experts that votes or ratings are about."""
        return frozenset((*self._drawing.experts, *self._editing.experts))

    @property
    def noise(self) -> Mapping[str, RatingNoise]:
        """Noise of the ratings of each rater at the fit, where pictures were drawn."""
        return self._drawing.noise

    @property
    def scales(self) -> Scales:
        """Prior standard deviations that the fit chose."""
        return self._drawing.fitted.scales

    @property
    def beats_best_single(self) -> bool:
        """Whether choosing by prompt was found to beat the best single expert; if not, only levels are learnt."""
        return self._drawing.fitted.beats_best_single

    def utilities(self, expert_ids: Sequence[str], prompts: Sequence[Prompt]) -> Floats:
        """What votes add to the prior of experts on many prompts, in log-odds, shape (prompts, experts)."""
        utilities = np.zeros((len(prompts), len(expert_ids)))
        for part, edits in ((self._drawing, False), (self._editing, True)):
            rows = [row for row, prompt in enumerate(prompts) if is_editing(prompt.evidence) is edits]
            if rows and part.experts:
                utilities[rows] = part.utilities(expert_ids, [prompts[row] for row in rows])
        return utilities

    def score(self, expert_ids: Sequence[str], evidence: Mapping[str, float], text: str = "") -> list[Score]:
        """Score experts for a prompt, in the order given; an expert without votes has its prior and a wide std.

        Args:
            expert_ids: Experts to score.
            evidence: Probability per taxonomy node.
            text: The prompt; without it the residual is 0.
        """
        part = self._part(evidence)
        judged = part.fitted.judge(without_task(Prompt(text, evidence)), part.index_of(expert_ids))
        parts = {
            **self.priors.parts(expert_ids, evidence),
            "global": judged.level,
            "nodes": judged.nodes,
            "residual": judged.residual,
        }
        stds = np.sqrt(self._variances(expert_ids, judged, editing=is_editing(evidence))).tolist()
        columns = zip(*(values.tolist() for values in parts.values()), strict=True)
        return [
            Score(expert, sum(column), std, dict(zip(parts, column, strict=True)))
            for expert, column, std in zip(expert_ids, columns, stds, strict=True)
        ]

    def means(self, expert_ids: Sequence[str], evidence: Mapping[str, float]) -> Floats:
        """The means of `score` for prompts of which no more than the evidence is known, shape (experts,)."""
        part = self._part(evidence)
        judged = part.fitted.judge(without_task(Prompt("", evidence)), part.index_of(expert_ids))
        means: Floats = self.priors.points(expert_ids, evidence) + judged.level + judged.nodes + judged.residual
        return means

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
        part, prompt = self._part(evidence), without_task(Prompt(text, evidence))
        index = part.index_of(expert_ids)
        judged = part.fitted.judge(prompt, index)
        # correlations are those of the fit; standard deviations are those that are printed
        narrow = np.sqrt(self._variances(expert_ids, judged, editing=is_editing(evidence)) / judged.variance)
        covariance = narrow[:, None] * part.fitted.covariance(prompt, index) * narrow
        root = np.linalg.cholesky(covariance + 1e-12 * np.eye(len(expert_ids)))
        return mean + rng.standard_normal((n, len(expert_ids))) @ root.T

    def leaders(self, node: str, k: int = 3) -> tuple[str, ...]:
        """The experts that votes favour at a node, whatever their tags say, best first.

        Those whose posterior mean of global level plus offset is positive; empty for a node without votes.
        """
        return self._best(Prompt("", {node: 1.0}), k) if node in self._drawing.fitted.space.nodes else ()

    def leaders_on(self, text: str, evidence: Mapping[str, float], k: int = 3) -> tuple[str, ...]:
        """The experts that votes favour on prompts like this one, whatever their tags say, best first."""
        return self._best(Prompt(text, evidence), k)

    def _best(self, prompt: Prompt, k: int) -> tuple[str, ...]:
        names = tuple(self._part(prompt.evidence).experts)
        if not names:
            return ()
        utilities = self.utilities(names, [prompt])[0]
        # experts are kept in alphabetical order, and a stable sort leaves ties in it
        best = np.argsort(-utilities, kind="stable")[:k].tolist()
        return tuple(names[index] for index in best if utilities[index] > 0)

    def standings(self, node: str | None = None, expert_ids: Iterable[str] = ()) -> list[Standing]:
        """The ranking at a node, or over all prompts; best first.

        Args:
            node: Taxonomy node, or `EDITING` for changing pictures; all drawings if it is `None`.
            expert_ids: Experts to list in addition to those with a vote.
        """
        on = {node: 1.0} if node is not None else {}
        experts = sorted({*self._part(on).experts, *expert_ids})
        tallies = self.tallies.at(node)
        scores = self.score(experts, on)
        standings = [Standing(s.expert, s.mean, s.std, *tallies.get(s.expert, (0, 0.0))) for s in scores]
        return sorted(standings, key=lambda one: (-one.mean, one.expert))

    def _part(self, evidence: Mapping[str, float]) -> Learnt:
        """What was learnt about the task of a prompt."""
        return self._editing if is_editing(evidence) else self._drawing

    def _variances(self, expert_ids: Sequence[str], judged: Judgement, *, editing: bool) -> Floats:
        """Variance of each expert, narrowed by what its prior knows about its level.

        The fit has one prior variance for every level. A prior that leaves only the share `doubt` of that standard
        deviation adds precision to one coordinate of the posterior, by the Sherman-Morrison formula.
        """
        level = (self._editing if editing else self._drawing).fitted.scales.level
        known = (self.priors.doubt(expert_ids, editing=editing) ** -2 - 1) / level**2
        taken: Floats = known * judged.level_covariance**2 / (1 + known * judged.level_variance)
        # rounding, or a table of someone else, can leave a tiny negative variance
        return np.asarray(np.maximum(judged.variance - taken, 0.0), dtype=np.float64)
