"""The decision record: what the search saw, which expert was chosen and where it draws, which others, and why."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import exp, inf, pi, sqrt
from textwrap import shorten, wrap
from typing import Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, computed_field

from diffusiongpt.errors import UnknownExpertError
from diffusiongpt.flow.task import Task
from diffusiongpt.flow.understanding import ThinkerName, Understanding

PlacementKind = Literal["whole", "offload", "stream", "quantised", "hosted", "cpu"]
"""In the order in which they are tried where several fit."""

GIB = 1 << 30
"""Bytes of a gigabyte as memory is sold: a "24 GB" card has 24 of these."""


class Placement(BaseModel):
    """One way to draw with an expert on a machine. A number that is not known is `None`.

    Attributes:
        kind: `whole`: all weights on the device; `offload`: each component there only while it works, the rest in
            host memory; `stream`: the same for groups of layers; `quantised`: with weights of 4 bits; `hosted`: by a
            service; `cpu`: on the processor, in float32.
        device: Device that computes, or the name of the service.
        device_bytes: Most that is on the device at a time: weights, activations and workspace.
        host_bytes: Host memory that the weights take.
        download_bytes: Bytes that have to be downloaded first.
        seconds: Expected seconds until the picture is there, with the download and the loading.
        tiled: Whether the autoencoder decodes the picture in tiles, which takes less memory.
    """

    model_config = ConfigDict(frozen=True)

    kind: PlacementKind
    device: str
    device_bytes: int | None = None
    host_bytes: int | None = None
    download_bytes: int | None = None
    seconds: float | None = None
    tiled: bool = False


@dataclass(frozen=True, kw_only=True)
class MachineSpec:
    """What a plan has to know of a machine. Memory is all there is, not what is free at the moment.

    Attributes:
        device: `"cuda"`, `"cuda:N"`, `"mps"`, `"cpu"`, or `"any"` for no machine in particular.
        device_bytes: Memory of the device; `None` if it could not be read, `inf` for no limit. Of `"cpu"` and `"mps"`
            that is the memory of the host, or the part of it that the device may use.
        host_bytes: Memory of the host.
        flops: 16-bit floating-point operations a second, dense; `None` if not known.
        link_bytes_s: Bytes a second from the host to the device.
        bfloat16: Whether it computes in bfloat16; without it such weights are float32, and take twice the bytes.
    """

    device: str
    device_bytes: float | None
    host_bytes: float | None
    flops: float | None = None
    link_bytes_s: float = 20e9
    bfloat16: bool = True

    @property
    def one_memory(self) -> bool:
        """Whether host and device are the same memory, so that offloading frees nothing."""
        return self.device in ("cpu", "mps")


def as_sold(size: float, *, up: bool = False) -> str:
    """Bytes of memory as people name them: `24 GB` for 24 GiB.

    Args:
        size: Bytes.
        up: Whether to round up, so that a memory of that name is large enough.
    """
    exact = size / GIB
    shown = -(-exact // 1) if up else round(exact, 1)
    return f"{max(shown, 1 if up else 0):g} GB"


@dataclass(frozen=True, kw_only=True)
class SearchPath:
    """Nodes from the root to where a branch ended, and the probability that the prompt belongs there."""

    nodes: tuple[str, ...]
    p: float


@dataclass(frozen=True, kw_only=True)
class SearchStep:
    """One expansion.

    Attributes:
        path: Nodes from the root to the expanded one.
        p: Probability of reaching it.
        values: Probability of each child, given the node.
        experts: Eligible experts on the node itself.
        dead_end: Whether no eligible expert hangs on it or below, so that the search turned back.
    """

    path: tuple[str, ...]
    p: float
    values: Mapping[str, float]
    experts: tuple[str, ...]
    dead_end: bool = False


@dataclass(frozen=True, kw_only=True)
class SearchTrace:
    """What the search saw.

    Attributes:
        paths: Where branches ended, most probable first; probabilities sum to one.
        steps: Every expansion, in order.
        experts: Experts to score, in the order they were met.
        evidence: Probability per node: subjects and styles on the paths; the root holds what no style took.
        stopped: Why the search ended.
    """

    paths: tuple[SearchPath, ...]
    steps: tuple[SearchStep, ...]
    experts: tuple[str, ...]
    evidence: Mapping[str, float]
    stopped: str


_SAME = 0.3
"""Points for tags that count as the same when a choice is put into words: what a declared subject may add."""

READS = "prompts in "
"""How the need for an expert that reads a language begins; the language follows."""

_SHOWN, _ROWS = 60, 10
"""Characters of a prompt and candidates that a route shows of itself; `explain()` has all."""

NEAR_TIE = 0.05
"""How far from even the odds of two experts may be for the choice between them to be a near-tie."""

_NAMED_TIES = 2
"""Near-ties that the explanation names; the others are counted."""

Readiness = Literal["loaded", "on_disk", "download", "needs_key", "too_big"]


class Candidate(BaseModel):
    """An expert that was scored.

    Attributes:
        expert: Id of the expert.
        score: Posterior mean of its utility, in log-odds of being preferred.
        std: Posterior standard deviation of the same.
        parts: What the score is made of; they sum to it.
        readiness: What it would take to draw with it on this machine. Pictures saved by earlier versions may say
            `too_big`; such an expert is rejected now.
        placement: The first way to draw with it on the machine that the route is for; `None` if not planned.
    """

    model_config = ConfigDict(frozen=True)

    expert: str
    score: float
    std: float
    parts: Mapping[str, float]
    readiness: Readiness
    placement: Placement | None = None


class Rejection(BaseModel):
    """An expert that must not draw this prompt."""

    model_config = ConfigDict(frozen=True)

    expert: str
    reason: str


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
        candidates: Scored experts, best first.
        near_ties: Candidates that 45 to 55 of 100 people would prefer to the chosen one, best first; they do not
            change the choice.
        propensities: With `explore`, how likely each candidate was to be picked, if at all; else empty.
        rejected: Experts left out, with the reasons.
        unmet: Needs of the prompt that no allowed expert meets.
        thinker: Kind of thinker that read the prompt.
        fallback_reason: Why the LLM did not, with `local-fallback`.
        embedder: Embedder that was used.
        llm_calls: Calls of the LLM.
        evidence: Published evidence for the chosen expert beside that for the next one, as a phrase.
        ranking_version: Version of the ranking table.
        ranking: Whether that table knows all votes; without them the route goes on.
        seed: Seed asked for, or drawn afresh to explore with.
        timings_ms: Milliseconds per phase.
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
    thinker: ThinkerName = "local"
    fallback_reason: str | None = None
    embedder: str
    llm_calls: int = 0
    evidence: str = ""
    ranking_version: str
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
        scores = {one.expert: one for one in self.candidates}
        rows = "".join(
            f"<tr><td>{'<b>' if one == self.expert else ''}{escape(one)}{'</b>' if one == self.expert else ''}</td>"
            f"<td>{scores[one].score:+.2f} ± {scores[one].std:.2f}</td><td>{escape(_cost(scores[one]))}</td></tr>"
            for one in self.order[:_ROWS]
            if one in scores
        )
        heads = "<tr><th>expert</th><th>score</th><th>seconds, GB, placement</th></tr>"
        return f"<p>{escape(self._sentence())}</p><table>{heads}{rows}</table>"

    def explain(self) -> str:
        """One sentence a friend would say, then the table of candidates and rejections."""
        lines = [self._sentence(), "", _table(self.candidates)]
        if self.ranking in _STALE:
            lines += ["", f"ranking {self.ranking}: {_STALE[self.ranking]}"]
        if self.rejected:
            lines += ["", *_grouped(self.rejected)]
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

    def _sentence(self) -> str:
        others = [candidate for candidate in self.candidates if candidate.expert != self.expert]
        sentence = f"{self.expert}, because {self._reason()}"
        if others:
            sentence += "; " + _runner_up(self.chosen, others[0])
        if self.near_ties:
            sentence += f"; nearly even: {_listed(self.near_ties)}"
        if self.unmet:
            sentence += f"; {_unmet(self.unmet)}"
        return sentence + "."

    def _reason(self) -> str:
        if len(self.candidates) == 1 and not self.rejected:
            return "it is the only one that may draw this"
        if self.propensities:
            return f"you asked to explore, which picks it {self.propensity:.1%} of the time"
        mine = self.chosen.parts.get("mine", 0.0)
        if mine and any(one.score >= self.chosen.score - mine for one in self.candidates if one.expert != self.expert):
            return "you prefer your own experts"
        named = [weight.node for weight in self.understanding.styles if weight.node in self.path]
        parts = self.chosen.parts
        learnt = sum(parts.get(name, 0.0) for name in ("global", "nodes", "residual", "personal"))
        least = min(candidate.parts.get("published", 0.0) for candidate in self.candidates)
        listed = parts.get("published", 0.0) - least
        believed = parts.get("tags", 0.0) + listed
        if named and believed >= learnt:
            return self._believed(named[0])
        if learnt > 0:
            about = f"{named[0].replace('_', ' ')} prompts" if named else "prompts like this"
            return f"{'you' if 2 * parts.get('personal', 0.0) > learnt else 'people'} preferred it on {about}"
        return "nothing fits better" if named else self._unnamed(listed=listed > 0)

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
        shown = f"({self.evidence})" if self.evidence else ""
        return " ".join(part for part in ("people prefer it", purpose, shown) if part)

    def _unnamed(self, *, listed: bool) -> str:
        best = self._preferred() if listed else "it fits the rest best"
        if self.task == "edit":
            return self._preferred("for changing pictures") if listed else "it changes pictures as the text says"
        if self.understanding.styles:
            return f"no expert here declares {self._quoted(self.understanding.styles[0].node)}, and {best}"
        return "you named no style and it can do any" + (f", and {best}" if listed else "")

    def _quoted(self, node: str) -> str:
        words, name = self.matched.get(node, ""), node.replace("_", " ")
        return repr(name) if words in ("", name) else f"{words!r} ({name})"


def win_probability(a: Candidate, b: Candidate) -> float:
    """Probability that people prefer `a` to `b`.

    The logistic of the difference of two Gaussians, by MacKay's approximation (1992, "The evidence framework
    applied to classification networks"): sigmoid(m / sqrt(1 + pi v / 8)).
    """
    variance = a.std**2 + b.std**2
    return 1 / (1 + exp(-(a.score - b.score) / sqrt(1 + pi * variance / 8)))


def _unmet(needs: Sequence[str]) -> str:
    """The needs that no expert here meets, as a clause."""
    languages = [need.removeprefix(READS) for need in needs if need.startswith(READS)]
    others = [need for need in needs if not need.startswith(READS)]
    clauses = [f"no expert here is known to read {one}" for one in languages]
    if others:
        clauses.append(f"no expert here can do {' or '.join(others)}")
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


_LEARNT = ("global", "nodes", "residual")
"""Parts of a score that come from votes, which the table shows as one."""

_WIDTH = 76
"""Longest line of an explanation, so that it fits 80 columns indented, and with the names of options spelt out."""

_LACKS_MEMORY = re.compile(r"needs (?P<what>.+); (?P<has>this machine has .+)")


def _table(candidates: tuple[Candidate, ...]) -> str:
    """One line for each candidate, with the seconds and gigabytes that it would take; at most 80 columns."""
    personal = any(candidate.parts.get("personal") for candidate in candidates)
    width = max(len("expert"), *(len(candidate.expert) for candidate in candidates))
    mine = f" {'personal':>8}" if personal else ""
    lines = [f"{'expert':<{width}} {'score':>6} {'±':>4} {'prior':>5} {'votes':>5}{mine} {'s':>5} {'GB':>5} placement"]
    for candidate in candidates:
        votes = sum(candidate.parts.get(name, 0.0) for name in _LEARNT)
        own = candidate.parts.get("personal", 0.0)
        mine = f" {own:>+8.2f}" if personal else ""
        lines.append(
            f"{candidate.expert:<{width}} {candidate.score:>+6.2f} {candidate.std:>4.2f} "
            f"{candidate.score - votes - own:>+5.2f} {votes:>+5.2f}{mine} {_cost(candidate)}"
        )
    return "\n".join(lines)


def _cost(candidate: Candidate) -> str:
    placement = candidate.placement
    if placement is None or placement.kind == "hosted":
        kind = "hosted" if placement and candidate.readiness != "needs_key" else candidate.readiness
        return f"{'-':>5} {'-':>5} {kind}"
    seconds = "?" if placement.seconds is None else f"{placement.seconds:.0f}"
    nbytes = placement.host_bytes if placement.kind == "cpu" else placement.device_bytes
    gigabytes = "?" if nbytes is None else f"{nbytes / 1e9:.1f}"
    return f"{seconds:>5} {gigabytes:>5} {placement.kind}"


def _grouped(rejected: tuple[Rejection, ...]) -> list[str]:
    """One paragraph for each reason; experts that lack memory share one, with what each would need."""
    groups: dict[str, list[str]] = {}
    for one in rejected:
        lacks = _LACKS_MEMORY.fullmatch(one.reason)
        reason = f"more memory than there is ({lacks['has']})" if lacks else one.reason
        groups.setdefault(reason, []).append(f"{one.expert} ({lacks['what']})" if lacks else one.expert)
    lines = []
    for reason, experts in groups.items():
        count = f"{len(experts)} experts: " if len(experts) > 1 else ""
        lines += wrap(
            f"not {count}{', '.join(experts)}: {reason}", _WIDTH, subsequent_indent="  ", break_on_hyphens=False
        )
    return lines
