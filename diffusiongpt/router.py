"""The router: understand, search, rank. It plans and never loads anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter

from diffusiongpt.eligibility import Eligibility, filter_experts, hint_for
from diffusiongpt.errors import NoRouteError
from diffusiongpt.expert import Expert
from diffusiongpt.preferences import Preferences, RankingTable, TagPriors
from diffusiongpt.request import Policy, Request
from diffusiongpt.resolve import prompt_for
from diffusiongpt.route import Candidate, Readiness, Route
from diffusiongpt.search import SearchTrace, search
from diffusiongpt.taxonomy import ROOT
from diffusiongpt.thinkers import Thinker, Thought
from diffusiongpt.zoo import Zoo

FAST_MARGIN = 0.5
"""Log-odds that a loaded expert may be behind and still be taken with `prefer="fast"`: it would lose 62 of
100 comparisons at most, as sigmoid(.5) = .622."""


class Router:
    """Chooses an expert for a prompt.

    Same zoo, ranking version, prompt, policy and thinker: same route.

    Args:
        zoo: The experts.
        thinker: Who reads prompts.
        preferences: What people prefer.
        embedder: Name of the embedder the thinker uses, for the record.
        readiness: What it would take to draw with an expert here; never touches the network.
    """

    def __init__(
        self,
        zoo: Zoo,
        thinker: Thinker,
        preferences: Preferences,
        *,
        embedder: str,
        readiness: Callable[[Expert], Readiness],
    ) -> None:
        self.zoo = zoo
        self.thinker = thinker
        self.preferences = preferences
        self._embedder = embedder
        self._readiness = readiness
        self._priors = TagPriors.of(zoo.values())
        self._nodes = tuple(zoo.taxonomy.nodes.values())

    def table(self) -> RankingTable:
        """The ranking table for the votes there are now."""
        return self.preferences.table(self._priors)

    def route(self, request: Request, policy: Policy | None = None, *, history: Sequence[str] = ()) -> Route:
        """Choose an expert.

        Raises:
            RequestError: If the request cannot be drawn as asked.
            NoRouteError: If every expert is rejected; it lists the reasons.
            UnknownExpertError: If the request names an expert that the zoo does not have.
        """
        policy = policy or Policy()
        clock = _Clock()
        thought = self.thinker.think(request.checked().prompt, history, self._nodes)
        clock.lap("understand")
        allowed = self._allowed(request, thought, policy)
        table = self.table()
        trace = search(self.zoo.taxonomy, thought.values, eligible=allowed.eligible, leaders=table.leaders)
        clock.lap("search")
        evidence = evidence_for(thought, trace)
        scored = allowed.eligible if request.expert else trace.experts
        candidates = self._rank(scored, evidence, table)
        expert = _choose(candidates, policy)
        clock.lap("rank")
        return Route(
            input=request.prompt,
            prompt=prompt_for(thought.understanding, self.zoo[expert]),
            expert=expert,
            path=trace.paths[0].nodes,
            understanding=thought.understanding.model_copy(update={"evidence": evidence}),
            said=thought.said,
            candidates=candidates,
            rejected=allowed.rejected,
            unmet=allowed.unmet,
            thinker=thought.thinker,
            fallback_reason=thought.fallback_reason,
            embedder=self._embedder,
            llm_calls=thought.llm_calls,
            ranking_version=table.version,
            seed=request.seed,
            timings_ms=clock.laps(),
            trace=trace,
        )

    def _allowed(self, request: Request, thought: Thought, policy: Policy) -> Eligibility:
        experts = [self.zoo[request.expert]] if request.expert else list(self.zoo.values())
        allowed = filter_experts(experts, thought.understanding, policy)
        if not allowed.eligible:
            raise NoRouteError(
                f"no expert may draw this: {len(allowed.rejected)} rejected",
                rejected=[(rejection.expert, rejection.reason) for rejection in allowed.rejected],
                hint=hint_for(allowed.rejected),
            )
        return allowed

    def _rank(
        self, experts: Sequence[str], evidence: Mapping[str, float], table: RankingTable
    ) -> tuple[Candidate, ...]:
        candidates = [
            Candidate(
                expert=score.expert,
                score=score.mean,
                std=score.std,
                parts=score.parts,
                readiness=self._readiness(self.zoo[score.expert]),
            )
            for score in table.score(experts, evidence)
        ]
        order = {expert: index for index, expert in enumerate(self.zoo)}
        return tuple(sorted(candidates, key=lambda c: (-round(c.score, 9), order[c.expert])))


def evidence_for(thought: Thought, trace: SearchTrace) -> dict[str, float]:
    """What the ranking table is told: every node's probability, the root's being what no branch could take."""
    evidence = {node: round(p, 9) for node, p in thought.values.items() if p > 0}
    return {**evidence, ROOT: trace.evidence[ROOT]}


def _choose(candidates: Sequence[Candidate], policy: Policy) -> str:
    best = candidates[0]
    if policy.prefer == "fast":
        near = (c for c in candidates if c.readiness == "loaded" and best.score - c.score <= FAST_MARGIN)
        best = next(near, best)
    return best.expert


class _Clock:
    def __init__(self) -> None:
        self._start = self._last = perf_counter()
        self._laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = perf_counter()
        self._laps[name] = round((now - self._last) * 1000, 3)
        self._last = now

    def laps(self) -> dict[str, float]:
        return {**self._laps, "total": round((self._last - self._start) * 1000, 3)}
