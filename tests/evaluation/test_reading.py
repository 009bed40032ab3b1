"""Files of ratings and votes: what is read, and how mistakes in a file are reported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fixtures_evaluation import RATED, VOTED, rated_rows, vote_rows, write

from diffusiongpt.errors import DataError, RequestError
from diffusiongpt.evaluation import read_exam, read_ratings, read_votes
from diffusiongpt.evaluation.data import Votes
from diffusiongpt.evaluation.methods import bradley_terry

GOOD = ("1", "a fox", "", "furry", "3.5")
VOTE = ("1", "a fox", "", "furry", "metal")


def test_a_full_grid_is_read(tmp_path: Path) -> None:
    """Prompts come in the order of the file, experts by name, ratings where they belong."""
    training = read_ratings(write(tmp_path / "r.csv", RATED, rated_rows(["by a lake"])))
    assert training.prompts == ("a fox by a lake", "a bus by a lake")
    assert training.categories == ("fox", "bus")
    assert training.experts == ("furry", "metal", "plain")
    assert training.ratings is not None
    assert training.ratings.tolist() == [[80, 20, 60], [30, 90, 60]]
    assert training.votes is None


def test_a_partial_grid_has_gaps(tmp_path: Path) -> None:
    """A missing rating is NaN, and the column of categories may be empty or absent."""
    rows = [("1", "a fox", "furry", "3"), ("2", "a bus", "metal", "4")]
    training = read_ratings(write(tmp_path / "r.csv", ("prompt_id", "prompt", "expert", "rating"), rows))
    assert training.ratings is not None
    assert np.isnan(training.ratings).tolist() == [[False, True], [True, False]]
    assert training.categories == (None, None)


def test_files_add_up(tmp_path: Path) -> None:
    """The same ids with other texts, as in a translation, are other prompts; new ratings of a prompt join it."""
    first = write(tmp_path / "a.csv", RATED, [GOOD])
    second = write(tmp_path / "b.csv", RATED, [("1", "狐狸", "animal", "furry", "4")])
    third = write(tmp_path / "c.csv", RATED, [("1", "a fox", "", "metal", "2")])
    training = read_ratings(first, second, third)
    assert training.prompts == ("a fox", "狐狸")
    assert training.categories == (None, "animal")
    np.testing.assert_array_equal(training.ratings, [[3.5, 2.0], [4.0, np.nan]])


def test_the_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    """Experts are sorted, so that being first in a file gives no advantage."""
    rows = rated_rows()
    there = read_ratings(write(tmp_path / "a.csv", RATED, rows))
    back = read_ratings(write(tmp_path / "b.csv", RATED, rows[::-1]))
    assert there.experts == back.experts
    assert there.ratings is not None
    assert back.ratings is not None
    assert np.array_equal(there.ratings, back.ratings[::-1])


def test_votes_are_read_with_all_their_columns(tmp_path: Path) -> None:
    """Outcome, ballot, voter, source, weight and propensity are read; the side says nothing about the winner."""
    header = (*VOTED, "outcome", "ballot", "voter", "source", "weight", "propensity", "time")
    rows = [
        (*VOTE, "", "b1", "ann", "", "", "", "2026-01-01"),
        ("1", "a fox", "", "plain", "furry", "win", "b1", "ann", "judge", "0.5", "0.25", ""),
        ("2", "a bus", "bus", "plain", "metal", "tie", "b1", "bob", "", "2", "", ""),
        ("2", "a bus", "bus", "metal", "furry", "both_bad", "", "", "", "", "1", ""),
    ]
    votes = read_votes(write(tmp_path / "v.csv", header, rows)).votes
    assert votes is not None
    assert votes.left.tolist() == [0, 0, 1, 0]
    assert votes.right.tolist() == [1, 2, 2, 1]
    assert votes.share.tolist() == [1, 0, 0.5, 0.5]
    assert votes.both_bad.tolist() == [False, False, False, True]
    assert votes.weight.tolist() == [1, 0.5, 2, 1]
    assert votes.ballot.tolist() == [0, 0, 1, 2]
    assert votes.source.tolist() == ["human", "judge", "human", "human"]
    assert votes.propensity.tolist() == [1, 0.25, 1, 1]
    assert votes.comparisons.weight.tolist() == [0.5, 0.25, 2]


def test_with_votes_the_training_file_only_names(tmp_path: Path) -> None:
    """Ratings given with votes may be absent, empty or invalid, since they are not read."""
    votes = write(tmp_path / "v.csv", VOTED, [VOTE])
    told = []
    for number, rating in enumerate(("", "nan", "best of all", "3")):
        rows = [("1", "a fox", "", "plain", rating), ("2", "a bus", "bus", "plain", rating)]
        told.append(read_votes(votes, names=[write(tmp_path / f"r{number}.csv", RATED, rows)]))
    bare = write(tmp_path / "bare.csv", RATED[:4], [("1", "a fox", "", "plain"), ("2", "a bus", "bus", "plain")])
    told.append(read_votes(votes, names=[bare]))
    for training in told:
        assert training.experts == ("furry", "metal", "plain")
        assert training.prompts == ("a fox", "a bus")
        assert training.categories == (None, "bus")
        assert training.ratings is None


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([GOOD, ("1", "a fox", "", "metal", "nan")], "line 3: rating 'nan' is not a finite number"),
        ([("1", "a fox", "", "furry", "inf")], "line 2: rating 'inf' is not a finite number"),
        ([("1", "a fox", "", "furry", "3,5")], "line 2: rating '3,5' is not a finite number"),
        ([("1", "a fox", "", "furry", "")], "line 2: rating is empty"),
        ([("1", " ", "", "furry", "3")], "line 2: prompt is empty"),
        ([("1", "a fox", "", "", "3")], "line 2: expert is empty"),
        ([GOOD, GOOD], "line 3: 'furry' is rated a second time for prompt '1', after .*line 2"),
        ([GOOD, ("1", "a bus", "", "metal", "3")], "line 3: prompt_id '1' stands for another prompt on line 2"),
        ([("1", "a fox", "a", "furry", "3"), ("1", "a fox", "b", "metal", "3")], "the category 'b', and 'a' before"),
        ([("1", "a fox", "", "furry", "3", "4")], "line 2: 6 cells, but the header has 5"),
        ([], "has no rows"),
    ],
)
def test_wrong_ratings_are_told_with_their_line(rows: list[tuple[str, ...]], message: str, tmp_path: Path) -> None:
    """An invalid row is reported by file and line, and the hint says what to do."""
    path = write(tmp_path / "ratings.csv", RATED, rows)
    with pytest.raises(DataError, match=message) as caught:
        read_ratings(path)
    assert "ratings.csv" in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"loser": "furry"}, "line 2: 'furry' is compared with itself"),
        ({"winner": ""}, "line 2: winner is empty"),
        ({"outcome": "draw"}, "line 2: outcome 'draw' is not known"),
        ({"weight": "0"}, "line 2: weight '0' is not a finite number above 0"),
        ({"weight": "heavy"}, "line 2: weight 'heavy' is not a finite number"),
        ({"propensity": "1.5"}, "line 2: propensity '1.5' is not a finite number above 0 and at most 1"),
    ],
)
def test_wrong_votes_are_told_with_their_line(cells: dict[str, str], message: str, tmp_path: Path) -> None:
    """An invalid vote is reported by file and line."""
    row = dict(zip(VOTED, VOTE, strict=True)) | {"outcome": "", "weight": "", "propensity": ""} | cells
    path = write(tmp_path / "votes.csv", tuple(row), [tuple(row.values())])
    with pytest.raises(DataError, match=message) as caught:
        read_votes(path)
    assert "votes.csv" in str(caught.value)
    assert caught.value.hint


def test_one_ballot_decides_a_pair_once(tmp_path: Path) -> None:
    """A voter's second row on the same pair of a ballot is refused; without ballots, equal votes are by many people."""
    header = (*VOTED, "ballot", "voter")
    again = ("1", "a fox", "", "metal", "furry", "b1", "ann")
    path = write(tmp_path / "v.csv", header, [(*VOTE, "b1", "ann"), (*VOTE, "b1", "bob"), again])
    with pytest.raises(DataError, match="line 4: repeats the vote of line 2"):
        read_votes(path)
    timed = write(tmp_path / "t.csv", (*VOTED, "time"), [(*VOTE, "2026-01-01T10:00"), (*VOTE, "2026-01-01T10:00")])
    with pytest.raises(DataError, match="line 3: repeats the vote of line 2"):
        read_votes(timed)
    votes = read_votes(write(tmp_path / "w.csv", VOTED, [VOTE, VOTE])).votes
    assert votes is not None
    assert len(votes) == 2


@pytest.mark.parametrize(
    ("header", "message", "hint"),
    [
        (("prompt_id", "prompt", "category", "expert", "Ratings"), "column 'rating' is missing", "'Ratings'"),
        (("prompt_id|prompt|expert|rating",), "'prompt_id', 'prompt', 'expert', 'rating' is missing", "has: "),
        ((*RATED, "expert"), "column 'expert' appears twice", "Keep one"),
        (("prompt_id", "prompt", "categories", "expert", "rating"), "column 'categories' is not known", "'category'"),
    ],
)
def test_a_wrong_header_is_told_with_the_nearest_name(
    header: tuple[str, ...], message: str, hint: str, tmp_path: Path
) -> None:
    """A missing or misspelt column is reported, with the one that was probably meant."""
    with pytest.raises(DataError, match=message) as caught:
        read_ratings(write(tmp_path / "r.csv", header, [["1"] * len(header)]))
    assert hint in caught.value.hint


def test_files_that_are_no_csv_are_told_apart(tmp_path: Path) -> None:
    """A missing file, an empty file, another encoding and an unclosed quote are separate errors."""
    with pytest.raises(RequestError, match=r"cannot read .*none\.csv"):
        read_ratings(tmp_path / "none.csv")
    with pytest.raises(RequestError, match="no file of ratings"):
        read_ratings()
    path = tmp_path / "r.csv"
    for content, message in (
        (b"", "is empty"),
        ("prompt_id,prompt,expert,rating\n1,fuchs im märz,a,1\n".encode("latin-1"), "is not UTF-8 text"),
        (b'prompt_id,prompt,expert,rating\n1,"a fox,a,1\n', r"r\.csv, line \d+: unexpected end of data"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            read_ratings(path)


def test_a_byte_order_mark_and_line_breaks_in_prompts_are_fine(tmp_path: Path) -> None:
    """Files written by spreadsheets are read, and lines are still counted correctly."""
    path = tmp_path / "r.csv"
    path.write_bytes(b'\xef\xbb\xbfprompt_id,prompt,expert,rating\r\n1,"a fox,\r\nin snow",a,1\r\n2,a bus,a,x\r\n')
    with pytest.raises(DataError, match="line 4: rating 'x'"):
        read_ratings(path)


def test_experts_of_the_test_must_be_known(tmp_path: Path) -> None:
    """An expert missing from training is reported with the nearest known one; files without a common expert, too."""
    rows = [("1", "a fox", "", "furry", "3"), ("1", "a fox", "", "metall", "3")]
    path = write(tmp_path / "test.csv", RATED, rows)
    with pytest.raises(DataError, match="line 3: expert 'metall' is not known from training") as caught:
        read_exam(path, ["furry", "metal"])
    assert "'metal'" in caught.value.hint
    with pytest.raises(DataError, match="none of its experts is known"):
        read_exam(path, ["a", "b"])
    exam = read_exam(path, ["furry", "metall", "zebra"])
    assert exam.allowed.tolist() == [[True, True, False]]


def test_a_part_of_a_training_keeps_its_votes(tmp_path: Path) -> None:
    """Cross-validation takes prompts with their ratings or votes, and renumbers them."""
    training = read_votes(write(tmp_path / "v.csv", VOTED, vote_rows(60)))
    part = training.of_prompts([3, 1])
    assert part.prompts == (training.prompts[3], training.prompts[1])
    assert part.votes is not None
    assert training.votes is not None
    assert set(part.votes.prompt.tolist()) == {0, 1}
    assert len(part.votes) == np.isin(training.votes.prompt, [1, 3]).sum()
    rated = read_ratings(write(tmp_path / "r.csv", RATED, rated_rows()))
    exam = rated.exam([4, 0])
    assert exam.prompts == (rated.prompts[4], rated.prompts[0])
    assert rated.ratings is not None
    assert np.array_equal(exam.ratings, rated.ratings[[4, 0]])


def test_files_beyond_all_bounds_are_refused(tmp_path: Path) -> None:
    """Too many experts, or a prompt that no request could have, end with an error and not with hours of work."""
    crowd = [(str(i), "a fox", "", f"e{i}", f"f{i}") for i in range(2001)]
    with pytest.raises(DataError, match="4,002 experts"):
        read_votes(write(tmp_path / "crowd.csv", VOTED, crowd))
    with pytest.raises(DataError, match="33,000 characters"):
        read_ratings(write(tmp_path / "long.csv", RATED, [("1", "fox" * 11_000, "", "furry", "3")]))


def test_strengths_cost_what_the_experts_with_votes_cost() -> None:
    """Three thousand experts without a vote change neither the strengths of the others nor the time."""
    rng = np.random.default_rng(0)
    pairs = np.sort([rng.choice(6, 2, replace=False) for _ in range(60)], axis=1)
    ones = np.ones(60)
    votes = Votes(
        prompt=np.zeros(60, np.intp), left=pairs[:, 0], right=pairs[:, 1], share=rng.integers(0, 2, 60).astype(float),
        both_bad=np.zeros(60, bool), weight=ones, ballot=np.arange(60),
        source=np.array(["human"] * 60), propensity=ones,
    )  # fmt: skip
    few, many = bradley_terry(votes, 6), bradley_terry(votes, 3006)
    np.testing.assert_allclose(many[:6], few)
    assert not many[6:].any()
    assert not np.allclose(few, 0)
