"""Changing pictures is ranked by itself: own published levels, own votes, own offsets."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fixtures_routing import expert

from diffusiongpt.ranking import (
    SEVERAL_PICTURES,
    LiveTable,
    PersonalTables,
    PublishedPriors,
    RankingTable,
    log_odds,
    published,
    read_published,
)
from diffusiongpt.votes import Rating, Shown, Vote, VoteStore
from diffusiongpt.votes.exchange import export_text, import_file
from diffusiongpt.zoo import EDITING, Capabilities, Zoo

if TYPE_CHECKING:
    from pathlib import Path

DATA: dict[str, Any] = {
    "sources": [],
    "styles": ["anime"],
    "needs": [],
    "columns": {},
    "sizes": [700.0, 100.0, 70.0],
    "unknown": {"level": 900.0, "doubt": 200.0},
    "experts": {
        "o/draws": {"level": 1300.0, "doubt": 6.0, "offsets": {"anime": 90}, "measured": True},
        "o/edits": {"level": 900.0, "doubt": 6.0, "measured": True},
    },
    "families": {},
    "edits": {
        "unknown": {"level": 1100.0, "doubt": 100.0},
        "experts": {
            "o/draws": {"level": 1150.0, "doubt": 15.0, "figures": {"Board": {"overall": 1150.0}}},
            "o/edits": {
                "level": 1240.0, "doubt": 15.0, "offsets": {SEVERAL_PICTURES: -100},
                "figures": {"Board": {"overall": 1240.0}},
            },
        },
        "families": {"kin": {"level": 1200.0, "doubt": 90.0}},
    },
}  # fmt: skip
CAN = Capabilities(image_editing=True)
DRAWS, EDITS, KIN, NEW = (
    expert(name, repo=f"o/{name}", architecture=architecture).model_copy(update={"capabilities": CAN})
    for name, architecture in (("draws", "sd15"), ("edits", "sd15"), ("kin", "kin"), ("new", "sd15"))
)
PLAIN = expert("plain", repo="o/plain")
PRIORS = PublishedPriors.of([DRAWS, EDITS, KIN, NEW, PLAIN], read_published(DATA))
EDIT = {EDITING: 1.0}
DRAW = {"root": 1.0}


def level(name: str, **evidence: float) -> float:
    """Published log-odds of an expert."""
    return float(PRIORS.parts([name], evidence)["published"][0])


def vote(number: int, winner: str, loser: str, on: dict[str, float], prompt: str = "give the cat a hat") -> Vote:
    """One vote of a voter."""
    shown = (Shown(expert=winner), Shown(expert=loser))
    return Vote(id=f"{number}", prompt=prompt, evidence=on, shown=shown, outcome="win", winner=winner, voter="ann")


def mean(table: RankingTable, name: str, on: dict[str, float]) -> float:
    """Score of an expert."""
    return table.score([name], on)[0].mean


def test_an_editor_has_the_level_of_edits_and_never_that_of_drawings() -> None:
    """Own figures, else those of the family, else those of an unlisted editor; styles of drawings add nothing."""
    assert level("draws", **EDIT) == level("draws", anime=1.0, **EDIT) == pytest.approx(log_odds(1150))
    assert level("edits", **EDIT) == pytest.approx(log_odds(1240))
    assert level("kin", **EDIT) == pytest.approx(log_odds(1200))
    assert level("new", **EDIT) == pytest.approx(log_odds(1100))
    assert level("edits", **EDIT, **{SEVERAL_PICTURES: 1.0}) == pytest.approx(log_odds(1140))
    assert level("draws") > level("edits")
    assert PRIORS.doubt(["new"], editing=True) > PRIORS.doubt(["edits"], editing=True)


def test_an_expert_that_is_no_editor_starts_from_its_level_of_drawing() -> None:
    """Where no expert edits, those that start from the picture are told apart by how well they draw."""
    assert level("plain", **EDIT) == level("plain")


def test_the_evidence_for_an_editor_is_a_board_of_edits() -> None:
    """The sentence cites figures of edits, and drawings keep theirs."""
    assert PRIORS.evidence("edits", ["draws"], None, editing=True) == "Board: 1,240 against 1,150 for draws"
    assert "1,240" not in PRIORS.evidence("edits", ["draws"], None)


def test_the_default_zoo_ranks_its_editors_by_the_board() -> None:
    """Every expert that declares editing has a level of edits; those that the board lists have its figure."""
    edits, zoo = published().edits, Zoo.load("default")
    assert edits.standing(zoo["qwen-image-edit-2511"]).level > edits.standing(zoo["flux1-kontext-dev"]).level
    assert edits.standing(zoo["flux2-klein-base-9b"]).doubt > edits.standing(zoo["flux2-klein-9b"]).doubt


def test_votes_on_edits_count_on_edits_alone() -> None:
    """What people say of changed pictures moves no drawing, and the other way round."""
    edits = [vote(i, "draws", "edits", EDIT) for i in range(12)]
    table = RankingTable.fit(edits, PRIORS)
    assert mean(table, "draws", EDIT) > mean(table, "edits", EDIT)
    assert mean(table, "edits", DRAW) == pytest.approx(PRIORS.points(["edits"], DRAW)[0])
    drawn = [vote(100 + i, "edits", "draws", DRAW) for i in range(12)]
    both = RankingTable.fit([*edits, *drawn], PRIORS)
    assert mean(both, "draws", EDIT) == pytest.approx(mean(table, "draws", EDIT))
    assert mean(both, "edits", DRAW) == pytest.approx(mean(RankingTable.fit(drawn, PRIORS), "edits", DRAW))
    assert both.version not in (table.version, RankingTable.fit(drawn, PRIORS).version)


def test_standings_count_edits_apart() -> None:
    """The ranking of drawings lists no ballot of edits, and that of edits no drawing."""
    table = RankingTable.fit([vote(1, "draws", "edits", EDIT | {"anime": 0.9}), vote(2, "kin", "new", DRAW)], PRIORS)
    drawings = {one.expert: one.votes for one in table.standings(expert_ids=["draws"])}
    edits = {one.expert: one.votes for one in table.standings(EDITING, expert_ids=["kin"])}
    assert drawings == {"draws": 0, "kin": 1, "new": 1}
    assert edits == {"draws": 1, "edits": 1, "kin": 0}
    assert [one.votes for one in table.standings("anime", expert_ids=["draws"])] == [0, 0, 0]


@pytest.mark.parametrize("on", [EDIT, DRAW])
def test_a_table_with_edits_is_the_same_from_its_file(tmp_path: Path, on: dict[str, float]) -> None:
    """Both parts are kept, with their text, samples and leaders."""
    said = [vote(i, "draws", "edits", EDIT) for i in range(9)] + [vote(50 + i, "kin", "new", DRAW) for i in range(7)]
    table = RankingTable.fit(said, PRIORS)
    table.save(tmp_path / "table.npz")
    again = RankingTable.load(tmp_path / "table.npz", PRIORS)
    names = ["draws", "edits", "kin", "new"]
    assert again.score(names, on, "give the dog a hat") == table.score(names, on, "give the dog a hat")
    samples = [one.sample(names, on, np.random.default_rng(1), 3, text="a hat") for one in (table, again)]
    assert np.array_equal(*samples)
    assert again.leaders_on("a hat", on) == table.leaders_on("a hat", on) == (("draws",) if on is EDIT else ("kin",))
    assert again.version == table.version


def test_new_votes_on_edits_are_added_to_those_on_edits() -> None:
    """A sequential update agrees with a fit about who is better, also for the first edit of a table."""
    drawn = [vote(50 + i, "kin", "new", DRAW) for i in range(7)]
    edits = [vote(i, "draws", "edits", EDIT) for i in range(9)]
    for known, new in ((drawn, edits), ([*drawn, *edits[:5]], edits[5:])):
        updated, whole = RankingTable.fit(known, PRIORS).updated(new), RankingTable.fit([*drawn, *edits], PRIORS)
        assert updated.tallies == whole.tallies
        assert mean(updated, "draws", EDIT) == pytest.approx(mean(whole, "draws", EDIT), abs=0.3)
        assert mean(updated, "kin", DRAW) == pytest.approx(mean(whole, "kin", DRAW))


def test_how_surely_a_prompt_asks_for_an_edit_does_not_change_what_is_known_of_edits() -> None:
    """Once tasks are apart, two prompts are not alike because both are edits."""
    texts = ("give the cat a hat", "make it night", "remove the car")
    votes = [replace(vote(i, "draws", "edits", EDIT), prompt=texts[i % 3]) for i in range(9)]
    table = RankingTable.fit(votes, PRIORS)
    sure, unsure = (table.score(["draws", "edits"], {EDITING: p}, texts[0]) for p in (1.0, 0.6))
    learnt = [[one.parts["nodes"] + one.parts["residual"] for one in scores] for scores in (sure, unsure)]
    assert learnt[0] == learnt[1]


def test_ratings_of_edits_are_learnt_apart() -> None:
    """A rating of a changed picture says nothing of drawings."""
    ratings = [
        Rating(prompt="give the cat a hat", expert=name, rating=value, evidence=EDIT, voter="ann", source=f"r{i}")
        for i in range(6)
        for name, value in (("draws", 9.0), ("edits", 2.0))
    ]
    table = RankingTable.fit([], PRIORS, ratings)
    assert mean(table, "draws", EDIT) > PRIORS.points(["draws"], EDIT)[0]
    assert mean(table, "draws", DRAW) == pytest.approx(PRIORS.points(["draws"], DRAW)[0])


def test_a_voter_may_prefer_another_editor_than_for_drawing(tmp_path: Path) -> None:
    """Own votes on edits are a part of the scores of edits, and of no drawing."""
    store = VoteStore(tmp_path / "votes.db")
    for i in range(8):
        store.add(vote(i, "new", "kin", EDIT))
        store.add(Vote(prompt="a cat", evidence=EDIT, shown=(Shown(expert="kin"), Shown(expert="new")),
                       outcome="win", winner="kin", voter="bob"))  # fmt: skip
    tables = PersonalTables(LiveTable(store).table(PRIORS), store)
    ann = tables.of("ann")
    personal = {name: ann.score([name], EDIT)[0].parts.get("personal", 0.0) for name in ("new", "kin")}
    assert personal["new"] > 0.1 > -0.1 > personal["kin"]
    assert "personal" not in ann.score(["new"], DRAW)[0].parts


def test_files_of_votes_keep_what_was_an_edit(tmp_path: Path) -> None:
    """CSV says by `category` that a picture was changed, and reading it again brings the task back."""
    on = EDIT | {"animal": 0.5}
    theirs, ours = VoteStore(tmp_path / "theirs.db"), VoteStore(tmp_path / "ours.db")
    theirs.add(vote(1, "draws", "edits", on))
    theirs.add(vote(2, "kin", "new", DRAW))
    theirs.add(Rating(prompt="give the cat a hat", expert="edits", rating=3.0, evidence=on, voter="ann"))
    for ratings, name in ((False, "votes.csv"), (True, "ratings.csv")):
        (tmp_path / name).write_text(export_text(theirs, "csv", ratings=ratings), encoding="utf-8")
        import_file(ours, tmp_path / name, evidence_of=lambda _: {"animal": 0.4})
    votes = {one.id: one.evidence for one in ours.all()}
    assert votes == {"1": {"animal": 0.4, EDITING: 1.0}, "2": {"animal": 0.4}}
    assert [one.evidence for one in ours.ratings()] == [{"animal": 0.4, EDITING: 1.0}]
