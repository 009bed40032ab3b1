"""JSON Lines, which carries everything, and the score file of the DiffusionGPT paper's program."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fixtures_votes import rating, vote

from diffusiongpt.errors import VoteError
from diffusiongpt.votes import VoteStore
from diffusiongpt.votes.exchange import Imported, export_text, import_file, write_new


@pytest.fixture
def kept(tmp_path: Path) -> VoteStore:
    """A store with a ballot of three and a rating."""
    store = VoteStore(tmp_path / "votes.db")
    store.add(vote("b", "a", "b", "c", id="kept", evidence={"animal": 1 / 3}, ballot="x", prompt="狐狸\u2028\n"))
    store.add(rating(0.1, id="rated", seed=2**64 - 1, evidence={"root": 1.0}))
    return store


def test_jsonl_carries_everything(kept: VoteStore, tmp_path: Path) -> None:
    """An export imported elsewhere is the same store, and importing it again adds nothing."""
    file = tmp_path / "votes.jsonl"
    write_new(file, export_text(kept, "jsonl").encode())
    other = VoteStore(tmp_path / "other.db")
    assert import_file(other, file) == Imported(votes=1, ratings=1, known=0, skipped=0, unknown=())
    assert (other.all(), other.ratings()) == (kept.all(), kept.ratings())
    assert import_file(other, file) == Imported(votes=0, ratings=0, known=2, skipped=0, unknown=())


def test_jsonl_may_leave_out_what_has_a_default(kept: VoteStore, tmp_path: Path) -> None:
    """Two minimal lines without ids are recognised by their content; what they lack is read from the prompt."""
    file = tmp_path / "few.jsonl"
    file.write_text(
        '{"prompt": "a", "shown": [{"expert": "x"}, {"expert": "y"}], "outcome": "tie"}\n\n'
        '{"prompt": "b", "expert": "x", "rating": 3}\n{"prompt": "c", "expert": "x", "rating": 3, "evidence": {}}\n'
    )
    assert import_file(kept, file, evidence_of=lambda _: {"scene": 0.5}).known == 0
    assert import_file(kept, file).known == 3
    assert [kept.all()[-1].evidence, *(r.evidence for r in kept.ratings()[1:])] == [{"scene": 0.5}, {"scene": 0.5}, {}]


GOOD = {"kind": "vote", "prompt": "a", "shown": [{"expert": "x"}, {"expert": "y"}], "outcome": "tie"}


@pytest.mark.parametrize(
    ("line", "says", "hint"),
    [
        ("{", "line 2: is not JSON", "one JSON object"),
        ("[" * 100_000, "line 2: is not JSON", "one JSON object"),
        ("[1]", "line 2: is not a JSON object", "one JSON object"),
        ({**GOOD, "kind": "cat"}, "line 2: kind 'cat' is not known", "vote or rating"),
        ({**GOOD, "kind": ["vote"]}, "line 2: kind", "vote or rating"),
        ({**GOOD, "vooter": "me"}, "line 2: unknown key 'vooter'", "Did you mean 'voter'?"),
        ({**GOOD, "shown": [{"expert": "x", "sed": 1}]}, "line 2: unknown key 'shown.0.sed'", "Did you mean 'seed'?"),
        ({**GOOD, "shown": [{"expert": "x"}]}, "line 2: a vote needs two pictures", "two experts"),
        ({**GOOD, "shown": [{"expert": "x"}] * 2}, "line 2: an expert cannot be compared with itself", "once"),
        ({**GOOD, "weight": float("nan")}, "line 2: weight nan is not positive", "1.0"),
        ({**GOOD, "weight": "heavy"}, "line 2, key weight: ", "Correct"),
        ({**GOOD, "evidence": {"root": "x"}}, "line 2, key evidence.root: ", "Correct"),
        ({**GOOD, "evidence": {"root": 2}}, "line 2: evidence of 'root' is 2.0", "0 to 1"),
        ({**GOOD, "outcome": "lost"}, "line 2, key outcome: ", "Correct"),
        ({**GOOD, "time": "noon"}, "line 2: time 'noon'", "Write it like"),
        ({"prompt": "a", "expert": "x"}, "line 2", ""),
        ({"kind": "rating", "prompt": "a", "expert": "x", "rating": None}, "line 2, key rating: ", "Correct"),
        ({"kind": "rating", "prompt": "a", "expert": "x", "rating": 10**400}, "line 2", ""),
        ({**GOOD, "id": "first"}, "line 2: repeats line 1", "an id of its own"),
        ({**GOOD, "id": "kept"}, "line 2: vote 'kept' is recorded already", "another id"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_told_and_changes_nothing(
    kept: VoteStore, tmp_path: Path, line: str | dict[str, Any], says: str, hint: str
) -> None:
    """The error names file, row, key and remedy; the line before is not added either."""
    file = tmp_path / "votes.jsonl"
    text = line if isinstance(line, str) else json.dumps(line)
    file.write_text(json.dumps({**GOOD, "id": "first"}) + f"\n{text}\n")
    version = kept.version
    with pytest.raises(VoteError) as caught:
        import_file(kept, file)
    assert str(caught.value).startswith(str(file))
    assert says in str(caught.value)
    assert hint in caught.value.hint
    assert caught.value.hint
    assert kept.version == version


SCORES = {
    "a fox in the snow, watercolor": {
        "dreamshaper_8": {"image_reward": 1.25, "aesthetic": 6.1},
        "anything-v5": {"image_reward": -0.5},
    },
    "a lighthouse": {"dreamshaper_8": {"image_reward": 0.75}},
}


def test_the_score_file_of_the_paper_s_program_becomes_ratings(kept: VoteStore, tmp_path: Path) -> None:
    """Each metric of each model is a rating whose source is the metric, since a reward model gave it, not a person."""
    file = tmp_path / "prompt2scores.json"
    file.write_text(json.dumps(SCORES))
    assert import_file(kept, file, evidence_of=lambda _: {"scene": 0.5}).ratings == 4
    said = [(r.prompt[:7], r.expert, r.rating, r.source, r.voter, r.evidence) for r in kept.ratings()[1:]]
    assert said == [
        ("a fox i", "dreamshaper_8", 1.25, "image_reward", "image_reward", {"scene": 0.5}),
        ("a fox i", "dreamshaper_8", 6.1, "aesthetic", "aesthetic", {"scene": 0.5}),
        ("a fox i", "anything-v5", -0.5, "image_reward", "image_reward", {"scene": 0.5}),
        ("a light", "dreamshaper_8", 0.75, "image_reward", "image_reward", {"scene": 0.5}),
    ]
    assert import_file(kept, file).known == 4


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("[1, 2]", "is not a JSON object, but list"),
        ('{"a fox": {"m": 0.5}}', "prompt 'a fox', model 'm': is not a JSON object, but float"),
        ('{"a fox": [["m", 0.5]]}', "prompt 'a fox': is not a JSON object, but list"),
        ('{"a fox": {"m": {"image_reward": NaN}}}', "prompt 'a fox', model 'm', image_reward: rating nan is not"),
        ('{"a fox": {"m": {"image_reward": "good"}}}', "prompt 'a fox', model 'm', image_reward: rating 'good' is not"),
        ('{"a fox": {"m": {"r": 1}, "m": {"r": 2}}}', "'m' appears twice"),
        ('{"a fox": {"": {"r": 1}}}', "expert of a vote must be text"),
    ],
)
def test_a_wrong_score_file_is_told_and_changes_nothing(kept: VoteStore, tmp_path: Path, text: str, says: str) -> None:
    """The error names the prompt and the model, since such a file has no rows."""
    file = tmp_path / "prompt2scores.json"
    file.write_text(text)
    version = kept.version
    with pytest.raises(VoteError) as caught:
        import_file(kept, file)
    assert str(caught.value).startswith(str(file))
    assert says in str(caught.value)
    assert caught.value.hint
    assert kept.version == version


def test_a_score_file_cannot_be_exported(kept: VoteStore) -> None:
    """It has no place for voters, times and ballots."""
    with pytest.raises(VoteError, match="only be imported"):
        export_text(kept, "prompt2scores")


def test_an_export_overwrites_nothing(tmp_path: Path) -> None:
    """A user who types export instead of import keeps the file."""
    file = tmp_path / "votes.csv"
    write_new(file, b"first")
    with pytest.raises(VoteError, match="exists already"):
        write_new(file, b"second")
    with pytest.raises(VoteError, match="cannot write"):
        write_new(tmp_path / "no" / "folder.csv", b"")
    assert file.read_bytes() == b"first"


def test_an_export_that_does_not_fit_leaves_no_half_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk during writing is reported, and no file is left."""
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    opener = Path.open
    monkeypatch.setattr(Path, "open", lambda path, _mode: path.touch() or opener(full, "wb"))
    with pytest.raises(VoteError, match="No space left") as caught:
        write_new(tmp_path / "votes.csv", b"x" * 100_000)
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []
