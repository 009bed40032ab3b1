"""Votes and ratings as CSV: what is read, and how every mistake is reported."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fixtures_votes import rating, vote

from diffusiongpt.errors import VoteError
from diffusiongpt.votes import Shown, Vote, VoteStore
from diffusiongpt.votes.exchange import Imported, export_text, import_file

if TYPE_CHECKING:
    from collections.abc import Mapping

HEADER = "prompt_id,prompt,category,winner,loser"


@pytest.fixture
def kept(tmp_path: Path) -> VoteStore:
    """A store with one vote and one rating."""
    store = VoteStore(tmp_path / "votes.db")
    store.add(vote(id="kept"))
    store.add(rating(id="rated"))
    return store


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where to write a file of votes."""
    return tmp_path / "cast.csv"


def imported(store: VoteStore, file: Path, text: str) -> list[Vote]:
    """The votes that a text adds."""
    before = {cast.id for cast in store.all()}
    file.write_text(text, encoding="utf-8", newline="")
    import_file(store, file)
    return [cast for cast in store.all() if cast.id not in before]


def test_the_five_columns_of_the_contract_are_enough(kept: VoteStore, file: Path) -> None:
    """`prompt_id` and `category` are not stored; the voter is `unknown`, and the other values are the defaults."""
    [first, second] = imported(kept, file, f"{HEADER}\n1,a fox,animals,oil,pixel\n1,a fox,animals,ink,oil\n")
    assert (first.prompt, first.experts, first.winner, first.outcome) == ("a fox", ("oil", "pixel"), "oil", "win")
    assert (first.voter, first.source, first.weight, first.ballot) == ("unknown", "human", 1.0, None)
    assert [shown.propensity for shown in first.shown] == [1.0, 1.0]
    assert second.winner == "ink"


def test_every_optional_column_is_read(kept: VoteStore, file: Path) -> None:
    """The columns may come in any order."""
    [cast] = imported(
        kept,
        file,
        "id,time,seconds,propensity,weight,source,voter,ballot,outcome,loser,winner,prompt\n"
        '7,2026-01-31T12:00:00+02:00,4.5,0.25,0.5,judge,李,b1,tie,"a,b",oil,"a ""fox""\nin snow"\n',
    )
    assert cast == Vote(
        id="7", time="2026-01-31T10:00:00+00:00", weight=0.5, source="judge", voter="李", ballot="b1", outcome="tie",
        seconds=4.5,
        shown=(Shown(expert="oil", propensity=0.25), Shown(expert="a,b", propensity=0.25)), prompt='a "fox"\nin snow',
    )  # fmt: skip


def test_what_spreadsheets_write_is_read(kept: VoteStore, file: Path) -> None:
    """A byte order mark, Windows line ends and empty lines are accepted."""
    [cast] = imported(kept, file, f"\ufeff{HEADER}\r\n\r\n1,a fox,,oil,pixel\r\n\r\n")
    assert cast.winner == "oil"


@pytest.mark.parametrize(
    "text",
    [
        "prompt;winner;loser;weight\r\na fox, in snow;oil;pixel;0,5\r\n",
        "prompt\twinner\tloser\tweight\na fox, in snow\toil\tpixel\t0.5\n",
        'sep=;\nprompt;winner;loser;weight\n"a fox, in snow";oil;pixel;"0,5"\n',
        '\ufeffprompt,winner,loser,weight,,\n,,,,,\n"a fox, in snow",oil,pixel,0.5,,\n , ,,\n',
        '"prompt";"winner";"loser";"weight";;\n;;;\n"a fox, in snow";"oil";"pixel";"0,5";;\n',
    ],
    ids=["semicolons", "tabs", "sep", "blank rows and columns", "quoted semicolons"],
)
def test_a_table_may_be_written_as_a_spreadsheet_does(kept: VoteStore, file: Path, text: str) -> None:
    """Other separators, decimal commas beside semicolons, blank rows, and columns without a name at the right."""
    [cast] = imported(kept, file, text)
    assert (cast.prompt, cast.experts, cast.winner, cast.weight) == ("a fox, in snow", ("oil", "pixel"), "oil", 0.5)


def test_rows_of_one_id_are_one_ballot(kept: VoteStore, file: Path) -> None:
    """A ballot of three has two rows if one expert won, and three if none did."""
    won, tied = imported(
        kept,
        file,
        f"{HEADER},outcome,id\n1,a fox,,oil,pixel,win,x\n1,a fox,,oil,ink,win,x\n"
        "1,a fox,,oil,pixel,tie,y\n1,a fox,,ink,oil,tie,y\n1,a fox,,pixel,ink,tie,y\n",
    )
    assert (won.experts, won.winner) == (("oil", "pixel", "ink"), "oil")
    assert (sorted(tied.experts), tied.outcome) == (["ink", "oil", "pixel"], "tie")


def test_importing_twice_adds_nothing(kept: VoteStore, file: Path) -> None:
    """Neither an export nor a file without ids adds anything again: votes are recognised by their content."""
    file.write_text(f"{HEADER}\n1,a fox,,oil,pixel\n1,a dog,,oil,pixel\n", encoding="utf-8")
    assert import_file(kept, file) == Imported(votes=2, ratings=0, known=0, skipped=0, unknown=())
    version = kept.version
    assert import_file(kept, file) == Imported(votes=0, ratings=0, known=2, skipped=0, unknown=())
    file.write_text(export_text(kept, "csv"), encoding="utf-8", newline="")
    assert import_file(kept, file).known == 3
    assert kept.version == version


def test_a_retracted_vote_stays_retracted(kept: VoteStore, file: Path) -> None:
    """A copy that was made before does not restore a retracted vote."""
    file.write_text(export_text(kept, "csv"), encoding="utf-8", newline="")
    kept.retract("kept")
    assert import_file(kept, file).known == 1
    assert kept.all() == []


def test_ratings_have_columns_of_their_own(kept: VoteStore, file: Path) -> None:
    """The header decides which of the two a file contains; without a source, the file is one, with its own scale."""
    file.write_text("prompt_id,prompt,category,expert,rating\n1,a fox,,oil,-3.5\n1,a fox,,ink,65\n", encoding="utf-8")
    assert import_file(kept, file).ratings == 2
    _, first, second = kept.ratings()
    assert (first.expert, first.rating, first.source, first.voter) == ("oil", -3.5, "cast", "unknown")
    assert second.rating == 65
    assert import_file(kept, file).known == 2


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ("prompt_id,prompt,category,winner\n1,a,,b\n", "line 1: column 'loser' is missing", "separated by commas"),
        ("prompt|winner|loser\na|b|c\n", "line 1: column 'prompt', 'winner', 'loser' is missing", "by commas"),
        ("prompt,winner,loser,wieght\na,b,c,1\n", "line 1: column 'wieght' is not known", "Did you mean 'weight'?"),
        ("prompt,winner,loser,colour_of_it\na,b,c,1\n", "column 'colour_of_it' is not known", "The columns are"),
        ("prompt,winner,loser,winner\na,b,c,d\n", "line 1: column 'winner' appears twice", "Keep one"),
        ("prompt,winner,loser\na,b,c\na,b\n", "line 3: 2 cells, but the header has 3", "double quotes"),
        ("prompt,winner,loser\na, fox,b,c\n", "line 2: 4 cells, but the header has 3", "double quotes"),
        ("prompt,winner,loser\na,b,\n", "line 2: loser is empty", "Fill"),
        ("prompt,winner,loser\na,,c\n", "line 2: winner is empty", "Fill"),
        ("prompt,winner,loser\na,b,b\n", "line 2: 'b' is compared with itself", "two experts"),
        ("prompt,winner,loser,weight\na,b,c,nan\n", "line 2: weight 'nan' is not a finite number above 0", "Correct"),
        ("prompt,winner,loser,weight\na,b,c,-1\n", "line 2: weight '-1' is not a finite number above 0", "Correct"),
        ("prompt,winner,loser,weight\na,b,c,1e999\n", "weight '1e999' is not", "Correct"),
        ("prompt,winner,loser,weight\na,b,c,much\n", "weight 'much' is not", "Correct"),
        ("prompt,winner,loser,seconds\na,b,c,inf\n", "seconds 'inf' is not a finite number", "Correct"),
        ("prompt,winner,loser,seconds\na,b,c,-2\n", "line 2: seconds -2.0 of a vote are not from 0 to", "how long"),
        ("prompt,winner,loser,propensity\na,b,c,1.5\n", "propensity '1.5' is not a finite number above 0", "Correct"),
        ("prompt,winner,loser,propensity\na,b,c,0\n", "propensity '0' is not", "Correct"),
        ("prompt,winner,loser,outcome\na,b,c,lost\n", "line 2: outcome 'lost' is not known", "win, tie"),
        ("prompt,winner,loser,time\na,b,c,noon\n", "line 2: time 'noon' is not ISO 8601", "Write it like"),
        ("prompt,winner,loser,voter\na,b,c,  \n", "line 2: voter of a vote must be text", "Pass"),
        ("prompt,winner,loser\na,b,c\n\na,b,d\na,b,c\n", "line 5: repeats line 2", "an id of their own"),
        ("prompt,winner,loser,id\na,b,c,1\na,b,c,1\n", "line 3: repeats line 2", "an id of their own"),
        ("prompt,winner,loser,id\na,b,c,1\nb,b,d,1\n", "line 3: prompt differs from line 2", "Rows with one id"),
        ("prompt,winner,loser,id\na,b,c,1\na,c,d,1\n", "line 3: winner differs from line 2", "Rows with one id"),
        ("prompt,winner,loser,outcome,id\na,b,c,tie,1\na,b,d,tie,1\n", "a tie of 3 experts has 3 rows", "each pair"),
        ("prompt,winner,loser,id\na fox,b,a,kept\n", "line 2: vote 'kept' is recorded already", "another id"),
        ('prompt,winner,loser\na,b,c\n"a,b,c\n', "line 3: unexpected end of data", "quotes"),
        ('prompt,winner,loser\n"a" fox,b,c\n', "line 2: ',' expected after '\"'", "quotes"),
        (f"prompt,winner,loser\n{'x' * 200_000},b,c\n", "line 2: field larger than field limit", "quotes"),
        ("prompt,winner,loser\na,b,c\na,b\0,c\n", "line 3: is not UTF-8 text", "Save"),
        ("prompt,expert,rating\na,b,nan\n", "line 2: rating 'nan' is not a finite number", "Correct"),
        ("prompt,expert,rating\na,b,\n", "line 2: rating is empty", "Fill"),
        ("prompt,expert,rating\na,b,1\na,b,1\n", "line 3: repeats line 2", "an id of their own"),
        ("prompt,expert,rating,id\na fox,a,5,rated\n", "line 2: rating 'rated' is recorded already", "another id"),
        ("prompt,expert,rating,time\na,b,1,x\n", "line 2: time 'x'", "Write it like"),
        ("prompt,rating\na,1\n", "line 1: column 'expert' is missing", "separated by commas"),
        ("", "is empty", "Pass a file"),
        (" \n\n", "is empty", "Pass a file"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_row_and_changes_nothing(
    kept: VoteStore, file: Path, text: str, says: str, hint: str
) -> None:
    """The error names file, row, column and remedy; the rows before the mistake are not added either."""
    file.write_text(text, encoding="utf-8", newline="")
    before, version = (kept.all(), kept.ratings()), kept.version
    with pytest.raises(VoteError) as caught:
        import_file(kept, file)
    assert str(caught.value).startswith(str(file))
    assert says in str(caught.value)
    assert hint in caught.value.hint
    assert caught.value.hint
    assert ((kept.all(), kept.ratings()), kept.version) == (before, version)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("prompt,winner,loser\na,b,c\nä,b,c\n".encode("latin-1"), "line 3: is not UTF-8"),
        ("prompt,winner,loser\na,b,c\n".encode("utf-16"), "line 1: is not UTF-8"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "not UTF-8"),
        (bytes(1000), "not UTF-8"),
    ],
    ids=["latin-1", "utf-16", "png", "zeros"],
)
def test_what_is_no_text_is_told(kept: VoteStore, file: Path, data: bytes, says: str) -> None:
    """Another encoding, a picture and a run of zero bytes are errors."""
    file.write_bytes(data)
    with pytest.raises(VoteError, match=says) as caught:
        import_file(kept, file)
    assert "UTF-8" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "says"), [("there/is/none.csv", "cannot read"), ("votes.xlsx", "is not clear from its name")]
)
def test_a_wrong_path_is_told(kept: VoteStore, tmp_path: Path, name: str, says: str) -> None:
    """A missing file and an unknown format are errors."""
    with pytest.raises(VoteError, match=says) as caught:
        import_file(kept, tmp_path / name)
    assert caught.value.hint


def test_experts_that_the_zoo_does_not_have_are_refused_by_name(kept: VoteStore, file: Path) -> None:
    """Each is reported with its place and the nearest known id; nothing is added."""
    file.write_text("prompt,winner,loser\na,oil,pixel\na,oli,watercolor-xl\nb,oli,pixel\n", encoding="utf-8")
    with pytest.raises(VoteError) as caught:
        import_file(kept, file, experts=["oil", "pixel"])
    assert "'oli' (line 3, did you mean 'oil'?), 'watercolor-xl' (line 3)" in str(caught.value)
    assert "--unknown" in caught.value.hint
    assert kept.count() == 1


@pytest.mark.parametrize(("unknown", "added"), [("keep", 3), ("skip", 1)])
def test_votes_for_unknown_experts_can_be_kept_or_skipped(
    kept: VoteStore, file: Path, unknown: str, added: int
) -> None:
    """Both report the experts that were unknown."""
    file.write_text("prompt,winner,loser\na,oil,pixel\na,oli,ink\nb,oli,pixel\n", encoding="utf-8")
    done = import_file(kept, file, experts=["oil", "pixel"], unknown=unknown)  # type: ignore[arg-type]  # of a list
    assert (done.votes, done.skipped, done.unknown) == (added, 3 - added, ("oli", "ink"))
    assert kept.count() == 1 + added


def test_each_prompt_is_read_once_for_what_it_is_about(kept: VoteStore, file: Path) -> None:
    """CSV has no evidence, so the caller's reader is called once for each prompt."""
    file.write_text("prompt,winner,loser\na,oil,pixel\nb,oil,pixel\na,ink,oil\n", encoding="utf-8")
    asked: list[str] = []

    def evidence_of(prompt: str) -> Mapping[str, float]:
        asked.append(prompt)
        return {"animal": 0.5 if prompt == "a" else 0.25}

    import_file(kept, file, evidence_of=evidence_of)
    assert asked == ["a", "b"]
    assert [cast.evidence for cast in kept.all()[1:]] == [{"animal": 0.5}, {"animal": 0.25}, {"animal": 0.5}]


def test_a_ballot_of_several_is_a_row_for_each_pair(kept: VoteStore) -> None:
    """They have one id and one ballot, so that other programs see that they belong together."""
    for taken in kept.all():
        kept.retract(taken.id)
    kept.add(vote("b", "a", "b", "c", id="k", seconds=2))
    rows = [line.split(",") for line in export_text(kept, "csv").splitlines()]
    assert [dict(zip(rows[0], row, strict=True)) for row in rows[1:]] == [
        {
            "prompt_id": rows[1][0], "prompt": "a fox", "category": "", "winner": "b", "loser": loser, "outcome": "win",
            "ballot": "k", "voter": "me", "source": "human", "weight": "1.0", "propensity": "0.5",
            "seconds": "2.0", "time": kept.all()[0].time, "id": "k",
        }
        for loser in ("a", "c")
    ]  # fmt: skip


def test_seconds_do_not_change_the_ids_of_files_without_them(kept: VoteStore, file: Path) -> None:
    """A row that was imported before there were seconds is recognised again; with seconds it is another vote."""
    row = "a fox,oil,pixel,2026-01-31T12:00:00+00:00"
    [cast] = imported(kept, file, f"prompt,winner,loser,time\n{row}\n")
    assert cast.id == "8fe02aafa96f43509237898ad684b5ec"
    assert imported(kept, file, f"prompt,winner,loser,time,seconds\n{row},\n") == []
    [timed] = imported(kept, file, f"prompt,winner,loser,time,seconds\n{row},3\n")
    assert (timed.seconds, timed.id != cast.id) == (3.0, True)
