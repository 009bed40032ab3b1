"""The preference model: what votes and ratings on some prompts say about others, and when they say nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from fixtures_routing import expert, router_of, zoo_of

from diffusiongpt.flow import Request
from diffusiongpt.ranking import RankingTable, TagPriors
from diffusiongpt.ranking.model import (
    RATING_SCALE,
    Observations,
    Prompt,
    PromptSpace,
    RatingRows,
    VoteRows,
    rating_noise,
)
from diffusiongpt.understanding import NeedReader
from diffusiongpt.votes import Rating, Shown, Vote
from diffusiongpt.zoo import shipped_needs

if TYPE_CHECKING:
    from pathlib import Path

NO_TAGS = TagPriors({})
NEEDS = NeedReader(shipped_needs())
CROWDED = ("oil_painting", "pixel_art", "sketch")
SIGNS = [f"a {thing} with the word {word} on it" for thing in ("mug", "shop", "bus", "kite") for word in ("OPEN", "GO")]
FACES = [
    f"the face of a {who} with {what} eyes" for who in ("man", "girl", "nurse", "chef") for what in ("sad", "blue")
]


def evidence(text: str) -> dict[str, float]:
    """The needs of a prompt."""
    return NEEDS.read(text)


def won(number: int, text: str, winner: str, loser: str) -> Vote:
    """A vote on a prompt."""
    shown = (Shown(expert=winner), Shown(expert=loser))
    return Vote(id=f"{number:05}", prompt=text, shown=shown, outcome="win", winner=winner, evidence=evidence(text))


def two_skills(rounds: int = 3) -> list[Vote]:
    """`writer` wins on signs, `painter` on faces."""
    pairs = [(text, "writer", "painter") for text in SIGNS] + [(text, "painter", "writer") for text in FACES]
    return [won(i, *pair) for i, pair in enumerate(pairs * rounds)]


def lead(table: RankingTable, text: str) -> float:
    """How far the writer is ahead on a prompt."""
    writer, painter = table.score(["writer", "painter"], evidence(text), text)
    return writer.mean - painter.mean


@pytest.mark.parametrize(
    ("english", "chinese", "need"),
    [
        ("three cats", "三只猫", "counting"),
        ("a red car left of a tree", "树左边的红色汽车", "position"),
        ("a sad old man", "一个悲伤的老人", "emotion"),
        ("a wooden horse", "木马", "material"),
        ("low-angle view of a tower", "低角度的塔", "view"),
        ("a shop sign with letters", "写着字母的招牌", "text"),
    ],
)
def test_needs_are_read_alike_in_two_languages(english: str, chinese: str, need: str) -> None:
    """The needs of a prompt do not depend on its language."""
    assert NEEDS.read(english)[need] >= 0.5
    assert NEEDS.read(chinese)[need] >= 0.5


def test_what_is_read_literally_is_a_need_for_sure() -> None:
    """Quoted words are a need for text, and a number of things a need for counting, whatever the other words are."""
    assert NEEDS.read("a fox", quotes=True)["text"] == 1.0
    assert NEEDS.read("foxes", count=7)["counting"] == 1.0
    assert "counting" not in NEEDS.read("a fox", count=1)


def test_votes_on_some_prompts_teach_about_others_like_them() -> None:
    """New prompts with the same needs are scored by what was learnt; the parts show where it comes from."""
    table = RankingTable.fit(two_skills(), NO_TAGS)
    assert lead(table, "a hat with the word HELLO on it") > 0.5
    assert lead(table, "the face of a boy with green eyes") < -0.5
    score = table.score(["writer"], evidence(SIGNS[0]), SIGNS[0])[0]
    assert sum(score.parts.values()) == pytest.approx(score.mean)
    assert score.parts["residual"] > 0


def test_what_was_learnt_in_english_holds_in_chinese() -> None:
    """A prompt that shares no word with those voted on is scored by its needs."""
    table = RankingTable.fit(two_skills(), NO_TAGS)
    assert lead(table, "一块写着文字的招牌") > 0.2
    assert lead(table, "一张悲伤的脸, 蓝色的眼睛") < -0.2


def test_a_prompt_like_none_before_is_the_least_sure() -> None:
    """The standard deviation is smaller where there were votes."""
    table = RankingTable.fit(two_skills(), NO_TAGS)
    near, far = (
        table.score(["writer"], evidence(text), text)[0].std for text in (SIGNS[0], "quantum foam, macro, isometric")
    )
    assert near < far


def test_votes_on_prompts_like_this_one_find_an_expert_wherever_it_hangs(tmp_path: Path) -> None:
    """An expert of another branch is scored, and chosen, once people prefer it on such prompts."""
    crowd = [expert(f"{style}-{number}".replace("_", "-"), style) for style in CROWDED for number in range(20)]
    zoo = zoo_of(*crowd, expert("sketcher", "sketch"), expert("writer", "pixel_art"))
    router = router_of(zoo, tmp_path / "v.db")
    asked = Request(prompt="an oil painting of a sign with the word HELLO on it")
    assert "writer" not in {one.expert for one in router.route(asked).candidates}
    for number, text in enumerate(SIGNS * 3):
        router.preferences.record(won(number, text, "writer", "sketcher"))
    assert "writer" in {one.expert for one in router.route(asked).candidates}


def chance_votes(count: int, *, routed: bool) -> list[Vote]:
    """Votes that depend on the prompt, or that prefer one expert with the same probability on every prompt."""
    rng = np.random.default_rng(5)
    votes = []
    for number in range(count):
        is_sign = bool(rng.integers(2))
        text = f"{(SIGNS if is_sign else FACES)[rng.integers(8)]} {number}"
        ahead = "writer" if (is_sign if routed else True) else "painter"
        behind = "painter" if ahead == "writer" else "writer"
        pair = (ahead, behind) if rng.random() < 0.8 else (behind, ahead)
        votes.append(won(number, text, *pair))
    return votes


def test_where_nothing_can_be_learnt_the_best_single_expert_is_chosen() -> None:
    """With enough votes cross-validation decides; if the prompt does not matter, every prompt has the same scores."""
    table = RankingTable.fit(chance_votes(400, routed=False), NO_TAGS)
    assert not table.beats_best_single
    assert lead(table, SIGNS[0]) == pytest.approx(lead(table, FACES[0]), abs=1e-9)
    assert lead(table, SIGNS[0]) > 0


def test_where_the_prompt_decides_routing_pays() -> None:
    """The same number of votes that depend on the prompt keep their effect."""
    table = RankingTable.fit(chance_votes(400, routed=True), NO_TAGS)
    assert table.beats_best_single
    assert lead(table, SIGNS[0]) > 0 > lead(table, FACES[0])


def ratings(scale: float = 1.0, shift: float = 0.0, source: str = "human") -> list[Rating]:
    """The writer is rated higher on signs and lower on faces; each prompt has its own level."""
    rng = np.random.default_rng(1)
    rows = []
    for number, text in enumerate(SIGNS + FACES):
        ahead = 10.0 if text in SIGNS else -10.0
        for who, value in (("writer", ahead), ("painter", -ahead), ("other", 0.0)):
            said = 50 + 5 * number + value + rng.normal(0, 3)
            rows.append(
                Rating(
                    id=f"{number:03}{who}", prompt=text, expert=who, rating=shift + scale * said,
                    evidence=evidence(text), source=source,
                )
            )  # fmt: skip
    return rows


def test_ratings_teach_as_votes_do_on_any_scale() -> None:
    """Stars or points, the same ratings give the same scores; how high a prompt rates all experts does not count."""
    points = RankingTable.fit([], NO_TAGS, ratings())
    stars = RankingTable.fit([], NO_TAGS, ratings(scale=0.05, shift=3.0))
    assert lead(points, SIGNS[0]) > 0.5 > -0.5 > lead(points, FACES[0])
    assert lead(stars, SIGNS[0]) == pytest.approx(lead(points, SIGNS[0]), rel=0.02)
    assert points.version != stars.version


def test_a_judge_weighs_less_than_a_person() -> None:
    """The same ratings by a model move the scores much less."""
    people = RankingTable.fit([], NO_TAGS, ratings())
    model = RankingTable.fit([], NO_TAGS, ratings(source="judge:tiny"))
    assert 0 < lead(model, SIGNS[0]) < lead(people, SIGNS[0])


def test_votes_and_ratings_add_up() -> None:
    """Votes that contradict the ratings bring the experts closer."""
    rated = RankingTable.fit([], NO_TAGS, ratings())
    against = [won(i, text, "painter", "writer") for i, text in enumerate(SIGNS)]
    both = RankingTable.fit(against, NO_TAGS, ratings())
    assert lead(both, SIGNS[0]) < lead(rated, SIGNS[0])


def test_noise_is_what_prompt_and_expert_do_not_explain() -> None:
    """The noise of additive ratings plus Gaussian noise is found to a few percent."""
    rng = np.random.default_rng(0)
    prompt, expert = np.repeat(np.arange(200), 5), np.tile(np.arange(5), 200)
    values = rng.normal(0, 20, 200)[prompt] + rng.normal(0, 5, 5)[expert] + rng.normal(0, 3, 1000)
    assert rating_noise(values, expert, prompt).std == pytest.approx(3, rel=0.1)
    assert np.pi / np.sqrt(3) == pytest.approx(np.sqrt(2) / RATING_SCALE)


def test_features_of_landmarks_have_the_kernel_as_dot_product() -> None:
    """Nyström features reproduce the similarity of the prompts they are made of; the similarity to oneself is one."""
    prompts = [Prompt(text, evidence(text)) for text in SIGNS + FACES]
    space = PromptSpace(prompts)
    for wordless in (False, True):
        alike = space.features(prompts, wordless=wordless)[:, space.linear :].astype(np.float64)
        kernel = alike @ alike.T
        assert np.diag(kernel) == pytest.approx(np.ones(len(prompts)), abs=1e-3)
        assert kernel.min() >= -1e-3
        assert kernel[0, 1] > kernel[0, len(SIGNS)]


def test_the_order_of_prompts_does_not_matter() -> None:
    """Landmarks do not depend on the order of the prompts."""
    prompts = [Prompt(text, evidence(text)) for text in SIGNS + FACES]
    one, other = PromptSpace(prompts, landmarks=5), PromptSpace(prompts[::-1], landmarks=5)
    assert np.array_equal(one.features(prompts[:3]), other.features(prompts[:3]))


def test_slopes_are_the_derivatives_of_the_likelihood() -> None:
    """Votes and ratings together, checked against finite differences."""
    rng = np.random.default_rng(3)
    indexes = rng.integers(0, 4, 12)
    votes = VoteRows(
        indexes,
        indexes,
        (indexes + 1) % 4,
        rng.choice([0.0, 0.5, 1.0], 12),
        rng.uniform(0.2, 2, 12),
        rng.normal(size=12),
    )
    rated = RatingRows(
        np.repeat(np.arange(4), 3), np.tile(np.arange(3), 4), rng.normal(size=12), rng.uniform(0.2, 2, 12),
        np.repeat(np.arange(4), 3), rng.normal(size=12),
    )  # fmt: skip
    seen = Observations(np.ones((4, 1), np.float32), 4, votes, rated)
    at = rng.normal(size=seen.pairs.size)
    slopes = seen.slopes(at)
    for pair in range(seen.pairs.size):
        step = np.zeros(seen.pairs.size)
        step[pair] = 1e-5
        rise = (seen.log_likelihood(at + step) - seen.log_likelihood(at - step)) / 2e-5
        assert slopes[pair] == pytest.approx(rise, abs=1e-6)
