"""Candidates and rejections as lines for a terminal of 80 columns."""

from __future__ import annotations

import re
from textwrap import wrap

from diffusiongpt.flow.candidate import PRICE, TIME, Candidate, Rejection

LINE_WIDTH = 76
"""Longest line of an explanation, so that it fits 80 columns indented, and with the names of options spelt out."""

_LEARNT = ("global", "nodes", "residual")
"""Parts of a score that come from votes, which the table shows as one."""

_SHARED: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"needs (?P<own>.+); (?P<all>this machine has .+)"),
        "needing more memory than there is ({all})",
    ),
    (
        re.compile(r"it costs about (?P<own>\$[\d.]+) a picture; allow it with max_price=.+"),
        "a picture costs money; allow it with max_price",
    ),
    (
        re.compile(r"it takes about (?P<own>[^,;]+) to the picture[^;]*; allow it with max_wait=.+"),
        "a picture takes longer; allow it with max_wait",
    ),
)
"""Reasons that differ in a number: what experts that have one share, and what is said of each."""


def candidate_table(candidates: tuple[Candidate, ...]) -> str:
    """One line for each candidate, with the seconds and gigabytes that it would take; at most 80 columns."""
    personal = any(candidate.parts.get("personal") for candidate in candidates)
    weighed = next((name for name in (TIME, PRICE) if any(name in one.parts for one in candidates)), "")
    width = max(len("expert"), *(len(candidate.expert) for candidate in candidates))
    mine = f" {'personal':>8}" if personal else ""
    term = f" {weighed:>5}" if weighed else ""
    heads = f"{'expert':<{width}} {'score':>6} {'±':>4} {'prior':>5} {'votes':>5}{mine}{term}"
    lines = [f"{heads} {'s':>5} {'GB':>5} placement"]
    for candidate in candidates:
        votes = sum(candidate.parts.get(name, 0.0) for name in _LEARNT)
        own = candidate.parts.get("personal", 0.0)
        mine = f" {own:>+8.2f}" if personal else ""
        term = f" {candidate.weighed:>+5.2f}" if weighed else ""
        lines.append(
            f"{candidate.expert:<{width}} {candidate.score:>+6.2f} {candidate.std:>4.2f} "
            f"{candidate.pleasing - votes - own:>+5.2f} {votes:>+5.2f}{mine}{term} {cost_columns(candidate)}"
        )
    return "\n".join(lines)


def cost_columns(candidate: Candidate) -> str:
    """Seconds, gigabytes and kind of a candidate's placement, as the last columns of its line."""
    placement = candidate.placement
    seconds = "?" if placement is None or placement.seconds is None else f"{placement.seconds:.0f}"
    if placement is None or placement.kind == "hosted":
        kind = "hosted" if placement and candidate.readiness != "needs_key" else candidate.readiness
        return f"{seconds.replace('?', '-'):>5} {'-':>5} {kind}"
    nbytes = placement.host_bytes if placement.kind == "cpu" else placement.device_bytes
    gigabytes = "?" if nbytes is None else f"{nbytes / 1e9:.1f}"
    return f"{seconds:>5} {gigabytes:>5} {placement.kind}"


def grouped_rejections(rejected: tuple[Rejection, ...]) -> list[str]:
    """One paragraph for each reason, with what is special to each expert behind its name."""
    groups: dict[str, list[Rejection]] = {}
    for one in rejected:
        groups.setdefault(_shared(one.reason)[0], []).append(one)
    lines = []
    for reason, some in groups.items():
        if len(some) > 1:
            named = ((one.expert, _shared(one.reason)[1]) for one in some)
            names = ", ".join(f"{expert} ({own})" if own else expert for expert, own in named)
            paragraph = f"{len(some)} experts left out, {reason}: {names}"
        else:
            paragraph = f"{some[0].expert} left out: {some[0].reason}"
        lines += wrap(paragraph, LINE_WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    return lines


def _shared(reason: str) -> tuple[str, str]:
    """What experts that are rejected for such a reason have in common, and what is special to this one."""
    for pattern, common in _SHARED:
        if match := pattern.fullmatch(reason):
            return common.format(**match.groupdict()), match["own"]
    return reason, ""


def duration(seconds: float) -> str:
    """A time as people say it: `40 s`, `7 min`, `1 h 20 min`."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
