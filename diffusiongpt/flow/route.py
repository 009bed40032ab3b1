"""The decision record: which expert was chosen, where it draws, which others there were, and why."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from math import inf
from textwrap import shorten, wrap
from typing import Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, computed_field

from diffusiongpt.errors import UnknownExpertError
from diffusiongpt.flow.candidate import PRICE, TIME, Candidate, Rejection, win_probability
from diffusiongpt.flow.columns import LINE_WIDTH, candidate_table, cost_columns, duration, grouped_rejections
from diffusiongpt.flow.placement import Placement, PlacementKind
from diffusiongpt.flow.task import Task
from diffusiongpt.flow.trace import SearchTrace
from diffusiongpt.flow.understanding import ThinkerName, Understanding

_SAME = 0.3
"""Points for tags that count as the same when a choice is put into words: what a declared subject may add."""

READS = "prompts in "
"""How the need for an expert that reads a language begins; the language follows."""

TRANSPARENT_BACKGROUND = "transparent background"
"""The need that a matting step meets where no expert does."""

_SHOWN, _ROWS = 60, 10
"""Characters of a prompt and candidates that a route shows of itself; `explain()` has all."""

NEAR_TIE = 0.05
"""How far from even the odds of two experts may be for the choice between them to be a near-tie."""

_UNTHOUGHT = "the prompt takes thinking, which an LLM would do first (llm=)"
"""What is said of a prompt that only a rewriting would make plain."""

_NAMED_TIES = 2
"""Near-ties that the explanation names; the others are counted."""

_WAYS: Mapping[PlacementKind, str] = {
    "offload": "one part after the other on the device",
    "stream": "layer by layer through the device",
    "quantised": "with weights of {bits} bits",
    "cpu": "on the processor",
}
"""What makes a placement slower than having all of an expert on the device."""

_WEIGHED: Mapping[str, str] = {
    TIME: "you weigh the seconds until the picture as well",
    PRICE: "you weigh the price as well",
}
"""Why an expert is chosen though another pleases more."""

_MUCH_FASTER = 2.0
"""How many times as fast a near-tie is for the explanation to name it. Stated, not measured."""

_ARENA = re.compile(r": [\d,]+(?: against|$)")
"""In the evidence, a figure of an arena, where people compare pictures."""

RankingState = Literal["current", "behind", "unavailable"]
"""What a route knew of the votes: all of them; not the latest, which are still being learnt; or only those of the last
table, because the votes cannot be read."""

_STALE = {
    "behind": "the latest votes are still being learnt and do not count yet",
    "unavailable": "the votes cannot be read now, so the last known ranking counts",
}


class Route(BaseModel):
    """One decision, complete enough to be checked and repeated.

    Attributes:
        input: What the person typed.
        prompt: What the chosen expert gets.
        expert: The chosen expert.
        placement: How it would draw on the machine that the route is for; `None` if not planned.
        task: What is asked of the expert.
        path: Nodes of the most probable path, from the root.
        understanding: What the prompt says and needs.
        matched: For each node that the prompt names, the words that matched it.
        candidates: Scored experts, best first; a score is in log-odds of being preferred.
        near_ties: Candidates that 45 to 55 of 100 people would prefer to the chosen one, best first; they do not
            change the choice.
        propensities: With `explore`, the probability, from 0 to 1, with which each candidate was to be picked, of
            those that could be; else empty.
        rejected: Experts left out, with the reasons.
        unmet: Needs of the prompt that no allowed expert meets.
        matting: Whether the background is taken out of what is drawn, since no allowed expert draws a transparent one.
        thinker: Kind of thinker that read the prompt.
        fallback_reason: Why the LLM did not, with `local-fallback`.
        embedder: Embedder that was used.
        llm_calls: Calls of the LLM.
        evidence: Published evidence for the chosen expert compared with that for the next one, as a phrase.
        ranking_version: Version of the ranking table.
        zoo_version: Version of the zoo; empty in pictures of earlier versions.
        ranking: Whether that table knows all votes; without them the route goes on.
        seed: Seed asked for, or drawn afresh to explore with; `None` if neither.
        timings_ms: Milliseconds of `understand`, `search`, `rank` and `total`.
        trace: Steps of the search; not part of the JSON.
    """

    model_config = ConfigDict(frozen=True)

    input: str
    prompt: str
    expert: str
    placement: Placement | None = None
    task: Task = "text-to-image"
    path: tuple[str, ...]
    understanding: Understanding
    # pictures saved by earlier versions call it `said`
    matched: Mapping[str, str] = Field(default_factory=dict, validation_alias=AliasChoices("matched", "said"))
    candidates: tuple[Candidate, ...]
    near_ties: tuple[str, ...] = ()
    propensities: Mapping[str, float] = Field(default_factory=dict)
    rejected: tuple[Rejection, ...] = ()
    unmet: tuple[str, ...] = ()
    matting: bool = False
    thinker: ThinkerName = "local"
    fallback_reason: str | None = None
    embedder: str
    llm_calls: int = 0
    evidence: str = ""
    ranking_version: str
    zoo_version: str = ""
    ranking: RankingState = "current"
    seed: int | None = None
    timings_ms: Mapping[str, float] = Field(default_factory=dict)
    trace: SearchTrace | None = Field(default=None, exclude=True, repr=False)

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorated properties
    @property
    def propensity(self) -> float:
        """How likely the chosen expert was to be chosen; 1 unless it was explored."""
        return self.propensities.get(self.expert, 1.0)

    @property
    def chosen(self) -> Candidate:
        """The candidate of the chosen expert."""
        return next(candidate for candidate in self.candidates if candidate.expert == self.expert)

    @property
    def fastest(self) -> str:
        """The candidate whose picture is expected first; the best of those that are as fast, or of unknown time."""

        def seconds(candidate: Candidate) -> float:
            known = candidate.placement.seconds if candidate.placement else None
            return inf if known is None else known

        scored = {candidate.expert: candidate for candidate in self.candidates}
        return min(self.order, key=lambda expert: seconds(scored[expert]))

    @property
    def order(self) -> tuple[str, ...]:
        """Experts in the order in which they would be tried: the chosen one, then the others, best first."""
        return (self.expert, *(c.expert for c in self.candidates if c.expert != self.expert))

    def __repr__(self) -> str:
        """Prompt, expert and how many others there were."""
        place = f" ({self.placement.kind})" if self.placement else ""
        prompt = shorten(self.input, _SHOWN, placeholder=" ...")
        return f"<Route {prompt!r} → {self.expert}{place}, {len(self.candidates)} candidates>"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        """In a notebook: the sentence, and the candidates with the one that is to draw on top."""
        rows, scores = "", {one.expert: one for one in self.candidates}
        for expert in self.order[:_ROWS]:
            if one := scores.get(expert):
                name = f"<b>{escape(expert)}</b>" if expert == self.expert else escape(expert)
                score = f"{one.score:+.2f} ± {one.std:.2f}"
                rows += f"<tr><td>{name}</td><td>{score}</td><td>{escape(cost_columns(one))}</td></tr>"
        heads = "<tr><th>expert</th><th>score</th><th>seconds, GB, placement</th></tr>"
        return f"<p>{escape(self.sentence())}</p><table>{heads}{rows}</table>"

    def explain(self) -> str:
        """What a friend would say, in one line; what it takes; then the candidates, and those that are left out."""
        lines = [self.sentence(), *self._wait(), "", candidate_table(self.candidates)]
        if self.ranking in _STALE:
            lines += ["", f"ranking {self.ranking}: {_STALE[self.ranking]}"]
        if self.rejected:
            lines += ["", *grouped_rejections(self.rejected)]
        return "\n".join(lines)

    def why_not(self, expert: str) -> str:
        """One line on why an expert was not chosen.

        Raises:
            UnknownExpertError: If the route did not consider it.
        """
        if expert == self.expert:
            return f"{expert} was chosen."
        for rejection in self.rejected:
            if rejection.expert == expert:
                return f"{expert} was rejected: {rejection.reason}."
        for candidate in self.candidates:
            if candidate.expert == expert:
                scores = f"{expert} scored {candidate.score:+.2f}, {self.expert} {self.chosen.score:+.2f}"
                return f"{scores}: {_gap(self.chosen, candidate)}."
        raise UnknownExpertError(
            f"the route has no expert {expert!r}",
            hint="It is not in the zoo, or hangs on branches this prompt is not about.",
        )

    def sentence(self) -> str:
        """Which expert was chosen and why, in one line: the one that `explain` begins with."""
        others = [candidate for candidate in self.candidates if candidate.expert != self.expert]
        sentence = f"{self.expert}, because {self._reason()}"
        if others:
            sentence += "; " + _runner_up(self.chosen, others[0])
        if self.near_ties:
            sentence += f"; nearly even: {_listed(self.near_ties)}"
        if self.unmet:
            sentence += f"; {_unmet(self.unmet)}"
        if self.matting:
            sentence += f"; {TRANSPARENT_BACKGROUND}: by matting"
        if self.understanding.reasoning and self.task != "edit":
            done = bool(self.understanding.rewritten)
            sentence += "; the LLM wrote out what is to be seen" if done else f"; {_UNTHOUGHT}"
        return sentence + "."

    def _reason(self) -> str:
        if len(self.candidates) == 1 and not self.rejected:
            return "it is the only one that may draw this"
        if self.propensities:
            return f"you asked to explore, which picks it {self.propensity:.1%} of the time"
        if asked := self._asked():
            return asked
        named = [weight.node for weight in self.understanding.styles if weight.node in self.path]
        parts = self.chosen.parts
        learnt = sum(parts.get(name, 0.0) for name in ("global", "nodes", "residual", "personal"))
        least = min(candidate.parts.get("published", 0.0) for candidate in self.candidates)
        listed = parts.get("published", 0.0) - least
        believed = parts.get("tags", 0.0) + listed
        if named and believed >= learnt:
            return self._believed(named[0])
        if learnt > 0:
            return self._voted(learnt, named)
        return "nothing fits better" if named else self._unnamed(listed=listed > 0)

    def _voted(self, learnt: float, styles: Sequence[str]) -> str:
        """What votes say, by the largest part of what was learnt from them."""
        parts = self.chosen.parts
        if 2 * parts.get("global", 0.0) > learnt:
            return "people preferred it in general"
        by_style = styles and parts.get("nodes", 0.0) >= parts.get("residual", 0.0)
        about = f"{styles[0].replace('_', ' ')} prompts" if by_style else "prompts like this"
        return f"{'you' if 2 * parts.get('personal', 0.0) > learnt else 'people'} preferred it on {about}"

    def _asked(self) -> str:
        """What of the policy made the choice; empty if what people like made it."""
        mine = self.chosen.parts.get("mine", 0.0)
        if mine and any(one.score >= self.chosen.score - mine for one in self.candidates if one.expert != self.expert):
            return "you prefer your own experts"
        outdone = any(one.pleasing > self.chosen.pleasing for one in self.candidates)
        return next((says for name, says in _WEIGHED.items() if outdone and name in self.chosen.parts), "")

    def _wait(self) -> list[str]:
        """How long the picture takes and why; and which expert, nearly as good, is much faster."""
        mine = self.chosen.placement
        if mine is None or mine.seconds is None:
            return []
        fetched = [f"{(mine.download_bytes or 0) / 1e9:.1f} GB to download"] if mine.download_bytes else []
        why = ", then ".join(
            [*fetched, *([_WAYS[mine.kind].format(bits=mine.precision)] if mine.kind in _WAYS else [])]
        )
        said = f"about {duration(mine.seconds)} to the picture{': ' if why else ''}{why}"
        near = ((one, one.placement) for one in self.candidates if one.expert in self.near_ties)
        times = ((one.expert, place.seconds) for one, place in near if place and place.seconds)
        for expert, seconds in times:
            if seconds * _MUCH_FASTER <= mine.seconds:
                said += f"; {expert} is nearly as good and takes {duration(seconds)}"
                break
        return wrap(f"{said[0].upper()}{said[1:]}.", LINE_WIDTH)

    def _believed(self, style: str) -> str:
        claims = {candidate.expert: candidate.parts.get("tags", 0.0) for candidate in self.candidates}
        boldest = max(claims, key=lambda expert: claims[expert])
        asked = "you asked for" if style in self.matched else "what you describe sounds like"
        if claims[boldest] > claims[self.expert] + _SAME:
            return f"{self._preferred(f'for {self._quoted(style)}')}, though {boldest} declares that style"
        if claims[self.expert] > _SAME and claims[self.expert] > min(claims.values()) + _SAME:
            return f"{asked} {self._quoted(style)}"
        return f"{asked} {self._quoted(style)}, and {self._preferred('for that')}"

    def _preferred(self, purpose: str = "") -> str:
        if self.evidence and not _ARENA.search(self.evidence):
            return " ".join(part for part in ("it should please most", purpose) if part) + f", going by {self.evidence}"
        shown = f"({self.evidence})" if self.evidence else ""
        return " ".join(part for part in ("people prefer it", purpose, shown) if part)

    def _unnamed(self, *, listed: bool) -> str:
        best = self._preferred() if listed else "it fits the rest best"
        if self.task == "edit":
            return self._preferred("for changing pictures") if listed else "it changes pictures as the text says"
        if self.understanding.styles:
            # where the subject is not clear, no path need hold the style, though experts declare it
            style, steps = self.understanding.styles[0].node, self.trace.steps if self.trace else ()
            if any(step.path[-1] == style and step.experts for step in steps):
                return f"{best} where {self._quoted(style)} is asked for"
            return f"no expert that may draw this declares {self._quoted(style)}, and {best}"
        return "you named no style and it can do any" + (f", and {best}" if listed else "")

    def _quoted(self, node: str) -> str:
        words, name = self.matched.get(node, ""), node.replace("_", " ")
        return repr(name) if words in ("", name) else f"{words!r} ({name})"


def _unmet(needs: Sequence[str]) -> str:
    """The needs that no expert here meets, as a clause."""
    languages = [need.removeprefix(READS) for need in needs if need.startswith(READS)]
    others = [need for need in needs if not need.startswith(READS)]
    clauses = [f"no expert here is known to read {one}" for one in languages]
    if others:
        clauses.append(f"no expert here supports {' or '.join(others)}")
    return ", and ".join(clauses)


def _runner_up(chosen: Candidate, other: Candidate) -> str:
    if abs(chosen.score - other.score) < 1e-9:
        return f"{other.expert} scores the same and comes later in the zoo"
    place = "runner-up" if other.score < chosen.score else "ahead on average is"
    return f"{place} {other.expert} ({1 - win_probability(chosen, other):.0%} likely to please more)"


def _listed(experts: tuple[str, ...]) -> str:
    more = len(experts) - _NAMED_TIES
    return ", ".join(experts[:_NAMED_TIES]) + (f" and {more} more" if more > 0 else "")


def _gap(chosen: Candidate, other: Candidate) -> str:
    names = set(chosen.parts) | set(other.parts)
    gaps = {name: other.parts.get(name, 0.0) - chosen.parts.get(name, 0.0) for name in names}
    behind = [f"{name} {gap:+.2f}" for name, gap in sorted(gaps.items(), key=lambda item: item[1]) if abs(gap) >= 0.005]
    return ", ".join(behind) or "a tie, broken by the order of the zoo"
