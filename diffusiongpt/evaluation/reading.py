"""CSV files of ratings and votes as arrays; every mistake is reported with file and row."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np

from diffusiongpt.errors import DataError, RequestError
from diffusiongpt.evaluation.data import Exam, Floats, Training, Votes
from diffusiongpt.votes import PROMPT_CHARS, Outcome
from diffusiongpt.votes.exchange import MISSPELT, CsvRow, nearest, read_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


NAMES = ("prompt_id", "prompt", "expert")
VOTE_COLUMNS = ("prompt_id", "prompt", "winner", "loser")
VOTE_OPTIONS = ("category", "outcome", "ballot", "voter", "source", "weight", "propensity", "time")
MOST_EXPERTS = 4000
"""Experts in the files of one evaluation; what Bradley-Terry needs grows with their square, and takes 128 MB here."""

MOST_CELLS = 50_000_000
"""Pairs of a prompt and an expert in one grid of ratings, which take 400 MB."""

SHARES = {"win": 1.0, "tie": 0.5, "both_bad": 0.5}


def read_ratings(*paths: Path | str) -> Training:
    """Read ratings to learn from: `prompt_id,prompt,category,expert,rating`, a full grid or a partial one.

    Args:
        paths: CSV files. The same id with another text, as in a translation, is another prompt.

    Raises:
        DataError: For what is wrong in a file.
        RequestError: If a file cannot be opened, or none is given.
    """
    if not paths:
        raise RequestError("no file of ratings is given", hint="Pass at least one CSV file.")
    prompts, cells = _Prompts(), _cells(_rated_rows(paths))
    rows = [(prompts.number(row), expert, rating) for row, expert, rating in cells]
    experts = sorted({expert for _, expert, _ in rows})
    _check_size(len(experts), len(prompts))
    return Training(prompts.texts, prompts.categories, tuple(experts), _grid(rows, len(prompts), experts))


def read_votes(path: Path | str, *, names: Sequence[Path | str] = ()) -> Training:
    """Read votes to learn from: `prompt_id,prompt,category,winner,loser` and more columns if they are there.

    Those are `outcome` (win, tie, both_bad), `ballot`, `voter`, `source`, `weight`, `propensity` and `time`.

    Args:
        path: CSV file.
        names: Files of ratings that name further experts and prompts; what they say of ratings is never read.

    Raises:
        DataError: For what is wrong in a file.
        RequestError: If a file cannot be opened.
    """
    prompts, experts = _Prompts(), set()
    rows = []
    for row in _vote_rows(Path(path)):
        experts |= {row.text("winner"), row.text("loser")}
        rows.append((prompts.number(row), row))
    for file in names:
        for row in _rows(file, NAMES, ("category",)):
            prompts.number(row)
            experts.add(row.text("expert"))
    known = tuple(sorted(experts))
    _check_size(len(known))
    return Training(prompts.texts, prompts.categories, known, votes=_votes(rows, known))


def read_exam(path: Path | str, experts: Sequence[str]) -> Exam:
    """Read ratings to be measured by; columns as for `read_ratings`.

    Args:
        path: CSV file.
        experts: Those of the training.

    Raises:
        DataError: For what is wrong in the file, and for an expert that the training does not know.
        RequestError: If it cannot be opened.
    """
    prompts, known = _Prompts(), set(experts)
    rows: list[tuple[int, str, float]] = []
    strangers: dict[str, CsvRow] = {}
    for row, expert, rating in _cells(_rated_rows([path])):
        rows.append((prompts.number(row), expert, rating))
        if expert not in known:
            strangers.setdefault(expert, row)
    if strangers:
        raise _unknown(strangers, {expert for _, expert, _ in rows}, experts)
    return Exam(prompts.texts, prompts.categories, tuple(experts), _grid(rows, len(prompts), experts))


class _Prompts:
    """Prompts by id and text, in the order they come."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[str, str], int] = {}
        self._categories: list[str | None] = []
        self._texts: dict[tuple[Path, str], tuple[str, CsvRow]] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(text for _, text in self._numbers)

    @property
    def categories(self) -> tuple[str | None, ...]:
        return tuple(self._categories)

    def number(self, row: CsvRow) -> int:
        """Index of a row's prompt.

        Raises:
            DataError: If its file gives one id two texts, or one prompt two categories.
        """
        key = name, text = row.text("prompt_id"), row.text("prompt")
        if len(text) > PROMPT_CHARS:
            raise DataError(
                f"{row}: the prompt has {len(text):,} characters",
                hint=f"Use at most {PROMPT_CHARS:,}, as a request may.",
            )
        first_text, first = self._texts.setdefault((row.path, name), (text, row))
        if first_text != text:
            raise DataError(
                f"{row}: prompt_id {name!r} stands for another prompt on line {first.line}",
                hint="Give every prompt an id of its own.",
            )
        index = self._numbers.setdefault(key, len(self._numbers))
        if index == len(self._categories):
            self._categories.append(None)
        category = row.cells.get("category") or None
        if category and self._categories[index] not in (None, category):
            raise DataError(
                f"{row}: prompt {name!r} has the category {category!r}, and {self._categories[index]!r} before",
                hint="Give each prompt one category.",
            )
        self._categories[index] = self._categories[index] or category
        return index


def _rows(path: Path | str, required: Sequence[str], optional: Sequence[str]) -> list[CsvRow]:
    """Rows of a file, which must have some; other columns are ignored."""
    if not Path(path).exists():
        raise RequestError(f"cannot read {path}: the file does not exist", hint="Check the path.")
    rows = read_rows(Path(path), required=required, optional=optional, strict=False, strip=True)
    if not rows:
        raise DataError(f"{path} has no rows below its header", hint="Pass a file with data.")
    return rows


def _rated_rows(paths: Iterable[Path | str]) -> Iterator[CsvRow]:
    for path in paths:
        yield from _rows(path, (*NAMES, "rating"), ("category",))


def _cells(rows: Iterable[CsvRow]) -> Iterator[tuple[CsvRow, str, float]]:
    """Each row with its expert and rating; a prompt rated twice by the same name is refused."""
    seen: dict[tuple[str, str, str], CsvRow] = {}
    for row in rows:
        expert = row.text("expert")
        first = seen.setdefault((row.cells.get("prompt_id", ""), row.cells.get("prompt", ""), expert), row)
        if first is not row:
            raise DataError(
                f"{row}: {expert!r} is rated a second time for prompt {row.text('prompt_id')!r}, after {first}",
                hint="Keep one row of each prompt and expert, such as the mean; pass each file once.",
            )
        yield row, expert, row.number("rating")


def _check_size(experts: int, prompts: int = 0) -> None:
    """Check that the files are not beyond what an evaluation can hold.

    Raises:
        DataError: If they are.
    """
    if experts > MOST_EXPERTS or experts * prompts > MOST_CELLS:
        about = f" and {prompts:,} prompts" if prompts else ""
        raise DataError(
            f"the files name {experts:,} experts{about}",
            hint=f"Evaluate at most {MOST_EXPERTS:,} experts, and {MOST_CELLS:,} pairs of a prompt and an expert.",
        )


def _grid(rows: Iterable[tuple[int, str, float]], prompts: int, experts: Sequence[str]) -> Floats:
    columns = {expert: index for index, expert in enumerate(experts)}
    grid = np.full((prompts, len(experts)), np.nan)
    for prompt, expert, rating in rows:
        grid[prompt, columns[expert]] = rating
    return grid


def _unknown(strangers: dict[str, CsvRow], asked: set[str], experts: Sequence[str]) -> DataError:
    name, row = next(iter(strangers.items()))
    if not asked & set(experts):
        return DataError(
            f"{row.path}: none of its experts is known from training",
            hint=f"Training has: {', '.join(experts)[:200]}. Check that both files write the names alike.",
        )
    meant = nearest(name, experts, MISSPELT)
    more = f", and {len(strangers) - 1} more" if len(strangers) > 1 else ""
    return DataError(
        f"{row}: expert {name!r}{more} is not known from training",
        hint=f"Did you mean {meant!r}?" if meant else "Train on its ratings or votes too, or leave its rows out.",
    )


def _vote_rows(path: Path) -> Iterator[CsvRow]:
    """Valid rows of votes; a vote that occurs twice on a ballot or at one time is refused."""
    seen: dict[tuple[object, ...], CsvRow] = {}
    for row in _rows(path, VOTE_COLUMNS, VOTE_OPTIONS):
        winner, loser, outcome = row.text("winner"), row.text("loser"), row.cells.get("outcome", "")
        if winner == loser:
            raise DataError(f"{row}: {winner!r} is compared with itself", hint="Name two experts, as winner and loser.")
        if outcome and outcome not in SHARES:
            raise DataError(
                f"{row}: outcome {outcome!r} is not known", hint=f"Use one of: {', '.join(get_args(Outcome))}."
            )
        told = _told_once(row)
        first = seen.setdefault(told, row) if told else row
        if first is not row:
            raise DataError(
                f"{row}: repeats the vote of line {first.line}",
                hint="Keep one row of each pair that a voter decided on a ballot.",
            )
        yield row


def _told_once(row: CsvRow) -> tuple[object, ...]:
    """What only one row may say; nothing for votes that name neither ballot nor time, which may well be alike."""
    cells = row.cells
    if cells.get("ballot"):
        pair = frozenset((cells["winner"], cells["loser"]))
        return (cells["ballot"], cells.get("voter", ""), cells.get("prompt_id", ""), pair)
    return tuple(cells.items()) if cells.get("time") else ()


def _votes(rows: Sequence[tuple[int, CsvRow]], experts: Sequence[str]) -> Votes:
    index = {expert: number for number, expert in enumerate(experts)}
    winner = np.array([index[row.cells["winner"]] for _, row in rows], dtype=np.intp)
    loser = np.array([index[row.cells["loser"]] for _, row in rows], dtype=np.intp)
    outcomes = [row.cells.get("outcome") or "win" for _, row in rows]
    share = np.array([SHARES[outcome] for outcome in outcomes])
    ballots: dict[tuple[str, ...], int] = {}
    return Votes(
        prompt=np.array([prompt for prompt, _ in rows], dtype=np.intp),
        left=np.minimum(winner, loser),
        right=np.maximum(winner, loser),
        share=np.where(winner < loser, share, 1 - share),
        both_bad=np.array([outcome == "both_bad" for outcome in outcomes]),
        weight=np.array([_positive(row, "weight", most=np.inf) for _, row in rows]),
        ballot=np.array([ballots.setdefault(_ballot_of(row), len(ballots)) for _, row in rows], dtype=np.intp),
        source=np.array([row.cells.get("source") or "human" for _, row in rows]),
        propensity=np.array([_positive(row, "propensity", most=1.0) for _, row in rows]),
    )


def _ballot_of(row: CsvRow) -> tuple[str, ...]:
    ballot = row.cells.get("ballot")
    return (ballot, row.cells.get("voter", "")) if ballot else (str(row.line),)


def _positive(row: CsvRow, column: str, *, most: float) -> float:
    return row.number(column, above=0, most=most) if column in row.cells else 1.0
