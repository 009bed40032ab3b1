"""Votes and ratings as JSON Lines, and the score file of the paper's program."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from diffusiongpt.errors import DataError, VoteError
from diffusiongpt.votes.exchange.problems import Located, content_id, did_you_mean, read_text
from diffusiongpt.votes.vote import Rating, Shown, Vote

KIND = "kind"
_KINDS: dict[str, TypeAdapter[Any]] = {"vote": TypeAdapter(Vote), "rating": TypeAdapter(Rating)}
_KEYS = {"vote": Vote, "rating": Rating, "shown": Shown}


def write_jsonl(entries: Iterable[Vote | Rating]) -> str:
    """Votes and ratings as JSON Lines."""
    lines = (
        json.dumps({KIND: "vote" if isinstance(entry, Vote) else "rating", **entry.to_record()}, ensure_ascii=False)
        for entry in entries
    )
    return "".join(f"{line}\n" for line in lines)


def read_jsonl(path: Path) -> list[Located]:
    """The votes and ratings of a file, in its order.

    Raises:
        VoteError: If a line is not a valid vote or rating, or repeats an id.
    """
    located: dict[str, Located] = {}
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        one = _read_line(line, f"{path}, line {number}")
        if one.entry.id in located:
            earlier = located[one.entry.id].where.removeprefix(f"{path}, ")
            raise DataError(
                f"{one.where}: repeats {earlier}, or has its id",
                hint="Remove one of the two, or give it an id of its own.",
            )
        located[one.entry.id] = one
    return list(located.values())


def _read_line(line: str, where: str) -> Located:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: is not JSON: {error}", hint="Write one JSON object on each line.") from error
    if not isinstance(record, dict):
        raise DataError(f"{where}: is not a JSON object", hint="Write one JSON object on each line.")
    kind = record.pop(KIND, "rating" if "rating" in record else "vote")
    if kind not in ("vote", "rating"):
        raise DataError(f"{where}: {KIND} {kind!r} is not known", hint="Use vote or rating.")
    record.setdefault("id", content_id(json.dumps(record, sort_keys=True)))
    try:
        return Located(_KINDS[kind].validate_python(record), where, has_evidence="evidence" in record)
    except ValidationError as error:
        raise _first_mistake(error, kind, where) from error
    except VoteError as error:
        raise DataError(f"{where}: {error}", hint=error.hint) from error


def _first_mistake(error: ValidationError, kind: str, where: str) -> DataError:
    """The first mistake that pydantic found."""
    first = error.errors()[0]
    location = [str(part) for part in first["loc"]]
    key = ".".join(location)
    if first["type"] != "unexpected_keyword_argument":
        return DataError(f"{where}, key {key}: {first['msg']}", hint="Correct the value, or remove the line.")
    known = [field.name for field in fields(_KEYS["shown" if len(location) > 1 else kind])]
    return DataError(
        f"{where}: unknown key {key!r}",
        hint=f"{did_you_mean(location[-1], known)} The keys are {', '.join(known)}.".strip(),
    )


SHAPE = 'Write the file as {"PROMPT": {"MODEL": {"image_reward": 0.5}}}.'


def read_prompt2scores(path: Path) -> list[Located]:
    """The score file of the paper's program: a rating for each score, with the metric as its source and voter.

    Raises:
        VoteError: If the file does not have this structure, or names a prompt or a model twice.
    """
    try:
        found = json.loads(read_text(path), object_pairs_hook=lambda pairs: _unique(path, pairs))
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}", hint=SHAPE) from error
    return [_located(path, *score) for score in _scores(path, found)]


def _scores(path: Path, found: object) -> Iterator[tuple[str, str, str, object]]:
    for prompt, models in _items(found, str(path)):
        for model, metrics in _items(models, f"{path}, prompt {prompt!r}"):
            for metric, score in _items(metrics, f"{path}, prompt {prompt!r}, model {model!r}"):
                yield prompt, model, metric, score


def _located(path: Path, prompt: str, model: str, metric: str, score: Any) -> Located:
    where = f"{path}, prompt {prompt!r}, model {model!r}, {metric}"
    key = content_id("prompt2scores", prompt, model, metric, score)
    try:
        rating = Rating(prompt=prompt, expert=model, rating=score, voter=metric, source=metric, id=key)
    except VoteError as error:
        raise DataError(f"{where}: {error}", hint=error.hint) from error
    return Located(rating, where)


def _items(value: object, where: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        raise DataError(f"{where}: is not a JSON object, but {type(value).__name__}", hint=SHAPE)
    yield from value.items()


def _unique(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise DataError(f"{path}: {key!r} appears twice", hint="Remove one of the two.")
        found[key] = value
    return found
