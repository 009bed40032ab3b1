"""Comparing is blind, uses one seed, and its vote counts from the next route on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fixtures_routing import expert, settings_in, tiny_studio, zoo_of
from PIL import Image

from diffusiongpt.errors import DiffusionGPTError, PictureError, RequestError, UnknownExpertError, VoteError
from diffusiongpt.pictures import SMALL, Generation, enlarged
from diffusiongpt.routing import choose_ballot
from diffusiongpt.studio import DiffusionGPT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from diffusiongpt.pictures import Comparison

PROMPT = "a pixel art star on a black background"


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DiffusionGPT]:
    """A studio whose votes these tests share."""
    with tiny_studio(tmp_path_factory.mktemp("compare")) as studio:
        yield studio


@pytest.fixture
def pair(studio: DiffusionGPT) -> Comparison:
    """Two pictures of one prompt."""
    return studio.compare(PROMPT, seed=5, num_inference_steps=1)


def test_pictures_differ_by_their_expert_alone(pair: Comparison) -> None:
    """All pictures have one prompt and one seed, and come from different experts."""
    assert len(set(pair.experts)) == len(pair.images) == 2
    assert {generation.seeds for generation in pair.generations} == {(5,)}
    assert pair.prompt == PROMPT
    assert len({generation.shown_in.ballot for generation in pair.generations if generation.shown_in}) == 1
    for generation in pair.generations:
        assert generation.shown_in is not None
        assert 0 < generation.shown_in.propensities[generation.drawn_by] <= 1


def test_who_drew_what_is_not_told_before_the_vote(studio: DiffusionGPT, pair: Comparison, tmp_path: Path) -> None:
    """Neither the text, the notebook nor the file names reveal an expert; after the vote the notebook does."""
    names = [path.name for path in pair.save(tmp_path)]
    assert all(expert not in repr(pair) + pair._repr_html_() + str(names) for expert in studio.zoo)
    assert "-A-5" in names[0]
    assert "-B-5" in names[1]
    pair.vote(0)
    assert all(expert in pair._repr_html_() for expert in pair.experts)


def test_the_order_says_nothing(studio: DiffusionGPT) -> None:
    """Over many seeds, each of two experts comes first at times."""
    route = studio.route(PROMPT)
    table = studio.ranking()
    able = [candidate.expert for candidate in route.candidates]
    ballots = [choose_ballot(route, table, 2, seed=seed, able=able)[0] for seed in range(40)]
    assert any(ballot != tuple(sorted(ballot)) for ballot in ballots)
    assert any(ballot == tuple(sorted(ballot)) for ballot in ballots)
    assert ballots[3] == choose_ballot(route, table, 2, seed=3, able=able)[0]


def test_the_pick_of_the_route_is_always_shown(studio: DiffusionGPT) -> None:
    """A comparison is about what people get: the expert that a route picks, against another one each time."""
    route, table = studio.route(PROMPT), studio.ranking()
    ballots = [choose_ballot(route, table, 2, seed=seed, able=list(studio.zoo)) for seed in range(200)]
    assert all(route.expert in experts for experts, _ in ballots)
    assert all(shown.propensities[route.expert] == 1 for _, shown in ballots)
    assert len({expert for experts, _ in ballots for expert in experts}) > 2


def test_what_is_at_hand_comes_before_downloads(studio: DiffusionGPT) -> None:
    """Downloads are shown only where too little is at hand, up to the limit; the pick of the route leads if it can."""
    route, table = studio.route(PROMPT), studio.ranking()
    first, second, third, *rest = route.order
    able = list(studio.zoo)

    def shown(k: int, downloads: dict[str, float], leader: str | None = None) -> list[set[str]]:
        ballots = [
            choose_ballot(route, table, k, seed=seed, able=able, leader=leader, downloads=downloads, limit=10)[0]
            for seed in range(12)
        ]
        assert all(len(ballot) == k for ballot in ballots)
        return [set(ballot) for ballot in ballots]

    assert all(one < {first, second, third} for one in shown(2, dict.fromkeys((first, *rest), 5.0)))
    assert all(second in one and not one & {first, third} for one in shown(2, {first: 50.0, third: 5.0}))
    assert all({first, third} < one for one in shown(3, dict.fromkeys((second, *rest), 5.0)))
    assert all(first in one and not one & {*rest} for one in shown(2, dict.fromkeys((first, *rest), 50.0), first))
    with pytest.raises(VoteError, match="3 of 5 that can draw are downloads of more than"):
        shown(3, dict.fromkeys((first, second, third), 50.0))


def test_experts_may_be_named(studio: DiffusionGPT) -> None:
    """`experts` are compared as they are, `expert` takes the place of the pick, and what may not draw is an error."""
    three = studio.compare(PROMPT, experts=["tiny-oil", "tiny-pixel", "tiny-vector"], num_inference_steps=1)
    assert set(three.experts) == {"tiny-oil", "tiny-pixel", "tiny-vector"}
    two = studio.compare(PROMPT, experts="tiny-oil, tiny-vector", num_inference_steps=1)
    assert set(two.experts) == {"tiny-oil", "tiny-vector"}
    assert "tiny-sketch" in studio.compare(PROMPT, expert="tiny-sketch", num_inference_steps=1).experts
    with pytest.raises(UnknownExpertError):
        studio.compare(PROMPT, experts=["tiny-oil", "tiny-pixle"])
    with pytest.raises(VoteError, match="cannot compare 3 of 2"):
        studio.compare(PROMPT, 3, experts=["tiny-oil", "tiny-pixel"])
    for wrong in ([], "", ["tiny-oil", "tiny-oil"]):
        with pytest.raises(RequestError, match="different ids"):
            studio.compare(PROMPT, experts=wrong)
    with pytest.raises(RequestError, match="not one of experts"):
        studio.route(PROMPT, expert="tiny-oil", experts=["tiny-pixel", "tiny-sketch"])


def test_a_route_chooses_among_those_that_were_named(studio: DiffusionGPT) -> None:
    """With `experts`, no other expert is a candidate or stands in."""
    route = studio.route(PROMPT, experts=["tiny-oil", "tiny-sketch"])
    assert {candidate.expert for candidate in route.candidates} == {"tiny-oil", "tiny-sketch"}
    assert route.rejected == ()


def test_another_takes_the_place_of_one_that_cannot_draw(studio: DiffusionGPT, tmp_path: Path) -> None:
    """An expert whose files turn out unusable is replaced, unless it was named."""
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "model_index.json").write_text("{}")
    one = expert("broken", "pixel_art", repo=str(broken))
    zoo = zoo_of(one, studio.zoo["tiny-pixel"], studio.zoo["tiny-oil"])
    with DiffusionGPT(zoo, settings=settings_in(tmp_path)) as other:
        assert other.route(PROMPT).expert == "broken"
        assert set(other.compare(PROMPT, num_inference_steps=1).experts) == {"tiny-pixel", "tiny-oil"}
        with pytest.raises(DiffusionGPTError, match="broken"):
            other.compare(PROMPT, experts=["broken", "tiny-oil"])


def test_several_pictures_of_each_are_a_grid(studio: DiffusionGPT, tmp_path: Path) -> None:
    """Each expert draws with the same seeds; the grid has a column for each expert and a row for each seed."""
    pair = studio.compare(PROMPT, seed=5, num_images_per_prompt=2, num_inference_steps=1)
    assert {generation.seeds for generation in pair.generations} == {(5, 6)}
    assert [path.stem[-3:] for path in pair.save(tmp_path)] == ["A-5", "B-5", "A-6", "B-6"]
    assert pair._repr_html_().count("data:image/png;base64,") == 4
    grid = pair.grid(256)
    assert grid.size == (2 * (256 + 8) + 8, 48 + 2 * (256 + 8))
    cells = [grid.crop((8 + x * 264, 48 + y * 264, 264 + x * 264, 304 + y * 264)) for y in (0, 1) for x in (0, 1)]
    drawn = [generation.images[row] for row in (0, 1) for generation in pair.generations]
    assert [cell.tobytes() for cell in cells] == [enlarged(image, 256).convert("RGB").tobytes() for image in drawn]
    assert pair.vote(0).winner == pair.experts[0]
    studio.undo_vote()


def test_the_next_route_knows_the_vote(studio: DiffusionGPT, pair: Comparison) -> None:
    """A vote is in the store when `vote` returns, and raises the winner's score against the loser's."""
    before = {candidate.expert: candidate.score for candidate in studio.route(PROMPT).candidates}
    version = studio.route(PROMPT).ranking_version
    cast = pair.vote(1)
    after = {candidate.expert: candidate.score for candidate in studio.route(PROMPT).candidates}
    winner, loser = pair.experts[1], pair.experts[0]
    assert (cast.winner, cast.outcome, cast.prompt) == (winner, "win", PROMPT)
    assert after[winner] - after[loser] > before[winner] - before[loser]
    assert studio.route(PROMPT).ranking_version != version
    assert {shown.expert: shown.propensity for shown in cast.shown}.keys() == set(pair.experts)
    assert all(0 < shown.propensity <= 1 for shown in cast.shown)
    assert cast.evidence["pixel_art"] == 0.95


def test_a_vote_taken_back_is_forgotten(studio: DiffusionGPT, pair: Comparison) -> None:
    """After `undo_vote` the ranking is as before, and the comparison may be voted on again."""
    version = studio.route(PROMPT).ranking_version
    cast = pair.vote(0)
    with pytest.raises(VoteError, match="has been voted on"):
        pair.vote(1)
    assert studio.undo_vote() == cast
    assert studio.route(PROMPT).ranking_version == version
    assert pair.vote("tie").winner is None
    studio.undo_vote()


@pytest.mark.parametrize("choice", [2, -1, True, "A", None, 0.0])
def test_a_choice_that_was_not_shown_is_refused(pair: Comparison, choice: object) -> None:
    """Only the index of a picture, `tie` and `both_bad` are choices."""
    with pytest.raises(VoteError, match="not a picture of this comparison") as caught:
        pair.vote(choice)  # type: ignore[arg-type]
    assert "both_bad" in caught.value.hint


def test_ties_and_bad_pairs_are_kept(studio: DiffusionGPT) -> None:
    """`tie` and `both_bad` are votes without a winner."""
    for outcome in ("tie", "both_bad"):
        cast = studio.compare(PROMPT, num_inference_steps=1).vote(outcome, voter="ann")
        assert (cast.outcome, cast.winner, cast.voter) == (outcome, None, "ann")
        assert studio.undo_vote("ann") == cast
    with pytest.raises(VoteError, match="ann"):
        studio.undo_vote("ann")


def test_files_may_be_voted_on(studio: DiffusionGPT, pair: Comparison, tmp_path: Path) -> None:
    """The files of a comparison are sufficient for the same vote later, including propensities and ballot."""
    a, b = pair.save(tmp_path)
    cast = studio.vote(b, a)
    shown_in = pair.generations[1].shown_in
    assert shown_in is not None
    assert (cast.winner, cast.ballot) == (pair.experts[1], shown_in.ballot)
    assert cast.shown[0].propensity == shown_in.propensities[pair.experts[1]]
    studio.undo_vote()


def test_what_cannot_be_compared_is_refused(studio: DiffusionGPT, pair: Comparison, tmp_path: Path) -> None:
    """Different prompts, one expert twice, a single picture, or a picture of another studio cannot be voted on."""
    first, _ = pair.generations
    other = studio.route_and_generate("a star", expert=pair.experts[1], seed=5, num_inference_steps=1)
    same = studio.route_and_generate(PROMPT, expert=pair.experts[0], seed=6, num_inference_steps=1)
    before = studio.preferences.store.count()
    with pytest.raises(VoteError, match="different prompts"):
        studio.vote(first, other)
    with pytest.raises(VoteError, match="with itself"):
        studio.vote(first, same)
    with pytest.raises(VoteError, match="two pictures"):
        studio.vote(first)
    bare = tmp_path / "bare.png"
    first.image.save(bare)
    with pytest.raises(PictureError, match="does not say how"):
        studio.vote(first, bare)
    assert studio.preferences.store.count() == before


def test_pictures_drawn_apart_have_no_ballot(studio: DiffusionGPT) -> None:
    """Pictures that were not shown together can be compared too; each was certain to be shown; there is no ballot."""
    one, two = (
        studio.route_and_generate(PROMPT, expert=name, seed=5, num_inference_steps=1)
        for name in ("tiny-oil", "tiny-vector")
    )
    cast = studio.vote(one, two)
    assert cast.ballot is None
    assert [shown.propensity for shown in cast.shown] == [1.0, 1.0]
    studio.undo_vote()


def test_too_few_experts_cannot_be_compared(studio: DiffusionGPT, tmp_path: Path) -> None:
    """Comparing needs as many drawable experts as requested, and at least two."""
    for k in (1, 6):
        with pytest.raises(VoteError, match="cannot compare") as caught:
            studio.compare(PROMPT, k)
        assert "Compare 2 to 5" in caught.value.hint
    alone = DiffusionGPT(zoo_of(studio.zoo["tiny-oil"]), settings=settings_in(tmp_path))
    with alone, pytest.raises(VoteError, match="cannot compare 2 of 1"):
        alone.compare(PROMPT)


def test_all_may_be_compared(studio: DiffusionGPT) -> None:
    """`k` experts are drawn, and the vote names all of them."""
    five = studio.compare(PROMPT, 5, num_inference_steps=1)
    assert set(five.experts) == set(studio.zoo)
    assert set(five.vote(4).experts) == set(studio.zoo)
    studio.undo_vote()


def test_small_pictures_are_shown_large_and_sharp() -> None:
    """A small picture is enlarged by a whole factor without new colours; a large one is reduced."""
    small = Image.new("RGB", (32, 16), "red")
    small.putpixel((0, 0), (0, 0, 255))
    big = enlarged(small)
    assert big.size == (384, 192)
    assert len(big.getcolors() or []) == 2
    assert max(enlarged(Image.new("RGB", (SMALL * 8, 10))).size) == 384


def test_a_result_shows_itself(studio: DiffusionGPT) -> None:
    """In a notebook a result shows its pictures with seeds and the sentence that explains the route."""
    result = studio.route_and_generate(PROMPT, seed=5, num_images_per_prompt=2, num_inference_steps=1)
    html = result._repr_html_()
    assert html.count("data:image/png;base64,") == 2
    assert "seed 6" in html
    assert result.route.expert in html
    assert isinstance(result, Generation)
