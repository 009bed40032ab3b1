"""Votes and ratings out of a store and into one, as files that spreadsheets and other programs read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from diffusiongpt.errors import VoteError
from diffusiongpt.votes.exchange.csv_files import read_header, read_ratings, read_votes, write_ratings, write_votes
from diffusiongpt.votes.exchange.problems import Placed, nearest

if TYPE_CHECKING:
    from diffusiongpt.votes.store import VoteStore
    from diffusiongpt.votes.vote import Rating, Vote


FileFormat = Literal["csv", "jsonl", "prompt2scores"]
Unknown = Literal["refuse", "keep", "skip"]

SUFFIXES: dict[str, FileFormat] = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "prompt2scores"}
MOST_NAMED = 10
"""Unknown experts that an error names."""


@dataclass(frozen=True)
class Imported:
    """What an import did.

    Attributes:
        votes: New votes.
        ratings: New ratings.
        known: Votes and ratings that the store had before.
        skipped: Votes and ratings left out because of an expert that the zoo does not have.
        unknown: Those experts, also if they were kept.
    """

    votes: int
    ratings: int
    known: int
    skipped: int
    unknown: tuple[str, ...]


def format_of(path: Path) -> FileFormat:
    """What a file is by its name.

    Raises:
        VoteError: If the name does not say.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise VoteError(
            f"{path}: its name does not say what it is", hint=f"Name the format, or use one of {', '.join(SUFFIXES)}."
        )
    return SUFFIXES[suffix]


def export_text(store: VoteStore, file_format: FileFormat, *, ratings: bool = False) -> str:
    """All votes and ratings that count, as text.

    Args:
        store: Where they are.
        file_format: JSON Lines carries everything; CSV carries either votes or ratings.
        ratings: Whether CSV is to carry the ratings.

    Raises:
        VoteError: If the store cannot be read, or the format can only be imported.
    """
    from diffusiongpt.votes.exchange.json_files import write_jsonl

    if file_format == "prompt2scores":
        raise VoteError("prompt2scores.json can only be imported", hint="Export as .csv or .jsonl.")
    if file_format == "jsonl":
        return write_jsonl([*store.all(), *store.ratings()])
    return write_ratings(store.ratings()) if ratings else write_votes(store.all())


def write_new(path: Path, data: bytes) -> None:
    """Write a file that is not there yet, whole or not at all.

    Raises:
        VoteError: If it is there, or cannot be written.
    """
    try:
        file = path.open("xb")
    except FileExistsError:
        raise VoteError(f"{path} is there already", hint="Name another file, or remove this one first.") from None
    except OSError as error:
        raise VoteError(f"cannot write {path}: {error.strerror}", hint="Name a file you may write to.") from error
    try:
        with file:
            file.write(data)
    except OSError as error:
        path.unlink()
        raise VoteError(f"cannot write {path}: {error.strerror}", hint="Is there room on the disk?") from error


def import_file(
    store: VoteStore,
    path: Path,
    *,
    file_format: FileFormat | None = None,
    experts: Collection[str] | None = None,
    unknown: Unknown = "refuse",
    evidence_of: Callable[[str], Mapping[str, float]] | None = None,
) -> Imported:
    """Record the votes and ratings of a file that the store does not have yet: all of them, or none.

    Args:
        store: Where they go.
        path: The file.
        file_format: What it is; `None` asks its name.
        experts: Experts there are; `None` takes any.
        unknown: What becomes of votes for others: `"refuse"` the file, `"keep"` or `"skip"` them.
        evidence_of: Says what a prompt is about, as probability per taxonomy node, where the file does not.

    Raises:
        VoteError: If the file has a mistake, told with its row, or the store cannot be written; either way
            the store is as it was.
    """
    placed = _read(path, file_format or format_of(path))
    strange = _unknown(placed, experts)
    if strange and unknown == "refuse":
        raise _refused(path, strange, experts or ())
    chosen = [one for one in placed if unknown == "keep" or strange.keys().isdisjoint(one.entry.experts)]
    entries = _with_evidence(chosen, evidence_of)
    names = {one.entry.id: one.where for one in chosen}
    new = store.merge(entries, lambda entry: names[entry.id])
    return Imported(
        votes=new.votes,
        ratings=new.ratings,
        known=len(entries) - sum(new),
        skipped=len(placed) - len(chosen),
        unknown=tuple(strange),
    )


def _read(path: Path, file_format: FileFormat) -> list[Placed]:
    from diffusiongpt.votes.exchange.json_files import read_jsonl, read_prompt2scores

    if file_format == "csv":
        return read_ratings(path) if "rating" in read_header(path) else read_votes(path)
    return read_jsonl(path) if file_format == "jsonl" else read_prompt2scores(path)


def _unknown(placed: Sequence[Placed], experts: Collection[str] | None) -> dict[str, str]:
    """Experts that are not there, with where each is first named."""
    strange: dict[str, str] = {}
    for one in placed:
        for expert in one.entry.experts:
            if experts is not None and expert not in experts:
                strange.setdefault(expert, one.where)
    return strange


def _refused(path: Path, strange: Mapping[str, str], experts: Collection[str]) -> VoteError:
    told = [
        f"{expert!r} ({', '.join(filter(None, (where.removeprefix(f'{path}, '), nearest(expert, experts))))})"
        for expert, where in list(strange.items())[:MOST_NAMED]
    ]
    more = f" and {len(strange) - len(told)} more" if len(strange) > len(told) else ""
    return VoteError(
        f"{path}: the zoo does not have {', '.join(told)}{more}",
        hint="Correct the ids, name the zoo that has them, or say that votes for unknown experts are to be "
        "kept or skipped (`--unknown keep`, `--unknown skip`).",
    )


def _with_evidence(
    placed: Sequence[Placed], evidence_of: Callable[[str], Mapping[str, float]] | None
) -> list[Vote | Rating]:
    if evidence_of is None:
        return [one.entry for one in placed]
    prompts = dict.fromkeys(one.entry.prompt for one in placed if not one.has_evidence)
    evidence = {prompt: evidence_of(prompt) for prompt in prompts}
    return [
        one.entry if one.has_evidence else replace(one.entry, evidence=evidence[one.entry.prompt]) for one in placed
    ]
