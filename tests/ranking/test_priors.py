"""Priors: one fit of all published evidence, inherited by kin, with tags and the form of a prompt; all with sources."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fixtures_routing import expert, route, router_of, tiny_zoo, zoo_of

from diffusiongpt.flow import Request
from diffusiongpt.ranking import (
    ELO_PER_LOG_ODDS,
    FURTHER_STYLE_POINTS,
    GENERALIST_POINTS,
    HARD_STYLE_POINTS,
    KIND,
    MEASURED_STYLE_POINTS,
    STRENGTH_POINTS,
    STYLE_POINTS,
    SUBJECT_SHARE,
    PublishedPriors,
    RankingTable,
    TagPriors,
    log_odds,
    published,
    read_published,
)
from diffusiongpt.understanding import KindReader
from diffusiongpt.zoo import Tags, Zoo

if TYPE_CHECKING:
    from pathlib import Path

EVIDENCE: dict[str, Any] = {
    "sources": [],
    "styles": ["watercolor", "anime"],
    "needs": ["counting"],
    "columns": {"watercolor": "art"},
    "sizes": [700.0, 100.0, 70.0],
    "unknown": {"level": 900.0, "doubt": 200.0},
    "experts": {
        "o/a": {
            "level": 1200.0,
            "doubt": 6.0,
            "offsets": {"watercolor": 40, "animal": 20, "counting": 60, "kind_art": 30},
            "languages": {"zh": -30.0},
            "figures": {"Arena": {"art": 1240.0, "overall": 1200.0}},
            "measured": True,
        },
        "o/b": {
            "level": 1000.0,
            "doubt": 6.0,
            "figures": {"Arena": {"art": 990.0, "overall": 1000.0}},
            "measured": True,
        },
    },
    "families": {"new": {"level": 1100.0, "doubt": 70.0, "source": "models of the family new"}},
}
SMALL = read_published(EVIDENCE)
LISTED, OTHER = expert("a", repo="o/a"), expert("b", repo="o/b")
KINDRED = expert("d", repo="o/d", architecture="new")
STRANGER = expert("e", repo="o/e", architecture="other", size_gb=None)
PRIORS = PublishedPriors.of([LISTED, OTHER, KINDRED, STRANGER], SMALL)


def level(name: str, **evidence: float) -> float:
    """Published log-odds of an expert."""
    return float(PRIORS.parts([name], evidence)["published"][0])


def test_who_has_figures_is_known_by_them_and_others_by_kin_or_size() -> None:
    """An expert has its own level, else its family's, else that of its size; an adapter has its base's."""
    assert level("a") == pytest.approx(log_odds(1200))
    assert level("d") == pytest.approx(log_odds(1100))
    assert level("e") == level("unheard-of") == 0
    sized = expert("s", repo="o/s", architecture="other").model_copy(update={"size_gb": 10.0})
    assert SMALL.standing(sized).level == pytest.approx(700 + 100 * np.log(10))
    adapter = expert("l", repo="o/l", architecture="new").model_copy(update={"kind": "adapter", "base": "o/a"})
    assert SMALL.standing(adapter).level == 1200
    assert SMALL.standing(adapter).doubt > SMALL.standing(LISTED).doubt


def test_an_offset_counts_as_far_as_the_prompt_is_about_it() -> None:
    """Styles take their share first, subjects and needs share what no style took, and a kind adds its own."""
    per_elo = 1 / ELO_PER_LOG_ODDS
    assert level("a", watercolor=0.5) - level("a") == pytest.approx(20 * per_elo)
    assert level("a", animal=1.0) - level("a") == pytest.approx(SUBJECT_SHARE * 20 * per_elo)
    assert level("a", watercolor=1.0, animal=1.0) == pytest.approx(level("a", watercolor=1.0))
    assert level("a") < level("a", counting=1.0) < level("a") + 60 * per_elo + 1e-9
    assert level("a", anime=1.0, animal=1.0) == pytest.approx(level("a"))
    assert level("a", kind_art=0.5) - level("a") == pytest.approx(15 * per_elo)
    assert level("a", kind_art=1.0, watercolor=1.0) - level("a") == pytest.approx((30 + 40) * per_elo)


def test_the_less_is_known_the_more_doubt() -> None:
    """Own figures narrow a score most, family less, nothing not at all; and samples spread as scores say."""
    a, d, e = PRIORS.doubt(["a", "d", "e"])
    assert 0 < a < d < e == 1
    table = RankingTable.fit([], PRIORS)
    stds = [score.std for score in table.score(["a", "d", "e"], {"watercolor": 1.0})]
    assert stds == sorted(stds)
    drawn = table.sample(["a", "e"], {"watercolor": 1.0}, np.random.default_rng(0), 20_000)
    assert drawn.std(axis=0) == pytest.approx([stds[0], stds[2]], rel=0.03)


def test_a_claim_is_not_counted_beside_figures() -> None:
    """Tags of an expert with figures of its own add nothing, those of others are worth `STYLE_POINTS`."""
    tagged = [one.model_copy(update={"tags": Tags(styles=("watercolor",))}) for one in (LISTED, KINDRED)]
    priors = PublishedPriors.of(tagged, SMALL)
    none, some = priors.parts(["a", "d"], {"watercolor": 1.0})["tags"]
    assert none == 0 < some < MEASURED_STYLE_POINTS


def test_the_better_the_base_the_less_a_fine_tune_adds() -> None:
    """What was measured on an old base fades with the level of the base; where nothing was, a tag keeps its worth."""
    tags = dict.fromkeys(("old", "middle", "new"), Tags(styles=("watercolor",))) | {"cut": Tags(styles=("papercut",))}
    levels = {"old": 656.0, "middle": 872.0, "new": 1500.0, "cut": 1100.0}
    old, middle, new, _ = TagPriors(tags, levels).points([*tags], {"watercolor": 1.0})
    assert old == MEASURED_STYLE_POINTS > middle > new > 0
    assert TagPriors(tags, levels).points(["cut"], {"papercut": 1.0}) == STYLE_POINTS


def test_a_tag_is_worth_about_one_log_odds() -> None:
    """What fine-tunes are measured to gain bounds what a tag may claim, save where bases cannot draw a style."""
    assert 0.5 <= MEASURED_STYLE_POINTS <= STYLE_POINTS <= 1
    assert all(STYLE_POINTS < worth < 2.5 for worth in HARD_STYLE_POINTS.values())


def test_one_style_beats_four_and_a_calling_beats_a_strength() -> None:
    """Each further style costs a little, and a style that a generalist declares counts less."""
    tags = TagPriors(
        {
            "one": Tags(styles=("comic",)),
            "four": Tags(styles=("anime", "comic", "photo", "sketch")),
            "strong": Tags(styles=("comic",), generalist=True),
        }
    )
    one, four, strong = tags.points(["one", "four", "strong"], {"comic": 1.0})
    assert (one, strong) == (STYLE_POINTS, STRENGTH_POINTS)
    assert one - four == pytest.approx(3 * FURTHER_STYLE_POINTS)
    assert tags.points(["one", "strong"], {"root": 1.0}).tolist() == [0, GENERALIST_POINTS]


def test_the_tiny_zoo_is_ranked_by_its_tags() -> None:
    """Among experts that no table lists and that are alike otherwise, tags alone decide."""
    names, on = list(tiny_zoo()), {"pixel_art": 0.95, "animal": 0.7, "root": 0.05}
    priors, tags = PublishedPriors.of(tiny_zoo().values()), TagPriors.of(tiny_zoo().values())
    assert "oil_painting" not in on
    gaps = priors.points(names, on) - tags.points(names, on)
    assert gaps == pytest.approx(np.full(len(names), gaps[0]))
    assert gaps[0] < PublishedPriors.of(Zoo.load("default").values()).points(["sd15-base"], on)[0]


def test_the_fingerprint_follows_the_figures() -> None:
    """Changing a published figure or a tag changes the fingerprint, and the same priors have the same one."""
    changed = read_published(EVIDENCE | {"unknown": {"level": 950.0, "doubt": 200.0}})
    assert PublishedPriors.of([LISTED], SMALL).fingerprint == PublishedPriors.of([LISTED], SMALL).fingerprint
    assert PublishedPriors.of([LISTED], SMALL).fingerprint != PublishedPriors.of([LISTED], changed).fingerprint
    tagged = KINDRED.model_copy(update={"tags": Tags(styles=("anime",))})
    assert PublishedPriors.of([KINDRED], SMALL).fingerprint != PublishedPriors.of([tagged], SMALL).fingerprint


def test_evidence_is_stated_in_figures_that_both_have() -> None:
    """The figure of the nearest column, beside the next lower one; without figures, where the prior is from."""
    assert PRIORS.evidence("a", ["d", "b"], "watercolor") == "Arena, art: 1,240 against 990 for b"
    assert PRIORS.evidence("a", ["d"], "anime") == "Arena: 1,200"
    assert PRIORS.evidence("d", [], None) == "models of the family new"


def test_a_generalist_with_strengths_is_found_everywhere() -> None:
    """It hangs on the root, on its styles and on its subjects."""
    strong = expert("strong", "anime", subjects=["animal"]).model_copy(
        update={"tags": Tags(styles=("anime",), subjects=("animal",), generalist=True)}
    )
    taxonomy = zoo_of(strong, expert("comic", "comic")).taxonomy
    assert strong.is_generalist
    assert {taxonomy.experts_on(node) for node in ("root", "anime", "animal")} == {("strong",)}


def test_parts_are_shown_apart(tmp_path: Path) -> None:
    """A route shows published evidence, tags and wording apart, and the parts sum to the score."""
    decision = route("a watercolor fox", Zoo.load("default"), tmp_path / "v.db")
    for one in decision.candidates:
        assert list(one.parts) == ["published", "tags", "wording", "global", "nodes", "residual"]
        assert sum(one.parts.values()) == pytest.approx(one.score)


@pytest.mark.parametrize(
    "prompt",
    ["studio ghibli style meadow", "a 3d render of a teapot", "logo for a bakery", "anime cat", "a comic hero"],
)
def test_no_old_specialist_beats_what_people_prefer(tmp_path: Path, prompt: str) -> None:
    """A tag on a small old base loses to the models that people prefer by hundreds of Elo points."""
    chosen = Zoo.load("default")[route(prompt, Zoo.load("default"), tmp_path / "v.db").expert]
    assert chosen.architecture not in ("sd15", "sdxl")
    assert published().standing(chosen).level > 1100


def test_an_exact_pixel_grid_takes_an_expert_made_for_it(tmp_path: Path) -> None:
    """Where bases cannot draw a style whatever the prompt says, the expert of the style is chosen."""
    zoo = Zoo.load("default")
    chosen = route("pixel art of a blacksmith", zoo, tmp_path / "v.db").expert
    assert zoo[chosen].tags.styles == ("pixel_art",)


def test_danbooru_tags_reach_an_expert_that_wants_them(tmp_path: Path) -> None:
    """A prompt of tags goes to an expert whose prompt style they are; the same in a sentence does not."""
    zoo = Zoo.load("default")
    tagged = route("1girl, solo, silver hair, looking at viewer", zoo, tmp_path / "v.db")
    assert zoo[tagged.expert].prompt_style[0] == "danbooru"
    assert tagged.chosen.parts["wording"] > 0
    plain = route("an anime girl with silver hair looks at the viewer", zoo, tmp_path / "v.db")
    assert "danbooru" not in zoo[plain.expert].prompt_style


def test_a_long_description_costs_who_reads_keywords(tmp_path: Path) -> None:
    """More words than CLIP reads count against experts that take short keywords first."""
    zoo = Zoo.load("default")
    router = router_of(zoo, tmp_path / "v.db")
    text = "an anime fox walks over a bridge while " + "the river below it carries red leaves and " * 8 + "the sun sets"
    parts = {one.expert: one.parts["wording"] for one in router.route(Request(prompt=text)).candidates}
    assert {parts[name] for name in parts if "natural_language" in zoo[name].prompt_style[:1]} == {0}
    assert all(parts[name] < 0 for name in parts if "short_keywords" in zoo[name].prompt_style[:1])


def test_every_table_names_its_source() -> None:
    """The tables behind the prior have source, date, licence and credit, and speak of nodes that we have."""
    for table in published().sources:
        assert table["source"].startswith("https://")
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", table["published"])
        assert table["licence"]
        assert table["credit"]
    zoo = Zoo.load("default")
    nodes = {*zoo.taxonomy.nodes, *zoo.taxonomy.needs}
    nodes |= {f"{KIND}{kind}" for kind in KindReader.kinds()}
    assert published().styles == {node.id for node in zoo.taxonomy.of_kind("style")}
    assert all(set(standing.offsets) <= nodes for standing in published().experts.values())


def test_most_of_the_zoo_is_measured() -> None:
    """Half of the local checkpoints have figures of their own, and every one has at least a family."""
    local = [one for one in Zoo.load("default").values() if one.kind == "checkpoint" and one.backend == "diffusers"]
    standings = [published().standing(one) for one in local]
    assert sum(one.measured for one in standings) >= len(local) / 2
    assert all(one.source != "nothing published" for one in standings)
