"""Export and import of votes and ratings, as files that spreadsheets and other programs read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from diffusiongpt.errors import DataError, VoteError
from diffusiongpt.votes.exchange.csv_files import read_ratings, read_votes, write_ratings, write_votes
from diffusiongpt.votes.exchange.csv_rows import read_header
from diffusiongpt.votes.exchange.problems import Located, nearest
from diffusiongpt.votes.vote import Rating

if TYPE_CHECKING:
    from diffusiongpt.votes.store import VoteStore
    from diffusiongpt.votes.vote import Vote


FileFormat = Literal["csv", "jsonl", "prompt2scores"]
Unknown = Literal["refuse", "keep", "skip"]

SUFFIXES: dict[str, FileFormat] = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "prompt2scores"}
MOST_NAMED = 10
"""Unknown experts that an error lists at most."""


@dataclass(frozen=True)
class Imported:
    """The result of an import.

    Attributes:
        votes: Number of votes that were added.
        ratings: Number of ratings that were added.
        known: Number of votes and ratings that the store had before.
        skipped: Number of votes and ratings left out because of an expert that the zoo does not have.
        unknown: Those experts, also if their votes were kept.
    """

    votes: int
    ratings: int
    known: int
    skipped: int
    unknown: tuple[str, ...]


def format_of(path: Path) -> FileFormat:
    """The format of a file, by its name.

    Raises:
        VoteError: If the suffix is not known.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise VoteError(
            f"the format of {path} is not clear from its name",
            hint=f"Pass the format (`--format`), or use one of the suffixes {', '.join(SUFFIXES)}.",
        )
    return SUFFIXES[suffix]


def export_text(store: VoteStore, file_format: FileFormat, *, ratings: bool = False) -> str:
    """All votes and ratings that count, as text.

    Args:
        store: The vote store.
        file_format: JSON Lines holds everything; CSV holds either votes or ratings.
        ratings: Whether to write ratings instead of votes as CSV.

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
    """Write a new file, completely or not at all.

    Raises:
        VoteError: If the file exists already, or cannot be written.
    """
    try:
        file = path.open("xb")
    except FileExistsError:
        raise VoteError(f"{path} exists already", hint="Name another file, or remove this one first.") from None
    except OSError as error:
        raise VoteError(f"cannot write {path}: {error.strerror}", hint="Name a file that you may write to.") from error
    try:
        with file:
            file.write(data)
    except OSError as error:
        path.unlink()
        raise VoteError(
            f"cannot write {path}: {error.strerror}", hint="Check that the disk has enough free space."
        ) from error


def import_file(
    store: VoteStore,
    path: Path,
    *,
    file_format: FileFormat | None = None,
    experts: Collection[str] | None = None,
    unknown: Unknown = "refuse",
    evidence_of: Callable[[str], Mapping[str, float]] | None = None,
    rename: Callable[[str], str | None] | None = None,
) -> Imported:
    """Record the votes and ratings of a file that the store does not have yet: all of them, or none.

    Args:
        store: The vote store.
        path: The file to import.
        file_format: Format of the file; `None` infers it from the name.
        experts: Ids of the known experts; `None` accepts any.
        unknown: Treatment of votes for other experts: `"refuse"` the file, or `"keep"` or `"skip"` those votes.
        evidence_of: Reads a prompt as probability per taxonomy node, for entries without evidence.
        rename: Finds the id of the expert that a rating of the file means by another name; `None` keeps the name.

    Raises:
        VoteError: If the file has a mistake, which is reported with its line, or the store cannot be written. In both
            cases the store is unchanged.
    """
    located = _read(path, file_format or format_of(path))
    if rename is not None:
        located = [_renamed(one, rename) for one in located]
    strange = _unknown(located, experts)
    if strange and unknown == "refuse":
        raise _refused(path, strange, experts or ())
    chosen = [one for one in located if unknown == "keep" or strange.keys().isdisjoint(one.entry.experts)]
    entries = _with_evidence(chosen, evidence_of)
    names = {one.entry.id: one.where for one in chosen}
    new = store.merge(entries, lambda entry: names[entry.id])
    return Imported(
        votes=new.votes,
        ratings=new.ratings,
        known=len(entries) - sum(new),
        skipped=len(located) - len(chosen),
        unknown=tuple(strange),
    )


def _renamed(one: Located, rename: Callable[[str], str | None]) -> Located:
    if not isinstance(one.entry, Rating):
        return one
    return replace(one, entry=replace(one.entry, expert=rename(one.entry.expert) or one.entry.expert))


def _read(path: Path, file_format: FileFormat) -> list[Located]:
    from diffusiongpt.votes.exchange.json_files import read_jsonl, read_prompt2scores

    if file_format == "csv":
        return read_ratings(path) if "rating" in read_header(path) else read_votes(path)
    return read_jsonl(path) if file_format == "jsonl" else read_prompt2scores(path)


def _unknown(located: Sequence[Located], experts: Collection[str] | None) -> dict[str, str]:
    """Experts that are not known, with the place where each is first named."""
    strange: dict[str, str] = {}
    for one in located:
        for expert in one.entry.experts:
            if experts is not None and expert not in experts:
                strange.setdefault(expert, one.where)
    return strange


def _refused(path: Path, strange: Mapping[str, str], experts: Collection[str]) -> VoteError:
    named = []
    for expert, where in list(strange.items())[:MOST_NAMED]:
        near = nearest(expert, experts)
        named.append(f"{expert!r} ({where.removeprefix(f'{path}, ')}{f', did you mean {near!r}?' if near else ''})")
    more = f" and {len(strange) - len(named)} more" if len(strange) > len(named) else ""
    return DataError(
        f"{path}: the zoo does not have {', '.join(named)}{more}",
        hint="Correct the ids, pass the zoo that has them, or keep or skip votes for unknown experts "
        "(`--unknown keep`, `--unknown skip`).",
    )


def _with_evidence(
    located: Sequence[Located], evidence_of: Callable[[str], Mapping[str, float]] | None
) -> list[Vote | Rating]:
    if evidence_of is None:
        return [one.entry for one in located]
    # each prompt is read once, however many votes it has
    prompts = dict.fromkeys(one.entry.prompt for one in located if not one.has_evidence)
    evidence = {prompt: evidence_of(prompt) for prompt in prompts}
    return [
        one.entry
        if one.has_evidence
        else replace(one.entry, evidence={**evidence[one.entry.prompt], **one.entry.evidence})
        for one in located
    ]
