"""Routes that change a picture: who edits is ranked by what is known of edits, and votes on edits count there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fixtures_routing import expert, router_of, tiny_zoo, zoo_of
from PIL import Image

from diffusiongpt.flow import Request
from diffusiongpt.ranking import LiveTable, published
from diffusiongpt.votes import Shown, Vote
from diffusiongpt.zoo import EDITING, Capabilities, is_editing

if TYPE_CHECKING:
    from pathlib import Path

CAN = Capabilities(image_editing=True, multi_reference=True)
KONTEXT, FLUX2, QWEN = (
    expert(name, repo=repo, architecture=architecture).model_copy(update={"capabilities": CAN})
    for name, repo, architecture in (
        ("kontext", "black-forest-labs/FLUX.1-Kontext-dev", "flux1-kontext"),
        ("flux2", "black-forest-labs/FLUX.2-dev", "flux2"),
        ("qwen-edit", "Qwen/Qwen-Image-Edit-2511", "qwen-image-edit"),
    )
)
PAINTER = expert("painter", repo="Qwen/Qwen-Image-2512", architecture="qwen-image")
TREE = tiny_zoo().taxonomy
NODES = [*TREE.nodes.values(), *TREE.needs.values(), *TREE.edits.values()]
ZOO = zoo_of(KONTEXT, FLUX2, QWEN, PAINTER, nodes=NODES)
PICTURE = Image.new("RGB", (64, 64), "red")


def edit(prompt: str, pictures: int = 1) -> Request:
    """A request with pictures."""
    return Request(prompt=prompt, image=[PICTURE] * pictures)


def test_an_edit_is_ranked_by_the_board_of_edits(tmp_path: Path) -> None:
    """The best editor of the arena is chosen, by its figure, and the reason says so; a drawing is ranked as ever."""
    router = router_of(ZOO, tmp_path / "votes.db")
    route = router.route(edit("give the cat a hat"))
    order = [candidate.expert for candidate in route.candidates]
    known = published().edits
    assert order == sorted(order, key=lambda name: -known.standing(ZOO[name]).level)
    assert route.expert == "qwen-edit"
    assert route.task == "edit"
    assert "for changing pictures (LMArena image edit: 1,235 against 1,225 for flux2)" in route.explain()
    assert is_editing(route.understanding.evidence)
    assert not is_editing(router.route(Request(prompt="a cat with a hat")).understanding.evidence)


def test_who_draws_best_is_no_candidate_for_an_edit(tmp_path: Path) -> None:
    """An expert that cannot edit is rejected however well it draws, and a start from a picture is not an edit."""
    router = router_of(ZOO, tmp_path / "votes.db")
    route = router.route(edit("give the cat a hat"))
    assert "painter" not in [candidate.expert for candidate in route.candidates]
    started = router.route(Request(prompt="a cat with a hat", image=PICTURE, strength=0.5))
    assert started.expert == "painter"
    assert not is_editing(started.understanding.evidence)


def test_votes_on_edits_change_who_edits_and_not_who_draws(tmp_path: Path) -> None:
    """A vote has the task in its evidence, as its route had, and the next edit goes to who was preferred."""
    store = tmp_path / "votes.db"
    router = router_of(ZOO, store)
    before = router.route(Request(prompt="a cat with a hat"))
    evidence = router.route(edit("give the cat a hat")).understanding.evidence
    live = LiveTable(store)
    for i in range(15):
        shown = (Shown(expert="kontext"), Shown(expert="qwen-edit"))
        live.record(Vote(id=str(i), prompt="give the cat a hat", evidence=evidence, shown=shown, outcome="win",
                         winner="kontext"))  # fmt: skip
    assert router.route(edit("give the cat a hat")).expert == "kontext"
    after = router.route(Request(prompt="a cat with a hat"))
    assert [(one.expert, one.score) for one in after.candidates] == [
        (one.expert, pytest.approx(one.score)) for one in before.candidates
    ]


@pytest.mark.parametrize(
    ("instruction", "kinds"),
    [
        ("remove the noise and make it sharper", {"restoration"}),
        ("让这张照片更清晰", {"restoration"}),
        ("give the cat a hat", set()),
    ],
)
def test_edits_are_read_by_their_kind_and_not_by_needs_of_drawings(
    instruction: str, kinds: set[str], tmp_path: Path
) -> None:
    """Mending a picture is a kind of its own; what a drawing would need is not read."""
    route = router_of(ZOO, tmp_path / "votes.db").route(edit(instruction, 2))
    assert route.task == "edit"
    found = set(route.understanding.evidence)
    assert found & {"restoration"} == kinds
    assert not found & {*ZOO.taxonomy.needs}
    assert {EDITING, "several_pictures"} <= found


def test_the_best_editor_of_many_is_found_however_it_draws(tmp_path: Path) -> None:
    """Who is worth scoring for an edit goes by what is known of edits, and by no vote on drawings."""
    painters = [expert(f"painter-{n}", repo=PAINTER.repo, architecture="qwen-image") for n in range(40)]
    zoo = zoo_of(*(one.model_copy(update={"capabilities": CAN}) for one in painters), KONTEXT, QWEN, nodes=NODES)
    live = LiveTable(tmp_path / "votes.db")
    for i in range(15):
        shown = (Shown(expert="kontext"), Shown(expert="painter-39"))
        live.record(Vote(id=str(i), prompt="a cat", evidence={"root": 1.0}, shown=shown, outcome="win",
                         winner="painter-39"))  # fmt: skip
    route = router_of(zoo, tmp_path / "votes.db").route(edit("give the cat a hat"))
    assert route.expert == "qwen-edit"
    assert "painter-39" not in [candidate.expert for candidate in route.candidates]
