"""A route explains itself in plain words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fixtures_routing import expert, route, tiny_zoo, zoo_of

from diffusiongpt.errors import UnknownExpertError
from diffusiongpt.flow import Candidate, win_probability

if TYPE_CHECKING:
    from pathlib import Path


def candidate(score: float, std: float = 0.0) -> Candidate:
    """A candidate of some score."""
    return Candidate(expert="x", score=score, std=std, parts={"tags": score}, readiness="on_disk")


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ("a pixel art fox", "tiny-pixel, because you asked for 'pixel art'; runner-up tiny-generalist"),
        ("an 8-bit fox", "tiny-pixel, because you asked for '8 bit' (pixel art)"),
        ("铅笔画的房子", "tiny-sketch, because you asked for '铅笔画' (sketch)"),
        ("a fox", "tiny-generalist, because you named no style and it can do any"),
        ("an anime fox", "tiny-generalist, because no expert that may draw this declares 'anime'"),
    ],
)
def test_the_first_line_is_what_a_friend_would_say(tmp_path: Path, prompt: str, sentence: str) -> None:
    """The explanation begins with the expert, the matching words of the prompt as the reason, and the runner-up."""
    assert route(prompt, tiny_zoo(), tmp_path / "v.db").explain().startswith(sentence)


def test_a_route_shows_itself_in_a_notebook(tmp_path: Path) -> None:
    """Its text fits a line, and its table says who is to draw; what a stranger wrote is text there."""
    shown = route("a pixel art fox " + "in the snow " * 40 + "<b>", tiny_zoo(), tmp_path / "v.db")
    assert len(repr(shown)) < 160
    assert "→ tiny-pixel, 5 candidates>" in str(shown)
    html = shown._repr_html_()
    assert "<b>tiny-pixel</b>" in html
    assert html.count("<tr>") == 1 + len(shown.candidates)
    assert len(repr(tiny_zoo()["tiny-pixel"])) < 160


def test_the_table_lists_every_candidate(tmp_path: Path) -> None:
    """Below the sentence each candidate has a line of at most 78 columns, in order."""
    decision = route("a pixel art fox", tiny_zoo(), tmp_path / "v.db")
    header, *lines = decision.explain().splitlines()[2:]
    assert header.split() == ["expert", "score", "±", "prior", "votes", "s", "GB", "placement"]
    assert all(len(line) <= 78 for line in decision.explain().splitlines()[2:])
    assert [line.split()[0] for line in lines] == list(decision.order)


def test_every_expert_has_a_reason_why_not(tmp_path: Path) -> None:
    """`why_not` explains the chosen, the outscored and the rejected, and raises for unknown experts."""
    decision = route("a pixel art fox", tiny_zoo(), tmp_path / "v.db")
    assert decision.why_not("tiny-pixel") == "tiny-pixel was chosen."
    assert "tags -" in decision.why_not("tiny-oil")
    with pytest.raises(UnknownExpertError):
        decision.why_not("nobody")


def test_one_candidate_has_no_runner_up(tmp_path: Path) -> None:
    """With a single expert there is no other to compare it with."""
    assert "runner-up" not in route("a fox", zoo_of(expert("only")), tmp_path / "v.db").explain()


def test_win_probability_is_a_probability_of_winning() -> None:
    """Equal scores are even odds, less uncertainty makes them more extreme, and the two sides sum to one."""
    strong, weak = candidate(2.0), candidate(0.0)
    assert win_probability(weak, candidate(0.0)) == 0.5
    assert win_probability(strong, weak) == pytest.approx(0.880797, abs=1e-6)
    # votes of strangers may move scores so far
    assert (win_probability(candidate(1e6), weak), win_probability(weak, candidate(1e6))) == (1.0, 0.0)
    assert win_probability(candidate(2.0, std=2), candidate(0.0, std=2)) < win_probability(strong, weak)
    assert win_probability(strong, weak) + win_probability(weak, strong) == pytest.approx(1)


def test_routes_of_earlier_versions_are_still_read(tmp_path: Path) -> None:
    """A saved route that calls the matched words `said` is read, and written with the new name."""
    decision = route("a watercolor fox", tiny_zoo(), tmp_path / "v.db")
    saved = decision.model_dump_json().replace('"matched":', '"said":')
    assert decision.matched
    assert type(decision).model_validate_json(saved).model_dump_json() == decision.model_dump_json()
