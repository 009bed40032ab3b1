"""A conversation as a JSON file, with its pictures in a folder beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, FailFast, Field, StringConstraints, ValidationError

from diffusiongpt.bounded import TooLargeError, check_items
from diffusiongpt.conversation.turn import MAX_TURNS, Turn, check_kept
from diffusiongpt.errors import ConversationError, PictureError, RequestError
from diffusiongpt.files import remove_leftovers, replace_file
from diffusiongpt.flow import MAX_PROMPT_CHARS, PictureRecord
from diffusiongpt.pictures import Generation, read_record
from diffusiongpt.understanding import TurnKind

Paths = tuple[Path, ...]

MAX_FILE_BYTES = 16 << 20
"""Largest conversation file that is read."""

_ALLOWED_ANEW = ("max_price", "safety")
"""Arguments that a conversation no longer has when it is read: a stranger's file may neither spend nor lift rules."""

_FileName = Annotated[str, StringConstraints(pattern=r"^[^/\\\x00-\x1f:]{1,255}$")]
"""Name of a file, and never a path."""


class _TurnFile(BaseModel):
    """A turn as a file holds it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    text: str = Field(max_length=MAX_PROMPT_CHARS)
    kind: TurnKind
    refers_to: int | None = Field(default=None, ge=0)
    picture: int = Field(default=0, ge=0)
    description: str = Field(default="", max_length=2 * MAX_PROMPT_CHARS)
    reply: str = ""  # it may quote a prompt, whose odd characters are written as ten; the file has a limit
    options: Mapping[str, Any] = Field(default_factory=dict, max_length=64)
    chosen: bool = False
    pictures: Annotated[tuple[_FileName, ...], FailFast()] = Field(default=(), max_length=64)


class _File(BaseModel):
    """A conversation as a file holds it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: int = Field(default=1, ge=1, le=1)
    pictures_in: _FileName
    # the first wrong turn is reported; an error for each of a million would take the memory
    turns: Annotated[tuple[_TurnFile, ...], FailFast()] = Field(max_length=MAX_TURNS)


def _read_file(file: Path) -> tuple[_File, bytes]:
    """What a file holds, and the digest of its bytes."""
    try:
        if not file.is_file():
            raise ConversationError(f"{file} is not a file", hint="Check the path.")
        with file.open("rb") as source:
            content = source.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConversationError(f"{file} cannot be read: {error.strerror or error}", hint="Check the path.") from error
    return _parsed(content, file), sha256(content).digest()


def _parsed(content: bytes, file: Path) -> _File:
    hint = "Pass a file that Conversation.save wrote."
    if len(content) > MAX_FILE_BYTES:
        raise ConversationError(f"{file} is larger than {MAX_FILE_BYTES >> 20} MB", hint=hint)
    try:
        check_items(content)
        return _File.model_validate_json(content)
    except TooLargeError as error:
        raise ConversationError(f"{file} is not a conversation: {error}", hint=hint) from None
    except ValidationError as error:
        # with its input, an error of a list would hold a copy of all that is in it
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ConversationError(
            f"{file} is not a whole conversation: {place + ': ' if place else ''}{first['msg']}", hint=hint
        ) from None


def _read_turn(stored: _TurnFile, folder: Path, before: Sequence[Turn], known: dict[str, PictureRecord]) -> Turn:
    index = len(before)
    if stored.refers_to is not None and stored.refers_to >= index:
        raise ConversationError(
            f"turn {index} speaks of turn {stored.refers_to}, which is not before it",
            hint="Pass a file that Conversation.save wrote.",
        )
    try:
        check_kept(stored.options)
    except RequestError as error:
        raise ConversationError(f"turn {index}: {error}", hint=error.hint) from error
    if stored.chosen:
        generation: Generation | None = _chosen_picture(stored, before)
    else:
        generation = _read_pictures(stored, folder, known) if stored.pictures else None
    said = stored.model_dump(exclude={"pictures", "options"})
    options = {name: value for name, value in stored.options.items() if name not in _ALLOWED_ANEW}
    return Turn(**said, options=options, generation=generation)


def _chosen_picture(stored: _TurnFile, before: Sequence[Turn]) -> Generation:
    shown = None if stored.refers_to is None else before[stored.refers_to].generation
    if shown is None or stored.picture >= len(shown.records) or stored.pictures:
        raise ConversationError(
            f"turn {len(before)} chooses a picture that was not drawn",
            hint="Pass a file that Conversation.save wrote.",
        )
    return shown.only(stored.picture)


def _read_pictures(stored: _TurnFile, folder: Path, known: dict[str, PictureRecord]) -> Generation:
    paths, records = [folder / name for name in stored.pictures], []
    for name, path in zip(stored.pictures, paths, strict=True):
        # a link would lead out of the folder
        if path.resolve().parent != folder.resolve() or folder.resolve().parent != folder.parent.resolve():
            raise ConversationError(f"{name} is not in {folder}", hint="A conversation keeps its pictures beside it.")
        if name in known:
            raise ConversationError(
                f"{name} is named twice", hint="Each picture belongs to one turn; pass a file that save() wrote."
            )
        try:
            known[name] = read_record(path)
            records.append(known[name])
        except PictureError as error:
            raise ConversationError(
                f"a picture of the conversation cannot be read: {error}",
                hint=f"Keep the folder {folder.name} beside it.",
            ) from error
    return Generation.kept(paths, records)


@dataclass(frozen=True)
class Saved:
    """A file with the turns of a conversation.

    Attributes:
        file: The file.
        digest: That of its bytes when it was read or written.
        paths: For the `id` of each turn, where its pictures are.
    """

    file: Path
    digest: bytes
    paths: Mapping[int, Paths]


def write_turns(turns: Sequence[Turn], path: Path, before: Saved | None) -> Saved:
    """Save turns, whole or not at all; see `Conversation.save`.

    Args:
        turns: The turns.
        path: The file.
        before: Where the conversation was read or saved last; the pictures there are not saved again.
    """
    try:
        file = path if path.suffix == ".json" else path.with_name(f"{path.name}.json")
        folder = file.with_name(f"{file.stem}-pictures")
        _check_free(file, before)
        # a folder whose name has a dot would be taken for a file if it were not there
        (folder if any(turn.generation for turn in turns) else file.parent).mkdir(parents=True, exist_ok=True)
        stored, paths = _stored(turns, folder, before.paths if before else {})
        content = _File(pictures_in=folder.name, turns=stored).model_dump_json(indent=2).encode()
        remove_leftovers(file)
        replace_file(file, content)
    except (OSError, ValueError) as error:  # a path may be none at all
        reason = getattr(error, "strerror", None) or error
        raise ConversationError(
            f"cannot write {path}: {reason}", hint="Choose a name in a folder that you may write to."
        ) from error
    return Saved(file, sha256(content).digest(), paths)


def _check_free(file: Path, before: Saved | None) -> None:
    """Refuse to replace a file of another kind, or one whose turns another process may have added to."""
    if not file.is_file():
        return
    try:
        digest = _read_file(file)[1]
    except ConversationError as error:
        raise ConversationError(
            f"{file} exists and is not a conversation", hint="Choose another name, or remove it first."
        ) from error
    if before is not None and before.file.absolute() == file.absolute() and before.digest != digest:
        raise ConversationError(
            f"{file} was changed since this conversation was read or saved", hint="Save it under another name."
        )


def _stored(
    turns: Sequence[Turn], folder: Path, known: Mapping[int, Paths]
) -> tuple[tuple[_TurnFile, ...], dict[int, Paths]]:
    """Turns as a file holds them, whose pictures are then saved, and where these are."""
    stored: list[_TurnFile] = []
    paths: dict[int, Paths] = {}
    for turn in turns:
        kept = () if turn.chosen else _kept_in(folder, turn, known.get(id(turn), ()))
        said = {one.name: getattr(turn, one.name) for one in fields(turn) if one.name != "generation"}
        stored.append(_TurnFile(**said, pictures=tuple(path.name for path in kept)))
        paths[id(turn)] = kept or _chosen_path(turn, turns, paths)
    return tuple(stored), paths


def _chosen_path(turn: Turn, turns: Sequence[Turn], paths: Mapping[int, Paths]) -> Paths:
    """The file of the earlier picture that a turn chooses; empty for a turn without a picture."""
    return (paths[id(turns[turn.refers_to])][turn.picture],) if turn.chosen and turn.refers_to is not None else ()


def _kept_in(folder: Path, turn: Turn, known: Paths) -> Paths:
    if turn.generation is None:
        return ()
    if known and all(path.parent == folder and path.is_file() for path in known):
        return known
    return tuple(turn.generation.save(folder))


def read_turns(file: Path) -> tuple[list[Turn], Saved]:
    """Read saved turns, and where the pictures of each are; see `Conversation.load`."""
    stored, digest = _read_file(file)
    folder = file.parent / stored.pictures_in
    known: dict[str, PictureRecord] = {}
    turns: list[Turn] = []
    paths: dict[int, Paths] = {}
    for one in stored.turns:
        turn = _read_turn(one, folder, turns, known)
        turns.append(turn)
        paths[id(turn)] = tuple(folder / name for name in one.pictures) or _chosen_path(turn, turns, paths)
    return turns, Saved(file, digest, paths)
