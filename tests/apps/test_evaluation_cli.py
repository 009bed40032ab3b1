"""`diffusiongpt evaluate`: what it prints, and how it reports files that cannot be used."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_evaluation import PLACES, RATED, VOTED, rated_rows, vote_rows, write
from typer.testing import CliRunner

from diffusiongpt.apps.cli import app

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

FIGURES = {"mean", "share", "gain_over_best_single", "gain_low", "gain_high", "top1", "ms_per_pick"}
METHODS = ["ours", "best_single", "random", "oracle", "category_table", "knn", "paper_top5"]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with ratings and votes in it."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "train.csv", RATED, rated_rows(PLACES[:8]))
    write(tmp_path / "test.csv", RATED, rated_rows(PLACES[8:], first=100))
    write(tmp_path / "votes.csv", VOTED, vote_rows(120, places=PLACES[:8]))


def run(*arguments: str, code: int = 0) -> Result:
    """Run `diffusiongpt evaluate` and check its exit code."""
    result = CliRunner().invoke(app, ["evaluate", *arguments])
    assert result.exit_code == code, result.output
    return result


def run_json(*arguments: str) -> Any:
    """Run it with `--json`."""
    return json.loads(run(*arguments, "--json").stdout)


def without_times(report: Any) -> Any:
    """A report without the fields that differ from run to run."""
    for one in report["methods"].values():
        assert one.pop("ms_per_pick") >= 0
    return report


def test_json_has_what_the_contract_says() -> None:
    """Prompts, experts, and every method with its figures."""
    report = run_json("--train", "train.csv", "--test", "test.csv")
    assert (report["prompts"], report["experts"], report["coverage"]) == (8, 3, 1.0)
    assert list(report["methods"]) == METHODS
    for one in report["methods"].values():
        assert set(one) >= FIGURES
        assert one["gain_low"] <= one["gain_over_best_single"] <= one["gain_high"]
    assert report["methods"]["random"]["share"] == 0
    assert report["methods"]["oracle"]["share"] == 1
    assert report["methods"]["category_table"]["share"] == 1


def test_with_votes_the_training_ratings_are_never_read(tmp_path: Path) -> None:
    """The figures are the same whatever the ratings given with votes say, and also without any ratings."""
    told = [without_times(run_json("--votes", "votes.csv", "--train", "train.csv", "--test", "test.csv"))]
    for number, rating in enumerate(("-5", "nan", "")):
        rows = [(*row[:4], rating) for row in rated_rows(PLACES[:8])]
        write(tmp_path / f"{number}.csv", RATED, rows)
        told.append(without_times(run_json("--votes", "votes.csv", "--train", f"{number}.csv", "--test", "test.csv")))
    write(tmp_path / "names.csv", RATED[:4], [row[:4] for row in rated_rows(PLACES[:8])])
    told.append(without_times(run_json("--votes", "votes.csv", "--train", "names.csv", "--test", "test.csv")))
    assert all(one == told[0] for one in told)
    assert told[0]["calibration"]["ours"]["votes"] > 0


def test_several_training_files_are_one_training(tmp_path: Path) -> None:
    """`--train` may be repeated, and the parts together give the same report as the whole."""
    rows = rated_rows(PLACES[:8])
    write(tmp_path / "a.csv", RATED, rows[:20])
    write(tmp_path / "b.csv", RATED, rows[20:])
    whole = without_times(run_json("--train", "train.csv", "--test", "test.csv"))
    assert without_times(run_json("--train", "a.csv", "--train", "b.csv", "--test", "test.csv")) == whole


def test_the_table_says_it_in_words() -> None:
    """Every method has a row, and the meaning of the columns is printed below."""
    result = run("--votes", "votes.csv", "--test", "test.csv")
    for name in METHODS:
        assert name in result.stdout
    for words in ("8 prompts, 3 experts", "gain over best single", "how it picks", "calibration error"):
        assert words in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_a_wrong_file_is_reported_in_two_lines(tmp_path: Path) -> None:
    """The error names file, line and remedy and exits with 1; with `--json` it is an object with the same content."""
    write(tmp_path / "bad.csv", RATED, [("1", "a fox", "", "furry", "nan")])
    result = run("--train", "bad.csv", "--test", "test.csv", code=1)
    assert result.stderr.startswith("error: bad.csv, line 2: rating 'nan' is not a finite number\nhint: ")
    result = run("--train", "bad.csv", "--test", "test.csv", "--json", code=1)
    assert json.loads(result.stdout)["error"]["type"] == "DataError"


def test_wrong_use_exits_with_two() -> None:
    """No training data, a missing file, and a missing option are wrong usage."""
    assert "nothing to learn from" in run("--test", "test.csv", code=2).stderr
    assert "cannot read none.csv" in run("--train", "none.csv", "--test", "test.csv", code=2).stderr
    run("--train", "train.csv", code=2)


def test_an_unknown_expert_in_the_test_is_reported(tmp_path: Path) -> None:
    """An expert without training data would make the oracle better than any method can be."""
    write(tmp_path / "more.csv", RATED, [("1", "a fox", "", "furry", "3"), ("1", "a fox", "", "Metal", "4")])
    result = run("--train", "train.csv", "--test", "more.csv", code=1)
    assert "line 3: expert 'Metal' is not known from training\nhint: Did you mean 'metal'?" in result.stderr
