"""Priors: published preferences on one scale, inherited by relatives, and points for tags; all figures have sources."""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fixtures_routing import expert, route, router_of, tiny_zoo, zoo_of

from diffusiongpt.flow.request import Request
from diffusiongpt.ranking.priors import (
    FURTHER_STYLE_POINTS,
    GENERALIST_POINTS,
    STRENGTH_POINTS,
    STYLE_POINTS,
    PublishedPriors,
    TagPriors,
)
from diffusiongpt.ranking.published import KIN, NOTHING, REFERENCE_ELO, ROW, log_odds, published, read_leaderboards
from diffusiongpt.ranking.table import RankingTable
from diffusiongpt.zoo.expert import Capabilities, Tags
from diffusiongpt.zoo.layers import Zoo

if TYPE_CHECKING:
    from pathlib import Path

BOARDS: dict[str, Any] = {
    "tables": [
        {
            "name": "main",
            "rows": [
                {
                    "row": "A",
                    "repo": "o/a",
                    "family": "new",
                    "writes": "strong",
                    "elo": {"overall": 1300.0, "art": 1400.0},
                },
                {
                    "row": "B",
                    "repo": "o/b",
                    "family": "old",
                    "writes": "poor",
                    "elo": {"overall": 1100.0, "art": 1100.0},
                },
            ],
        },
        {
            "name": "older",
            "anchor": "o/b",
            "rows": [
                {"row": "b", "repo": "o/b", "family": "old", "writes": "poor", "elo": {"overall": 900.0}},
                {"row": "c", "repo": "o/c", "family": "old", "writes": "poor", "elo": {"overall": 800.0}},
            ],
        },
    ],
    "styles": {"art": ["watercolor"]},
    "subjects": {"art": ["design"]},
}
SMALL = read_leaderboards(BOARDS)
LISTED, ANCHORED = expert("a", repo="o/a"), expert("c", repo="o/c")
KINDRED = expert("d", repo="o/d", architecture="old", capabilities=Capabilities(text_rendering_en="poor"))
STRANGER = expert("e", repo="o/e", architecture="other", capabilities=Capabilities(text_rendering_en="none"))
PRIORS = PublishedPriors.of([LISTED, ANCHORED, KINDRED, STRANGER], SMALL)


def level(name: str, **evidence: float) -> float:
    """Published log-odds of an expert."""
    return float(PRIORS.parts([name], evidence)["published"][0])


def test_four_hundred_elo_are_odds_of_ten() -> None:
    """An expert's own row counts by the Elo formula, relative to a model that is not listed."""
    assert log_odds(REFERENCE_ELO) == 0
    assert log_odds(REFERENCE_ELO + 400) == pytest.approx(log(10))
    assert level("a") == pytest.approx(log_odds(1300))


def test_an_older_table_is_moved_by_its_anchor() -> None:
    """A table of another tournament keeps its differences, and its anchor gets the Elo of the main table."""
    assert level("c") == pytest.approx(log_odds(1100 - 100))
    assert SMALL.rows["o/b"].table == "main"


def test_a_category_counts_as_far_as_the_prompt_is_about_it() -> None:
    """Styles take their share first, subjects share the remainder, and the rest is the overall figure."""
    gap = log_odds(1400) - log_odds(1300)
    assert level("a", watercolor=0.6) == pytest.approx(log_odds(1300) + 0.6 * gap)
    assert level("a", watercolor=0.6, design=0.5) == pytest.approx(log_odds(1300) + (0.6 + 0.4 * 0.5) * gap)
    assert level("a", anime=1.0) == pytest.approx(log_odds(1300))


def test_kin_speak_for_who_has_no_row() -> None:
    """Without a row, the family and the models with the same text skill count, and shifts shrink toward the mean."""
    poor = np.polyval(np.polyfit([3, 0, 0], [1300, 1100, 1000], 1), 0)
    assert level("d") == pytest.approx(log_odds((1100 + 1000 + 2 * poor) / 4))
    usual = (log_odds(1400) - log_odds(1300)) / 2
    assert level("d", watercolor=1.0) - level("d") == pytest.approx(usual / 2)


def test_a_stranger_is_the_measure_of_all() -> None:
    """Without published figures the prior is 0: without relatives, for unknown experts, and in the whole tiny zoo."""
    assert level("e", watercolor=1.0) == level("nobody") == 0
    tiny = PublishedPriors.of(tiny_zoo().values())
    tags = TagPriors.of(tiny_zoo().values())
    on = {"pixel_art": 0.95, "animal": 0.7, "root": 0.05}
    assert tiny.points(list(tiny_zoo()), on).tolist() == tags.points(list(tiny_zoo()), on).tolist()
    assert tiny.doubt(list(tiny_zoo())).tolist() == [NOTHING] * len(tiny_zoo())


def test_weaker_knowledge_leaves_more_doubt() -> None:
    """A row narrows a score most, relatives less, nothing not at all; samples spread as the scores state."""
    assert PRIORS.doubt(["a", "c", "d", "e"]).tolist() == [ROW, KIN, KIN, NOTHING]
    table = RankingTable.fit([], PRIORS)
    a, c, d, e = (score.std for score in table.score(["a", "c", "d", "e"], {"watercolor": 1.0}))
    assert a < c == d < e
    assert e == RankingTable.fit([], TagPriors({})).score(["e"], {"watercolor": 1.0})[0].std
    drawn = table.sample(["a", "e"], {"watercolor": 1.0}, np.random.default_rng(0), 20_000)
    assert drawn.std(axis=0) == pytest.approx([a, e], rel=0.03)


def test_the_fingerprint_follows_the_figures() -> None:
    """Changing a published figure or a tag changes the fingerprint, and equal priors have equal fingerprints."""
    changed = read_leaderboards(BOARDS | {"tables": BOARDS["tables"][:1]})
    assert PublishedPriors.of([LISTED], SMALL).fingerprint == PublishedPriors.of([LISTED], SMALL).fingerprint
    assert PublishedPriors.of([ANCHORED], SMALL).fingerprint != PublishedPriors.of([ANCHORED], changed).fingerprint
    tagged = LISTED.model_copy(update={"tags": Tags(styles=("anime",))})
    assert PublishedPriors.of([LISTED], SMALL).fingerprint != PublishedPriors.of([tagged], SMALL).fingerprint


def test_one_style_beats_four_and_a_calling_beats_a_strength() -> None:
    """Each further style costs a quarter point, and a style that a generalist declares counts half."""
    tags = TagPriors(
        {
            "one": Tags(styles=("anime",)),
            "four": Tags(styles=("anime", "comic", "photo", "sketch")),
            "strong": Tags(styles=("anime",), generalist=True),
        }
    )
    one, four, strong = tags.points(["one", "four", "strong"], {"anime": 1.0})
    assert (one, one - four, strong) == (STYLE_POINTS, 3 * FURTHER_STYLE_POINTS, STRENGTH_POINTS)
    assert tags.points(["one", "strong"], {"root": 1.0}).tolist() == [0, GENERALIST_POINTS]


def test_a_generalist_with_strengths_is_found_everywhere() -> None:
    """It is on the root, on its styles and on its subjects."""
    strong = expert("strong", "anime", subjects=["animal"]).model_copy(
        update={"tags": Tags(styles=("anime",), subjects=("animal",), generalist=True)}
    )
    taxonomy = zoo_of(strong, expert("comic", "comic")).taxonomy
    assert strong.is_generalist
    assert {taxonomy.experts_on(node) for node in ("root", "anime", "animal")} == {("strong",)}


def test_published_is_a_part_of_its_own(tmp_path: Path) -> None:
    """A route shows published preference and tags apart, and the parts sum to the score."""
    decision = route("a watercolor fox", Zoo.load("default"), tmp_path / "v.db")
    for one in decision.candidates:
        assert list(one.parts) == ["published", "tags", "global", "nodes", "residual"]
        assert sum(one.parts.values()) == pytest.approx(one.score)
    assert "published votes speak for it" in decision.explain()


def test_the_route_says_when_published_votes_decide(tmp_path: Path) -> None:
    """If an expert wins over an expert of the style by published preference, the explanation mentions this."""
    rated = expert("rated", "anime", repo="black-forest-labs/FLUX.2-dev").model_copy(
        update={"tags": Tags(styles=("anime",), generalist=True)}
    )
    weak = expert("weak", "anime", repo="stabilityai/sdxl-turbo")
    router = router_of(zoo_of(weak, rated), tmp_path / "v.db")
    decision = router.route(Request(prompt="an anime cat"))
    assert decision.expert == "rated"
    assert "published votes" in decision.explain().splitlines()[0]


def test_every_figure_names_its_source() -> None:
    """The leaderboards of the package have source, date, licence and credit, and name existing experts and nodes."""
    from importlib import resources

    from ruamel.yaml import YAML

    text = resources.files("diffusiongpt.ranking").joinpath("published.yaml").read_text(encoding="utf-8")
    zoo = Zoo.load("default")
    for table in YAML(typ="safe", pure=True).load(text)["tables"]:
        assert table["source"].startswith("https://")
        assert table["published"]
        assert table["licence"]
        assert table["credit"]
    assert set(published().rows) <= {one.repo for one in zoo.values()}
    assert {*published().styles, *published().subjects} <= set(zoo.taxonomy.nodes)
    assert published().rows["black-forest-labs/FLUX.2-dev"].elo["overall"] == 1145.8
    by_repo = {one.repo: one for one in zoo.values()}
    for row in published().rows.values():
        assert row.family == by_repo[row.repo].architecture
        assert row.writes == by_repo[row.repo].capabilities.text_rendering_en
