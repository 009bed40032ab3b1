"""The router: understand, search, rank. It plans and never loads anything."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from time import perf_counter

from diffusiongpt.backends import nearest_task_of, tasks_of
from diffusiongpt.errors import NoRouteError
from diffusiongpt.flow import (
    Background,
    Candidate,
    Placement,
    Policy,
    Readiness,
    Request,
    Route,
    SearchTrace,
    Understanding,
    wanted_task,
)
from diffusiongpt.placement import KindsPlanner, Planner
from diffusiongpt.ranking import (
    KIND,
    LANGUAGE,
    REWRITTEN,
    SEVERAL_PICTURES,
    LiveTable,
    PersonalTable,
    PublishedPriors,
    RankingTable,
)
from diffusiongpt.routing.choose import choose, near_ties
from diffusiongpt.routing.eligibility import (
    Eligibility,
    filter_experts,
    hint_for,
    needs_of,
    prompt_language,
    stated_price,
)
from diffusiongpt.routing.search import Shortlists, search
from diffusiongpt.routing.terms import terms, too_slow
from diffusiongpt.settings import Memory
from diffusiongpt.understanding import (
    KindReader,
    NeedReader,
    Thinker,
    Thought,
    asked_of,
    is_cut_out,
    prompt_form,
    read_literals,
)
from diffusiongpt.zoo import EDITING, ROOT, Expert, Taxonomy, Zoo, is_editing

_KEPT_FILTERS = 64
"""Answers of the filter that are kept; policies with a price of their own are as many as callers like."""

_MINE = 50
"""Own experts that are scored although the search did not meet them, where these are preferred."""

_NAMED_P = 0.2
"""Probability from which one of several styles counts as asked for."""

_MEANT_P = 0.5
"""Probability from which the figures of a kind are named as the reason for a choice."""


class Router:
    """Chooses an expert for a prompt.

    Same zoo, ranking version, prompt, voter, policy and thinker: same route; to explore, also the same seed.

    Args:
        zoo: The experts to choose from.
        thinker: Reads prompts.
        preferences: What people prefer.
        embedder: Name of the embedder the thinker uses when it names none, for the record.
        readiness: What it would take to draw with an expert here; never touches the network.
        planner: Plans for the memory that was asked for, `None` for this machine's; without it every expert fits.
        kinds: Reads what kind of prompt it is; without it published figures count by style, subject and need alone.
        free: Ids and backends of hosted experts that cost nothing by the word of the user.
    """

    def __init__(
        self,
        zoo: Zoo,
        thinker: Thinker,
        preferences: LiveTable,
        *,
        embedder: str,
        readiness: Callable[[Expert], Readiness],
        planner: Callable[[Memory | None], Planner | KindsPlanner] | None = None,
        kinds: KindReader | None = None,
        free: Collection[str] = (),
    ) -> None:
        self.zoo = zoo
        self.thinker = thinker
        self.preferences = preferences
        self._embedder = embedder
        self._readiness = readiness
        self._planner = planner
        self._free = free
        editors = {one.id for one in zoo.values() if "edit" in tasks_of(one)}
        self._priors = PublishedPriors.of(zoo.values(), editors=editors)
        self._nodes = tuple(zoo.taxonomy.nodes.values())
        self._needs = NeedReader(zoo.taxonomy.needs.values())
        self._edits = NeedReader(zoo.taxonomy.edits.values())
        self._kinds = kinds
        self._experts = tuple(zoo.values())
        self._order = {expert: index for index, expert in enumerate(zoo)}
        self._shortlists: Shortlists | None = None
        self._filtered: dict[tuple[object, ...], Eligibility] = {}

    def table(self) -> RankingTable:
        """The ranking table for the votes there are now, however long it takes to learn it.

        Raises:
            VoteError: If the votes cannot be read.
        """
        return self.preferences.table(self._priors)

    def table_of(self, voter: str | None) -> PersonalTable:
        """The table that a route for a voter uses; everyone's for `None`."""
        return self.preferences.at_hand(self._priors, voter).table

    def may_draw(self, request: Request, understanding: Understanding, policy: Policy | None = None) -> tuple[str, ...]:
        """All experts that may draw a prompt, whether or not the search finds them, in zoo order."""
        return self._filter(request, understanding, policy or Policy()).eligible

    def route(self, request: Request, policy: Policy | None = None, *, history: Sequence[str] = ()) -> Route:
        """Choose an expert.

        Raises:
            NoRouteError: If every expert is rejected; it lists the reasons.
            UnknownExpertError: If the request names an expert that the zoo does not have.
        """
        policy = policy or Policy()
        clock = _Clock()
        thought = _on_background(self.thinker.think(request.prompt, history, self._nodes), request.background)
        clock.lap("understand")
        allowed = self._allowed(request, thought, policy)
        known = self.preferences.at_hand(self._priors, request.voter)
        table = known.table
        mine = self.zoo.own & allowed.names if policy.prefer_mine else frozenset()
        table = table.preferring(mine) if mine else table
        editing = allowed.task == "edit"
        shortlists, named = self._shortlists_of(table.table), _named(thought, self.zoo.taxonomy)
        trace = search(
            self.zoo.taxonomy,
            thought.values,
            eligible=allowed.names,
            # experts that lead in drawing pictures need not change them well
            leaders=(lambda _: ()) if editing else table.leaders,
            best=partial(shortlists.best, also=named, editing=editing),
        )
        clock.lap("search")
        plain = read_literals(request.prompt).prompt
        evidence = evidence_for(thought, trace) | form_evidence(plain, thought.understanding)
        if editing:
            evidence |= self._read_edit(plain, len(request.image))
        else:
            evidence |= {REWRITTEN: 1.0} if request.rewrite and thought.understanding.rewritten else {}
            evidence |= self._read_needs(plain, thought.understanding) | self._read_kinds(thought)
        asked = () if request.named else self._asked_for(thought, allowed)
        scored = asked or (
            allowed.eligible if request.named else self._worth_scoring(request.prompt, evidence, trace, table)
        )
        scored = tuple(expert for expert in scored if expert in allowed.names)
        if not asked:
            scored = (*scored, *sorted(mine.difference(scored), key=self._order.__getitem__)[:_MINE])
        if policy.prefer == "fast" and not asked:
            scored = (*scored, *self._loaded(trace, allowed.names.difference(scored)))
        candidates = self._rank(scored, evidence, request, table, policy)
        choice = choose(candidates, request, table, evidence)
        clock.lap("rank")
        chosen = self.zoo[choice.expert]
        task = nearest_task_of(chosen, wanted_task(request, thought.understanding)) or "text-to-image"
        return Route(
            input=request.prompt,
            prompt=asked_of(chosen, request, thought.understanding, task).prompt,
            expert=choice.expert,
            task=task,
            placement=next(one.placement for one in candidates if one.expert == choice.expert),
            path=trace.paths[0].nodes,
            understanding=thought.understanding.model_copy(update={"evidence": evidence}),
            matched=thought.matched,
            candidates=candidates,
            near_ties=near_ties(candidates, choice.expert),
            propensities=choice.propensities,
            rejected=allowed.rejected,
            unmet=allowed.unmet,
            matting=is_cut_out(thought.understanding, chosen, task),
            thinker=thought.thinker,
            fallback_reason=thought.fallback_reason,
            embedder=thought.embedder or self._embedder,
            llm_calls=thought.llm_calls,
            evidence=self._evidence(choice.expert, candidates, thought.understanding, evidence),
            ranking_version=table.version,
            zoo_version=self.zoo.version,
            ranking=known.ranking,
            seed=choice.seed,
            timings_ms=clock.laps(),
            trace=trace,
        )

    def widen(self, route: Route, request: Request, policy: Policy, among: Collection[str]) -> Route:
        """A route with more candidates: experts that may draw it and that its search did not find worth scoring.

        They are scored on the evidence that the route was made with, and do not change its choice.

        Args:
            route: A route of the whole zoo, not one of experts that were asked for by name.
            request: The request it is of.
            policy: The policy it was made under.
            among: Ids of the experts that may join.
        """
        known = {one.expert for one in route.candidates} | {one.expert for one in route.rejected}
        left = [expert for expert in self._order if expert in among and expert not in known]
        table = self.preferences.at_hand(self._priors, request.voter).table
        more = self._rank(left, route.understanding.evidence, request, table, policy) if left else ()
        added = (one.model_copy(update={"added": True}) for one in more)
        candidates = sorted((*route.candidates, *added), key=lambda one: (-round(one.score, 9), one.added))
        return route.model_copy(update={"candidates": tuple(candidates)})

    def with_cut_outs(self, route: Route, request: Request, policy: Policy) -> Route:
        """The same with experts that draw no transparent background: what they draw on a plain one is cut out.

        Args:
            route: A route of the whole zoo that left them out, since some expert draws one.
            request: The request it is of.
            policy: The policy it was made under.
        """
        opaque = route.understanding.model_copy(update={"transparent_background": False})
        able = self._filter(request, opaque, policy).names
        rejected = tuple(one for one in route.rejected if one.expert not in able)
        return self.widen(route.model_copy(update={"rejected": rejected}), request, policy, able)

    def _asked_for(self, thought: Thought, allowed: Eligibility) -> tuple[str, ...]:
        """The adapter that the prompt names as a LoRA, where the zoo has it and it may draw."""
        names = [one.name for one in thought.understanding.markup.adapters]
        known = (one.id for one in (self._experts if names else ()) if any(one.goes_by(name) for name in names))
        return tuple(expert for expert in known if expert in allowed.names)[:1]

    @staticmethod
    def _worth_scoring(
        prompt: str, evidence: Mapping[str, float], trace: SearchTrace, table: PersonalTable
    ) -> tuple[str, ...]:
        """The experts that the search met, and those that votes on similar prompts favour, wherever they hang."""
        return tuple(dict.fromkeys((*trace.experts, *table.leaders_on(prompt, evidence))))

    def _evidence(
        self, expert: str, candidates: Sequence[Candidate], understanding: Understanding, on: Mapping[str, float]
    ) -> str:
        """Published evidence for the chosen expert, compared with that for the best other one that is behind it."""
        others = [candidate.expert for candidate in candidates if candidate.expert != expert]
        kinds = [name for name, p in on.items() if name.startswith(KIND) and p >= _MEANT_P]
        asked = [*(weight.node for weight in (*understanding.styles, *understanding.subjects)), None]
        return self._priors.evidence(expert, others, [*kinds, *asked][0], editing=is_editing(on))

    def _read_edit(self, instruction: str, pictures: int) -> dict[str, float]:
        """What is known of a change to a picture: the needs and kinds of drawings say nothing of it."""
        several = {SEVERAL_PICTURES: 1.0} if pictures > 1 else {}
        return {EDITING: 1.0, **several, **self._edits.kinds_of(instruction)}

    def _read_kinds(self, thought: Thought) -> dict[str, float]:
        found = self._kinds.read(thought.understanding.prompt, thought.clauses) if self._kinds else {}
        return {f"{KIND}{kind}": p for kind, p in found.items()}

    def _read_needs(self, prompt: str, understanding: Understanding) -> dict[str, float]:
        quotes, count = bool(understanding.text_to_render), understanding.object_count
        return self._needs.read(prompt, quotes=quotes, count=count)

    def _allowed(self, request: Request, thought: Thought, policy: Policy) -> Eligibility:
        allowed = self._filter(request, thought.understanding, policy)
        if not allowed.eligible:
            only = allowed.rejected[0] if len(allowed.rejected) == 1 else None
            raise NoRouteError(
                f"{only.expert} cannot draw this: {only.reason}"
                if only
                else f"no expert may draw this: {len(allowed.rejected)} rejected",
                rejected=[(rejection.expert, rejection.reason) for rejection in allowed.rejected],
                hint=hint_for(allowed.rejected),
            )
        return allowed

    def _filter(self, request: Request, understanding: Understanding, policy: Policy) -> Eligibility:
        """Filter the zoo, or the experts that were asked for; a prompt that needs the same has the same answer."""
        task, pictures = wanted_task(request, understanding), len(request.image)
        follows = request.control_image is not None
        look = partial(filter_experts, task=task, pictures=pictures, follows=follows, free=self._free)
        if request.named:
            named = [self.zoo[expert] for expert in request.named]
            unfit = self._unfit(named, request, policy)
            return look(named, understanding, policy, unfit)
        unfit = self._unfit(self._experts, request, policy)
        key = (policy, task, follows, *(need.name for need in needs_of(understanding, pictures)), *unfit.items())
        known = self._filtered.get(key)
        if known is None:
            known = look(self._experts, understanding, policy, unfit)
            if len(self._filtered) >= _KEPT_FILTERS:
                self._filtered.clear()
            self._filtered[key] = known
        return known

    def _unfit(self, experts: Iterable[Expert], request: Request, policy: Policy) -> dict[str, str]:
        """Expert -> why it cannot draw on the machine that the route is for, or takes too long there.

        An expert that was asked for by name may be of unknown size: its headers are read before it is pulled. What it
        lacks is then said when it is to draw.
        """
        if self._planner is None:
            return {}
        planner = self._planner(policy.memory)
        reasons = {}
        for one in experts:
            reason = planner.why_not(one, width=request.width, height=request.height)
            if reason and request.named and not planner(one).sized:
                reason = ""
            if not reason and not request.named:
                reason = planner.lacks(one)
            if not reason and policy.max_wait is not None:
                reason = too_slow(self._placement(one, self._readiness(one), request, planner), policy.max_wait)
            if reason:
                reasons[one.id] = reason
        return reasons

    def _placement(
        self, expert: Expert, readiness: Readiness, request: Request, planner: Planner | KindsPlanner | None
    ) -> Placement | None:
        if planner is None:
            return None
        size = {"width": request.width, "height": request.height}
        steps = request.num_inference_steps
        return planner(expert, **size, steps=steps, readiness=readiness).best or planner.unknown

    def _loaded(self, trace: SearchTrace, others: frozenset[str]) -> list[str]:
        """Loaded experts on the paths of the search that were not worth scoring for their own sake."""
        met = {expert for step in trace.steps for expert in self.zoo.taxonomy.experts_on(step.path[-1])}
        return [expert for expert in sorted(met & others) if self._readiness(self.zoo[expert]) == "loaded"]

    def _shortlists_of(self, table: RankingTable) -> Shortlists:
        shortlists = self._shortlists
        if shortlists is None or shortlists.table is not table:
            shortlists = self._shortlists = Shortlists(self.zoo, table)
        return shortlists

    def _rank(
        self,
        experts: Sequence[str],
        evidence: Mapping[str, float],
        request: Request,
        table: PersonalTable,
        policy: Policy,
    ) -> tuple[Candidate, ...]:
        planner = self._planner(policy.memory) if self._planner else None
        candidates = []
        for score in table.score(experts, evidence, request.prompt):
            expert = self.zoo[score.expert]
            readiness = self._readiness(expert)
            placement = self._placement(expert, readiness, request, planner)
            usd = stated_price(expert, self._free)
            costs = terms(policy.prefer, placement, readiness, usd, policy.max_price)
            candidates.append(
                Candidate(
                    expert=score.expert,
                    score=score.mean + sum(costs.values()),
                    std=score.std,
                    parts={**score.parts, **costs},
                    readiness=readiness,
                    placement=placement,
                )
            )
        return tuple(sorted(candidates, key=lambda c: (-round(c.score, 9), self._order[c.expert])))


def _on_background(thought: Thought, background: Background) -> Thought:
    """A reading of a prompt with the background that was asked for separately."""
    if background == "auto":
        return thought
    wanted = {"transparent_background": background == "transparent"}
    return replace(thought, understanding=thought.understanding.model_copy(update=wanted))


def _named(thought: Thought, taxonomy: Taxonomy) -> frozenset[str]:
    """Styles that a prompt is about to a good part; none if it is one alone."""
    asked = (taxonomy.nodes.get(node) for node, p in thought.values.items() if p >= _NAMED_P)
    styles = [node.id for node in asked if node is not None and node.kind == "style"]
    return frozenset(styles) if len(styles) > 1 else frozenset()


def evidence_for(thought: Thought, trace: SearchTrace) -> dict[str, float]:
    """The evidence for the ranking table: the probability of each node; the root has what no branch could take."""
    evidence = {node: round(p, 9) for node, p in thought.values.items() if p > 0}
    return {**evidence, ROOT: trace.evidence[ROOT]}


def form_evidence(prompt: str, understanding: Understanding) -> dict[str, float]:
    """What only priors read: how the prompt is written, and in which language where that is not English."""
    language = prompt_language(understanding)
    spoken = {} if language in ("en", "und") else {f"{LANGUAGE}{language}": 1.0}
    return prompt_form(prompt) | spoken


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
