"""Sequential updates, refits in the background, and tables as files."""

from __future__ import annotations

import json
import logging
import tracemalloc
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

import numpy as np
import pytest
from fixtures_votes import child, finish

from diffusiongpt.errors import VoteError
from diffusiongpt.ranking import LiveTable, RankingTable, TagPriors
from diffusiongpt.ranking.model import FitOptions
from diffusiongpt.votes import Rating, Shown, Vote, VoteStore
from diffusiongpt.zoo import Tags

if TYPE_CHECKING:
    from collections.abc import Callable

PRIORS = TagPriors({})
LARGE = FitOptions(full_parameters=0)
"""Fits as in a pool too large for covariances between experts."""
EXPERTS = tuple(f"expert-{i}" for i in range(8))
STYLES = ("watercolor", "pixel_art", "oil_paint", "photo")
THINGS = ("fox", "castle", "robot", "bicycle", "lighthouse", "market", "dragon", "kettle")
SKILL = np.random.default_rng(7).normal(scale=1.5, size=(len(STYLES), len(EXPERTS)))


def prompt_of(number: int) -> tuple[str, dict[str, float]]:
    """One of many prompts and its evidence."""
    style, thing = STYLES[number % 4], THINGS[number // 4 % 8]
    return f"{style} of a {thing} number {number // 32 % 20}", {style: 0.9, "root": 0.1}


def world(count: int, *, start: int = 0, **fields: object) -> list[Vote]:
    """Votes in a world where each style has its own experts."""
    votes = []
    for number in range(start, start + count):
        rng = np.random.default_rng(number)
        text, evidence = prompt_of(int(rng.integers(640)))
        one, other = rng.choice(len(EXPERTS), 2, replace=False).tolist()
        skill = SKILL[STYLES.index(text.split()[0])]
        if rng.random() > 1 / (1 + np.exp(skill[other] - skill[one])):
            one, other = other, one
        shown = (Shown(expert=EXPERTS[one]), Shown(expert=EXPERTS[other]))
        told = {
            "prompt": text,
            "evidence": evidence,
            "shown": shown,
            "outcome": "win",
            "winner": EXPERTS[one],
            "time": "2026-01-01",
        }
        votes.append(Vote(id=f"v{number:06}", **{**told, **fields}))
    return votes


def picks(table: RankingTable) -> list[str]:
    """The expert that a table would choose, for many prompts."""
    chosen = []
    for number in range(200):
        text, evidence = prompt_of(number * 3)
        chosen.append(max(table.score(EXPERTS, evidence, text), key=lambda score: score.mean).expert)
    return chosen


def filled(folder: Path, count: int, fit: Callable[..., RankingTable] = RankingTable.fit) -> LiveTable:
    """The live table of a store with votes of the world."""
    preferences = LiveTable(folder / "votes.db", fit=fit)
    preferences.store.merge(world(count))
    return preferences


def test_votes_taken_in_one_by_one_agree_with_a_refit() -> None:
    """After 2 % more votes at least 99 of 100 picks agree with a fit of all votes, and scores are close."""
    base = RankingTable.fit(world(1500), PRIORS)
    online = base
    for vote in world(30, start=1500):
        online = online.updated([vote])
    whole = RankingTable.fit(world(1530), PRIORS)
    assert np.mean([a == b for a, b in zip(picks(online), picks(whole), strict=True)]) >= 0.99
    assert online.tallies.counts == whole.tallies.counts
    text, evidence = prompt_of(0)
    for one, other in zip(online.score(EXPERTS, evidence, text), whole.score(EXPERTS, evidence, text), strict=True):
        assert one.mean == pytest.approx(other.mean, abs=0.15)
        assert one.std == pytest.approx(other.std, rel=0.1)


def test_one_vote_taken_in_is_the_fit_of_it() -> None:
    """For a single observation, nothing is neglected but the effect of its new mode on the others."""
    base = RankingTable.fit(world(40), PRIORS)
    newcomer = replace(world(1, start=40)[0], shown=(Shown(expert="new"), Shown(expert=EXPERTS[0])), winner="new")
    online, whole = base.updated([newcomer]), RankingTable.fit([*world(40), newcomer], PRIORS)
    names, (text, evidence) = ("new", *EXPERTS), (newcomer.prompt, dict(newcomer.evidence))
    for one, other in zip(online.score(names, evidence, text), whole.score(names, evidence, text), strict=True):
        assert one.mean == pytest.approx(other.mean, abs=0.05)
        assert one.std == pytest.approx(other.std, rel=0.05)
    assert base.score(["new"], evidence, text)[0].mean == 0.0
    assert online.score(["new"], evidence, text)[0].mean > 0.1


def test_experts_that_were_not_shown_learn_from_a_vote_too() -> None:
    """Where covariances between experts are kept, those within each, which give the doubt, follow from them."""
    table = RankingTable.fit(world(40), PRIORS).updated(world(20, start=40))
    fitted = table._drawing.fitted
    for posterior in (fitted.worded, fitted.wordless):
        assert posterior.full is not None
        np.testing.assert_allclose(np.stack(posterior.blocks), np.einsum("ekel->ekl", posterior.full))
        np.testing.assert_allclose(posterior.variances, np.einsum("ekek->ek", posterior.full), atol=1e-12)


def test_few_newcomers_join_where_the_table_has_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Votes that name many unknown experts make a full table grow by twenty; the others wait for the next fit."""
    monkeypatch.setattr("diffusiongpt.ranking.model.mode.ROOM", 1)
    base = RankingTable.fit(world(40), PRIORS)
    votes = [
        replace(one, shown=(Shown(expert=f"new-{number:02}"), Shown(expert=EXPERTS[0])), winner=f"new-{number:02}")
        for number, one in enumerate(world(60, start=40))
    ]
    text, evidence = prompt_of(0)
    scores = base.updated(votes).score([f"new-{number:02}" for number in range(60)], evidence, text)
    assert sum(bool(score.mean) for score in scores) == 20


def test_many_newcomers_take_no_more_memory_than_a_fit_of_them() -> None:
    """A small table keeps covariances between experts only until strangers' votes have made it a large one."""
    base = RankingTable.fit(world(40), PRIORS)
    votes = [
        replace(one, shown=(Shown(expert=f"new-{number}"), Shown(expert=EXPERTS[0])), winner=f"new-{number}")
        for number, one in enumerate(world(150, start=40))
    ]
    tracemalloc.start()
    online = base.updated(votes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6
    text, evidence = prompt_of(0)
    assert online.score(["new-0"], evidence, text)[0].mean > 0.05
    again = online.updated(world(3, start=400))
    assert np.isfinite([score.std for score in again.score(EXPERTS, evidence, text)]).all()


def test_ratings_and_both_bad_are_taken_in_too() -> None:
    """Ratings that arrive together move their experts apart; the outside option joins at the first vote for it."""
    base = RankingTable.fit(world(80), PRIORS)
    text, evidence = prompt_of(0)
    rated = [
        Rating(id=f"r{i}", prompt=text, evidence=evidence, expert=expert, rating=value)
        for i, (expert, value) in enumerate(zip(EXPERTS[:4], (5, 1, 4, 2), strict=True))
    ]
    before, after = (
        {score.expert: score.mean for score in table.score(EXPERTS, evidence, text)}
        for table in (base, base.updated([], rated))
    )
    assert after[EXPERTS[0]] - after[EXPERTS[1]] > before[EXPERTS[0]] - before[EXPERTS[1]]
    bad = replace(world(1)[0], id="bad", prompt=text, evidence=evidence, outcome="both_bad", winner=None)
    lower = {score.expert: score.mean for score in base.updated([bad]).score(EXPERTS, evidence, text)}
    assert all(lower[expert] < before[expert] for expert in bad.experts)


@pytest.mark.parametrize("kept", [400, 20])
def test_a_table_without_covariances_between_experts_is_updated_too(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In large pools only covariances within each expert are kept, of some weights; picks still agree with a refit."""
    monkeypatch.setattr("diffusiongpt.ranking.model.mode.ROOM", kept**2 * len(EXPERTS))
    base = RankingTable.fit(world(1000), PRIORS, options=LARGE)
    online, whole = base.updated(world(20, start=1000)), RankingTable.fit(world(1020), PRIORS, options=LARGE)
    assert np.mean([a == b for a, b in zip(picks(online), picks(whole), strict=True)]) >= 0.99
    text, evidence = prompt_of(0)
    for one, other in zip(online.score(EXPERTS, evidence, text), whole.score(EXPERTS, evidence, text), strict=True):
        assert one.mean == pytest.approx(other.mean, abs=0.15)
        assert one.std == pytest.approx(other.std, rel=0.1)


def test_what_has_no_room_for_covariances_is_still_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Covariances of some of the weights leave all means as they are, and change the doubt by hardly anything."""
    whole = RankingTable.fit(world(1000), PRIORS, options=LARGE)
    monkeypatch.setattr("diffusiongpt.ranking.model.mode.ROOM", 20**2 * len(EXPERTS))
    # the same scales, which are otherwise chosen by the evidence of those covariances
    some = RankingTable.fit(world(1000), PRIORS, options=replace(LARGE, typical=whole.scales, reach=0))
    assert some._drawing.fitted.worded.blocks[0].shape == (20, 20)
    assert some._drawing.fitted.worded.mean.shape == whole._drawing.fitted.worded.mean.shape
    assert picks(some) == picks(whole)
    for number in range(0, 600, 50):
        text, evidence = prompt_of(number)
        for one, other in zip(some.score(EXPERTS, evidence, text), whole.score(EXPERTS, evidence, text), strict=True):
            assert one.std == pytest.approx(other.std, rel=0.03)


def test_a_few_more_votes_never_move_the_scales_by_a_whole_step() -> None:
    """A refit must not choose differently from the votes that were added one by one."""
    scales = [RankingTable.fit(world(1010 + 70 * more), PRIORS).scales for more in range(7)]
    for one, other in pairwise(scales):
        assert np.abs(np.log(np.divide(one, other))).max() < np.log(2) / 4


def test_the_version_says_how_many_votes_are_pending() -> None:
    """The same votes have the same hash in any order; `+2` means that two are not fitted yet."""
    online = RankingTable.fit(world(70), PRIORS).updated(world(2, start=70))
    assert online.pending == 2
    assert online.version == RankingTable.fit(world(72), PRIORS).version + "+2"


def test_a_vote_in_a_large_store_counts_at_once_and_is_fitted_later(tmp_path: Path) -> None:
    """The next table includes the vote; after enough votes a thread refits, and the table is that of a plain fit."""
    preferences = filled(tmp_path, 100)
    preferences.table(PRIORS)
    preferences.record(world(1, start=100)[0])
    assert preferences.table(PRIORS).version == RankingTable.fit(world(101), PRIORS).version + "+1"
    preferences.record(world(1, start=101)[0])
    preferences.table(PRIORS)
    preferences.wait()
    after = preferences.table(PRIORS)
    plain = RankingTable.fit(world(102), PRIORS)
    assert (after.version, after.pending) == (plain.version, 0)
    assert after.score(EXPERTS, {}) == plain.score(EXPERTS, {})


def test_a_retraction_in_a_large_store_is_fitted_beside_routing(tmp_path: Path) -> None:
    """The table is that of the remaining votes, also for a process that starts right afterwards."""
    preferences = filled(tmp_path, 101)
    preferences.table(PRIORS)
    preferences.store.retract("v000100")
    preferences.table(PRIORS)
    preferences.wait()
    left = RankingTable.fit(world(100), PRIORS)
    assert preferences.table(PRIORS).version == left.version
    preferences.store.retract("v000099")
    assert LiveTable(tmp_path / "votes.db").table(PRIORS).version == RankingTable.fit(world(99), PRIORS).version


def test_routing_goes_on_during_a_refit(tmp_path: Path) -> None:
    """While a thread fits, tables are available and votes can be added; votes that arrive meanwhile count once."""
    begun, go_on = Event(), Event()

    def slow(*args: Any) -> RankingTable:
        if len(args[0]) > 100:
            begun.set()
            assert go_on.wait(60)
        return RankingTable.fit(*args)

    preferences = filled(tmp_path, 100, fit=slow)
    preferences.table(PRIORS)
    preferences.store.merge(world(10, start=100))
    assert preferences.table(PRIORS).version.endswith("+10")
    assert begun.wait(60)
    tables: list[RankingTable] = []
    threads = [Thread(target=lambda: tables.append(preferences.table(PRIORS))) for _ in range(8)]
    preferences.record(world(1, start=110)[0])
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {table.version.rpartition("+")[2] for table in tables} == {"11"}
    go_on.set()
    preferences.wait()
    now = preferences.table(PRIORS)
    assert now.version == RankingTable.fit(world(111), PRIORS).version + "+1"
    assert now.tallies.votes == 111


def test_a_saved_table_is_the_table(tmp_path: Path) -> None:
    """Scores, rows, leaders and version are restored, and the table takes further votes as before."""
    for count in (0, 50, 300):
        table = RankingTable.fit(world(count), PRIORS)
        table.save(tmp_path / "table.npz")
        found = RankingTable.load(tmp_path / "table.npz", PRIORS)
        text, evidence = prompt_of(0)
        assert found.version == table.version
        assert found.score(EXPERTS, evidence, text) == table.score(EXPERTS, evidence, text)
        assert (found.standings("photo"), found.leaders("photo")) == (table.standings("photo"), table.leaders("photo"))
        more = world(2, start=count)
        assert found.updated(more).score(EXPERTS, evidence, text) == table.updated(more).score(EXPERTS, evidence, text)
    assert [path.name for path in tmp_path.iterdir()] == ["table.npz"]


def test_a_saved_table_of_a_large_pool_is_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Covariances within each expert are restored; files of earlier versions, which stored less, are read correctly."""
    text, evidence = prompt_of(0)
    with monkeypatch.context() as narrow:
        narrow.setattr("diffusiongpt.ranking.model.mode.ROOM", 20**2 * len(EXPERTS))
        some = RankingTable.fit(world(200), PRIORS, options=LARGE)
    some.save(tmp_path / "some.npz")
    found, more = RankingTable.load(tmp_path / "some.npz", PRIORS), world(2, start=203)
    assert found.updated(more).score(EXPERTS, evidence, text) == some.updated(more).score(EXPERTS, evidence, text)
    assert _header_of(tmp_path / "some.npz")["schema_version"] == 3
    table = RankingTable.fit(world(200), PRIORS, options=LARGE).updated(world(3, start=200))
    table.save(tmp_path / "table.npz")
    found = RankingTable.load(tmp_path / "table.npz", PRIORS)
    assert found.updated(more).score(EXPERTS, evidence, text) == table.updated(more).score(EXPERTS, evidence, text)
    assert _header_of(tmp_path / "table.npz")["schema_version"] == 1
    with np.load(tmp_path / "table.npz") as arrays:
        plain = {name: array for name, array in arrays.items() if not name.endswith("blocks")}
        views = {name.removesuffix("_blocks"): array for name, array in arrays.items() if name.endswith("blocks")}
    np.savez(tmp_path / "plain.npz", **plain)
    assert picks(RankingTable.load(tmp_path / "plain.npz", PRIORS)) == picks(table)
    low_rank = dict(plain)
    for view, blocks in views.items():
        values, vectors = np.linalg.eigh(np.eye(blocks.shape[1]) - blocks)
        factors = vectors * np.sqrt(np.maximum(values, 0))[:, None]
        low_rank[f"{view}_base"] = np.ones(blocks.shape[:2])
        low_rank[f"{view}_factors"] = np.concatenate([*factors], axis=1).astype(np.float32)
        low_rank[f"{view}_directions"] = np.full(len(blocks), blocks.shape[1])
    np.savez(tmp_path / "low_rank.npz", **low_rank)
    old = RankingTable.load(tmp_path / "low_rank.npz", PRIORS)
    for one, other in zip(old.score(EXPERTS, evidence, text), table.score(EXPERTS, evidence, text), strict=True):
        assert (one.mean, one.std) == pytest.approx((other.mean, other.std), abs=1e-3)
    np.savez(tmp_path / "cut.npz", **{**low_rank, "worded_factors": low_rank["worded_factors"][:, :-1]})
    with pytest.raises(VoteError, match="damaged"):
        RankingTable.load(tmp_path / "cut.npz", PRIORS)


def _header_of(path: Path) -> Any:
    with np.load(path) as arrays:
        return json.loads(bytes(arrays["header"]))


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    """A missing, foreign, truncated, changed or newer file is an error that names the reason, never a wrong table."""
    path = tmp_path / "table.npz"
    RankingTable.fit(world(20), PRIORS).save(path)
    whole = path.read_bytes()
    with pytest.raises(VoteError, match="could not read"):
        RankingTable.load(tmp_path / "none.npz", PRIORS)
    for data in (b"", b"hello", whole[: len(whole) // 2], whole[:3000] + bytes(1000) + whole[4000:]):
        path.write_bytes(data)
        with pytest.raises(VoteError, match="damaged, or is not a ranking table"):
            RankingTable.load(path, PRIORS)
    np.savez(path, header=np.frombuffer(b"[1]", np.uint8))
    with pytest.raises(VoteError, match="not a ranking table"):
        RankingTable.load(path, PRIORS)
    newer = json.dumps({"format": "diffusiongpt ranking", "schema_version": 4}).encode()
    np.savez(path, header=np.frombuffer(newer, np.uint8))
    with pytest.raises(VoteError, match="schema version 4, but this program only knows 3"):
        RankingTable.load(path, PRIORS)


def test_a_process_that_starts_reads_the_table_that_another_fitted(tmp_path: Path) -> None:
    """It does not fit anything itself, and includes the votes that arrived since."""
    code = (
        "from diffusiongpt.ranking.live import LiveTable\n"
        "from diffusiongpt.ranking.priors import TagPriors\n"
        "print(LiveTable(sys.argv[1]).table(TagPriors({})).version)"
    )
    store = VoteStore(tmp_path / "votes.db")
    store.merge(world(100))
    out, err = finish(child(code, tmp_path / "votes.db"))
    assert not err
    store.merge(world(1, start=100))

    def refuse(*_: Any) -> RankingTable:
        raise AssertionError("the table is fitted again")

    assert LiveTable(store, fit=refuse).table(PRIORS).version != out.strip()
    assert LiveTable(store, fit=refuse).table(PRIORS).version.endswith("+1")


def test_a_damaged_snapshot_is_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The file is a cache: a damaged one is logged and the table is right. A file for other priors is not used."""
    preferences = filled(tmp_path, 100)
    version = preferences.table(PRIORS).version
    snapshot = preferences.store.snapshot
    assert snapshot is not None
    snapshot.write_bytes(b"hello")
    with caplog.at_level(logging.INFO):
        assert LiveTable(tmp_path / "votes.db").table(PRIORS).version == version
    assert "refitted" in caplog.text
    with ZipFile(snapshot) as archive:
        assert archive.testzip() is None
    others = TagPriors({"expert-0": Tags(styles=("photo",))})
    assert LiveTable(tmp_path / "votes.db").table(others).version == RankingTable.fit(world(100), others).version


def test_erasing_a_voter_removes_the_snapshot(tmp_path: Path) -> None:
    """The file contains prompts, so it is removed; a file that is written during the erasure is removed too."""
    preferences = filled(tmp_path, 100)
    store, snapshot = preferences.store, preferences.store.snapshot
    assert snapshot is not None
    store.merge(world(20, start=100, voter="ada", prompt="a secret wedding dress"))
    preferences.table(PRIORS)
    preferences.wait()
    part = snapshot.with_name(f"{snapshot.name}.0.tmp")
    part.write_bytes(snapshot.read_bytes())
    assert b"secret wedding" in part.read_bytes()
    store.erase("ada")
    assert [path.name for path in tmp_path.iterdir() if "ranking" in path.name] == []
    store.merge(world(20, start=200, voter="ada", prompt="a secret wedding dress"))

    def erased_meanwhile(*args: Any) -> RankingTable:
        table = RankingTable.fit(*args)
        if store.erase("ada").votes:
            assert b"secret wedding" in table.as_bytes()
        return table

    live = LiveTable(store, fit=erased_meanwhile)
    live.table(PRIORS)
    live.wait()
    assert not snapshot.exists() or b"secret wedding" not in snapshot.read_bytes()
    preferences.table(PRIORS)
    preferences.wait()
    assert preferences.table(PRIORS).tallies == RankingTable.fit(world(100), PRIORS).tallies


def test_a_table_of_others_is_where_one_starts(tmp_path: Path) -> None:
    """Without votes it is used as it is, a few votes update it, and when there are as many votes, they replace it."""
    RankingTable.fit(world(90), PRIORS).save(tmp_path / "theirs.npz")
    theirs = RankingTable.load(tmp_path / "theirs.npz", PRIORS)
    preferences = LiveTable(tmp_path / "votes.db")
    assert preferences.table(PRIORS).version == "r0"
    assert preferences.start_from(tmp_path / "theirs.npz", PRIORS).version == theirs.version
    mine = world(95, start=90)
    preferences.record(mine[0])
    assert preferences.table(PRIORS).score(EXPERTS, {}) == theirs.updated(mine[:1]).score(EXPERTS, {})
    preferences.wait()
    preferences.store.merge(mine)
    preferences.table(PRIORS)
    preferences.wait()
    assert preferences.table(PRIORS).tallies.votes == 95
    preferences.wait()
    (tmp_path / "other.npz").write_bytes(b"hello")
    with pytest.raises(VoteError, match="not a ranking table"):
        preferences.start_from(tmp_path / "other.npz", PRIORS)


def test_a_table_that_may_have_learnt_from_these_very_votes_is_not_taken(tmp_path: Path) -> None:
    """Otherwise a retracted vote, or an erased voter, would still count through it."""
    preferences = LiveTable(tmp_path / "votes.db")
    preferences.store.merge(world(5))
    preferences.table(PRIORS).save(tmp_path / "mine.npz")
    with pytest.raises(VoteError, match="votes or ratings of its own"):
        preferences.start_from(tmp_path / "mine.npz", PRIORS)
    preferences.store.undo(world(5)[0].voter)
    assert preferences.table(PRIORS).tallies.votes == 4


def test_a_damaged_import_is_told_and_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Routing continues without it, and the same file imported again replaces it."""
    RankingTable.fit(world(9), PRIORS).save(tmp_path / "theirs.npz")
    LiveTable(tmp_path / "votes.db").start_from(tmp_path / "theirs.npz", PRIORS)
    (tmp_path / "votes.db.imported.npz").write_bytes(b"hello")
    preferences = LiveTable(tmp_path / "votes.db")
    assert preferences.table(PRIORS).version == "r0"
    assert "imported ranking is not used" in caplog.text
    assert preferences.start_from(tmp_path / "theirs.npz", PRIORS).tallies.votes == 9


def test_the_next_route_knows_a_rating(tmp_path: Path) -> None:
    """This also holds with more votes than are refitted each time: two tables without votes in between are the same."""
    preferences = LiveTable(tmp_path / "votes.db")
    preferences.store.merge(world(90))
    before = preferences.table(PRIORS).score(EXPERTS, {}, "a red circle")
    for expert, stars in zip(EXPERTS, (9.0, 1.0), strict=False):
        preferences.record(Rating(prompt="a red circle", expert=expert, rating=stars))
    first = preferences.table(PRIORS)
    preferences.wait()
    assert first.score(EXPERTS, {}, "a red circle") == preferences.table(PRIORS).score(EXPERTS, {}, "a red circle")
    assert first.score(EXPERTS, {}, "a red circle")[0].mean > before[0].mean


def rated_world(count: int, *, start: int = 0, **fields: object) -> list[Rating]:
    """Ratings of four experts for each of some prompts of the world, out of five stars."""
    ratings = []
    for number in range(start, start + count):
        rng = np.random.default_rng([number // 4, 1])
        text, evidence = prompt_of(int(rng.integers(640)))
        expert = int(rng.permutation(len(EXPERTS))[number % 4])
        noise = np.random.default_rng([number, 2]).normal(scale=0.5)
        stars = 3 + 0.5 * SKILL[STYLES.index(text.split()[0])][expert] + noise
        told = {"prompt": text, "evidence": evidence, "expert": EXPERTS[expert], "rating": stars, "time": "2026-01-01"}
        ratings.append(Rating(id=f"r{number:06}", **{**told, **fields}))
    return ratings


def test_ratings_taken_in_one_by_one_are_those_taken_in_together() -> None:
    """Each counts relative to earlier ratings of its prompt: their order is irrelevant, and none counts twice."""
    base = RankingTable.fit(world(100), PRIORS, rated_world(80))
    new = rated_world(8, start=80)
    together = base.updated([], new)
    for order in (new, new[::-1]):
        online, there = base, list[Rating]()
        for rating in order:
            earlier = [one for one in there if one.prompt == rating.prompt]
            online = online.updated([], [rating], earlier)
            there.append(rating)
        for one, other in zip(
            online.score(EXPERTS, *prompt_of(0)[::-1]), together.score(EXPERTS, *prompt_of(0)[::-1]), strict=True
        ):
            assert (one.mean, one.std) == pytest.approx((other.mean, other.std), abs=1e-3)


def test_ratings_taken_in_one_by_one_agree_with_a_refit() -> None:
    """After 2 % more ratings at least 99 of 100 picks agree with a fit of all ratings."""
    old, new = rated_world(1000), rated_world(20, start=1000)
    base = RankingTable.fit(world(200), PRIORS, old)
    online = base
    for place, rating in enumerate(new):
        online = online.updated([], [rating], [one for one in new[:place] if one.prompt == rating.prompt])
    whole = RankingTable.fit(world(200), PRIORS, [*old, *new])
    assert np.mean([a == b for a, b in zip(picks(online), picks(whole), strict=True)]) >= 0.99
    text, evidence = prompt_of(0)
    for one, other in zip(online.score(EXPERTS, evidence, text), whole.score(EXPERTS, evidence, text), strict=True):
        assert one.mean == pytest.approx(other.mean, abs=0.15)


def test_the_next_route_knows_a_rating_in_a_store_of_thousands(tmp_path: Path) -> None:
    """It counts without a fit, relative to earlier ratings of its prompt, also for a new source."""
    go_on = Event()

    def after_the_test(*args: Any) -> RankingTable:
        assert len(args[0]) + len(args[2]) == 1200 or go_on.wait(60)
        return RankingTable.fit(*args)

    preferences = LiveTable(tmp_path / "votes.db", fit=after_the_test)
    preferences.store.merge([*world(600), *rated_world(600)])
    preferences.table(PRIORS)
    for one, other, source in ((0, 1, "human"), (2, 3, "a new one")):
        told = {"prompt": "a red circle", "source": source, "evidence": {"root": 1.0}}
        before = preferences.table(PRIORS).score(EXPERTS, {}, "a red circle")
        preferences.record(Rating(expert=EXPERTS[one], rating=5.0, **told))
        assert preferences.table(PRIORS).score(EXPERTS, {}, "a red circle") == before
        preferences.record(Rating(expert=EXPERTS[other], rating=1.0, **told))
        table = preferences.table(PRIORS)
        after = table.score(EXPERTS, {}, "a red circle")
        assert after[one].mean > before[one].mean
        assert after[other].mean < before[other].mean
        assert max(abs(score.mean) for score in after) < 5
    assert table.version.endswith("+4")
    go_on.set()
    preferences.wait()


def test_how_voters_rate_stays_in_the_store(tmp_path: Path) -> None:
    """The snapshot stores the scale of each source; an exported table does not name voters."""
    preferences = LiveTable(tmp_path / "votes.db")
    preferences.store.merge(rated_world(80, voter="ada lovelace"))
    table = preferences.table(PRIORS)
    assert preferences.store.snapshot is not None
    assert RankingTable.load(preferences.store.snapshot, PRIORS).noise == table.noise != {}
    table.save(tmp_path / "theirs.npz")
    assert b"lovelace" not in (tmp_path / "theirs.npz").read_bytes()


def test_ratings_that_agree_exactly_are_not_taken_for_certain() -> None:
    """Two experts are rated two stars apart on two prompts: the better one leads, by no more than votes could do."""
    ratings = [
        Rating(id=f"{prompt}{expert}", prompt=prompt, expert=expert, rating=stars, time="2026-01-01")
        for prompt, expert, stars in (("p1", "a", 5.0), ("p1", "b", 3.0), ("p2", "a", 4.0), ("p2", "b", 2.0))
    ]
    better, worse = RankingTable.fit([], PRIORS, ratings).score(["a", "b"], {})
    assert 0.5 < better.mean - worse.mean < 5


def test_a_rating_that_compares_nothing_changes_nobody(tmp_path: Path) -> None:
    """A single rating of a prompt changes neither the scores of the other experts nor their uncertainty."""
    preferences = LiveTable(tmp_path / "votes.db")
    preferences.store.merge(world(20))
    before = preferences.table(PRIORS).score(EXPERTS, {})
    preferences.record(Rating(prompt="a lonely rock", expert=EXPERTS[0], rating=5.0))
    after = preferences.table(PRIORS).score(EXPERTS, {})
    assert [score.mean for score in after] == pytest.approx([score.mean for score in before], abs=0.02)
    assert [score.std for score in after] == pytest.approx([score.std for score in before], rel=0.03)


def test_the_store_tells_what_is_new(store: VoteStore) -> None:
    """New votes and ratings since a version; whether one was retracted, and whether all earlier ones still exist."""
    assert store.since("0") == store.since(store.version)
    first, second, third = world(3)
    store.add(first)
    version = store.version
    assert store.since("0").votes == (first,)
    rating = store.add(Rating(prompt="a fox", expert="a", rating=3.0, voter="ada"))
    store.merge([second, third])
    changes = store.since(version)
    assert ([v.id for v in changes.votes], changes.ratings) == ([second.id, third.id], (rating,))
    assert (changes.intact, changes.retracted, changes.version) == (True, False, store.version)
    store.retract(third.id)
    assert [v.id for v in store.since(version).votes] == [second.id]
    assert store.since(version).retracted
    version = store.version
    store.erase("ada")
    assert not store.since(version).intact
    assert store.since(version).votes == ()
