"""`diffusiongpt votes` and `vote --rating`: files of votes, and erasing a voter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_votes import rating, vote
from typer.testing import CliRunner

from diffusiongpt.apps.cli import app
from diffusiongpt.apps.cli import votes as exchange
from diffusiongpt.studio import DiffusionGPT
from diffusiongpt.votes import Tally, VoteStore

if TYPE_CHECKING:
    import postgres
    from click.testing import Result

PROMPT = "a pixel art fish on a blue background"


pytestmark = pytest.mark.usefixtures("tiny_home")


@pytest.fixture
def cast(tmp_path: Path) -> VoteStore:
    """The user's own store, with a vote for experts of the tiny zoo and a rating."""
    store = VoteStore(tmp_path / "home" / "votes.db", make_folder=True)
    store.add(vote("tiny-pixel", "tiny-pixel", "tiny-oil", prompt=PROMPT))
    store.add(rating(8, expert="tiny-oil", voter="Ada"))
    return store


def run(*arguments: object, code: int = 0, answer: str | None = None) -> Result:
    """Run a command and check its exit code."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=answer)
    assert result.exit_code == code, result.output
    return result


def test_votes_go_out_and_come_back(cast: VoteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Votes exported as JSON Lines and imported into another home are the same; a second import adds nothing."""
    run("votes", "export", "mine.jsonl")
    monkeypatch.setenv("DIFFUSIONGPT_HOME", str(tmp_path / "other"))
    assert run("votes", "import", "mine.jsonl").stdout == "added 1 vote and 1 rating\n"
    other = VoteStore(tmp_path / "other" / "votes.db")
    assert (other.all(), other.ratings()) == (cast.all(), cast.ratings())
    done = json.loads(run("votes", "import", "mine.jsonl", "--json").stdout)
    assert done == {"votes": 0, "ratings": 0, "known": 2, "skipped": 0, "unknown": []}


def test_export_writes_csv_to_stdout(cast: VoteStore) -> None:
    """Results go to stdout, and stderr lists what CSV has no columns for."""
    result = run("votes", "export")
    header, row = result.stdout.splitlines()
    assert header.startswith("prompt_id,prompt,category,winner,loser,outcome")
    assert f",{PROMPT},,tiny-pixel,tiny-oil,win," in row
    assert "1 ratings are not in it; --ratings" in result.stderr
    assert run("votes", "export", "-", "--ratings").stdout.splitlines()[1].split(",")[3:5] == ["tiny-oil", "8.0"]
    assert json.loads(run("votes", "export", "--format", "jsonl").stdout.splitlines()[0]) == {
        "kind": "vote",
        **cast.all()[0].to_record(),
    }


@pytest.mark.usefixtures("cast")
def test_export_needs_a_name_that_says_the_format_and_is_free() -> None:
    """No file is overwritten, and the format is not guessed."""
    Path("votes.csv").write_text("precious")
    assert "exists already" in run("votes", "export", "votes.csv", code=1).stderr
    assert Path("votes.csv").read_text() == "precious"
    assert "is not clear from its name" in run("votes", "export", "votes.txt", code=1).stderr
    run("votes", "export", "votes.txt", "--format", "csv")
    assert "can only be imported" in run("votes", "export", "scores.json", code=1).stderr


def test_imported_prompts_are_read_by_the_local_thinker(cast: VoteStore) -> None:
    """CSV does not say what a prompt is about; the same thinker that reads prompts for routes reads it."""
    Path("more.csv").write_text("prompt,winner,loser\nan oil painting of a dog,tiny-oil,tiny-pixel\n")
    run("votes", "import", "more.csv")
    evidence = cast.all()[1].evidence
    assert evidence["oil_painting"] == pytest.approx(0.95)
    assert evidence["animal"] > 0.5


def test_a_mistake_in_a_file_is_told_and_changes_nothing(cast: VoteStore) -> None:
    """A mistake prints two lines on stderr and exits with 1; with `--json` it is an object."""
    Path("more.csv").write_text("prompt,winner,loser\na,tiny-oil,tiny-pixel\na,tiny-oil,tiny-oil\n")
    result = run("votes", "import", "more.csv", "--json", code=1)
    assert result.stderr.splitlines()[0] == ("error: more.csv, line 3: 'tiny-oil' is compared with itself")
    assert json.loads(result.stdout)["error"]["type"] == "DataError"
    assert cast.count() == 1


def test_unknown_experts_are_refused_unless_asked_for(cast: VoteStore) -> None:
    """The zoo given by `--zoo` decides which experts are known."""
    Path("more.csv").write_text("prompt,winner,loser\na,tiny-oli,tiny-pixel\nb,tiny-oil,tiny-pixel\n")
    assert "'tiny-oli' (line 2, did you mean 'tiny-oil'?)" in run("votes", "import", "more.csv", code=1).stderr
    assert cast.count() == 1
    said = run("votes", "import", "more.csv", "--unknown", "skip").stdout
    assert said == "added 1 vote and 0 ratings; 1 skipped; not in the zoo: tiny-oli\n"
    said = run("votes", "import", "more.csv", "--unknown", "keep").stdout
    assert said == "added 1 vote and 0 ratings; 1 were there before; not in the zoo: tiny-oli\n"
    run("votes", "import", "more.csv", "--zoo", "default", code=1)


def test_erasing_asks_first(cast: VoteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command states how many votes there are; without a terminal it refuses, and "no" erases nothing."""
    result = run("votes", "erase", "--voter", "Ada", code=2)
    assert "removing 0 votes and 1 rating of 'Ada' has to be confirmed" in result.stderr
    monkeypatch.setattr(exchange, "is_terminal", lambda: True)
    assert (
        "Remove 0 votes and 1 rating of 'Ada' for good?"
        in run("votes", "erase", "--voter", "Ada", code=1, answer="n\n").stderr
    )
    assert cast.tally("Ada") == Tally(0, 1)
    assert run("votes", "erase", "--voter", "Ada", answer="y\n").stdout.endswith(
        "removed 0 votes and 1 rating of 'Ada'\n"
    )
    assert (cast.tally("Ada"), cast.tally("me")) == (Tally(0, 0), Tally(1, 0))


def test_erasing_can_be_agreed_to_beforehand(cast: VoteStore) -> None:
    """`--yes` asks nothing, `--json` prints an object, and a voter without votes is not an error."""
    done = json.loads(run("votes", "erase", "--voter", "me", "--yes", "--json").stdout)
    assert done == {"voter": "me", "votes": 1, "ratings": 0}
    assert cast.all() == []
    assert run("votes", "erase", "--voter", "nobody").stdout == "removed 0 votes and 0 ratings of 'nobody'\n"


def test_a_picture_can_be_rated_and_the_rating_taken_back(tmp_path: Path) -> None:
    """A rating records prompt, expert, seed, ranking version and what the prompt is about."""
    [picture] = json.loads(
        run("generate", PROMPT, "--expert", "tiny-oil", "--seed", 5, "--steps", 1, "--out", "drawn", "--json").stdout
    )["images"]
    assert run("vote", picture, "--rating", "7.5").stdout == f"7.5 for tiny-oil and {PROMPT!r}\n"
    store = VoteStore(tmp_path / "home" / "votes.db")
    [rated] = store.ratings()
    assert (rated.prompt, rated.expert, rated.rating, rated.seed) == (PROMPT, "tiny-oil", 7.5, 5)
    assert (rated.voter, rated.source, rated.ranking_version) == ("me", "human", "r0")
    assert rated.evidence["pixel_art"] > 0.9
    undone: Any = json.loads(run("vote", "--undo", "--json").stdout)
    assert (undone["rating"], undone["undone"]) == (7.5, True)
    assert store.ratings() == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("vote", "a.png", "b.png", "--rating", "7"),
        ("vote", "a.png", "--rating", "7", "--tie"),
        ("vote", "--undo", "--rating", "7"),
        ("vote", "--rating", "7"),
        ("vote", "a.png"),
        ("vote", "a.png", "--tie"),
    ],
)
def test_a_rating_is_for_one_picture_and_a_vote_for_several(arguments: tuple[str, ...]) -> None:
    """Wrong usage exits with 2 and shows the correct form."""
    assert "hint: diffusiongpt vote" in run(*arguments, code=2).stderr


def test_a_rating_that_is_no_number_is_refused(tmp_path: Path) -> None:
    """`nan` passes the option parser's check for numbers, but not ours."""
    [picture] = json.loads(run("generate", PROMPT, "--steps", 1, "--out", "drawn", "--json").stdout)["images"]
    assert "rating nan is not a number" in run("vote", picture, "--rating", "nan", code=1).stderr
    assert not (tmp_path / "home" / "votes.db").exists() or VoteStore(tmp_path / "home" / "votes.db").ratings() == []


def test_a_vote_for_a_database_that_is_down_is_queued(
    database_server: postgres.PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command and `doctor` say so; the next command that reaches the database sends it first."""
    monkeypatch.setenv("DIFFUSIONGPT_VOTES", database_server.new_database())
    with DiffusionGPT("tiny", device="cpu") as studio:
        picture = studio.route_and_generate("a red heart", expert="tiny-oil", seed=1).save(tmp_path)[0]
    with database_server.unreachable():
        said = run("vote", str(picture), "--rating", "8").stdout
        assert said.startswith("8 for tiny-oil and 'a red heart'\nqueued: it waits on this machine until")
        assert json.loads(run("vote", str(picture), "--rating", "7", "--json").stdout)["queued"] is True
        assert run("vote", "--undo").stdout.startswith("taken back: 7 for tiny-oil")
        assert json.loads(run("doctor", "--json").stdout)["votes_queue"]["waiting"] == 3
        assert "3 wait in" in run("doctor").stdout
    assert run("vote", str(picture), "--rating", "6").stdout == "6 for tiny-oil and 'a red heart'\n"
    store = VoteStore()
    assert [one.rating for one in store.ratings()] == [8, 6]
    store.close()
    assert json.loads(run("doctor", "--json").stdout)["votes_queue"]["waiting"] == 0
