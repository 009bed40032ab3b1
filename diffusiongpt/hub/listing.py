"""What a hub says about a repository, as data that has been checked: its commit, its files, its card."""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from diffusiongpt.bounded import TooLargeError, parse_json
from diffusiongpt.hub.answers import one_line

MAX_FILES = 10_000
"""Most files of a repository: a checkpoint has some fifty, and the largest collections of adapters a few thousand."""

M = TypeVar("M", bound=BaseModel)

_MAX_SIZE = 1 << 44
_NAME_BYTES = 255
_PATH_BYTES = 1000
_TEXTS, _TEXT_CHARS = 200, 500
_NEVER = re.compile(r"[\x00-\x1f\x7f-\x9f\\\u2028-\u202e\u2066-\u2069\ud800-\udfff]|^[A-Za-z]:")
"""Characters that make a name something else than a name, to a terminal or to a file system."""

_NOT_EVERYWHERE = re.compile(r'[:*?"<>|]')
"""Characters that not every file system can store. No checkpoint needs a file with one."""


def _safe_name(name: str) -> str:
    if not is_safe_name(name):
        raise ValueError(f"{one_line(name, 60)!r} is not the name of a file inside a repository")
    return name


def is_safe_name(name: str) -> bool:
    """Whether a name, as `folder/name`, leads to a file below the folder it is put into, on every system."""
    if _NEVER.search(name) or len(name.encode()) > _PATH_BYTES:
        return False
    return all(part.strip(" .") and len(part.encode()) <= _NAME_BYTES for part in name.split("/"))


def _is_stored_everywhere(name: str) -> bool:
    return name.isprintable() and not _NOT_EVERYWHERE.search(name)


def _texts(value: Any) -> tuple[str, ...]:
    """The texts in a field of a model card, which may hold one or several; unprintable ones are left out."""
    texts = value[:_TEXTS] if isinstance(value, list) else [value]
    return tuple(
        text.strip()
        for text in texts
        if isinstance(text, str) and text.strip() and text.isprintable() and len(text) <= _TEXT_CHARS
    )


Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, AfterValidator(_safe_name)]
Size = Annotated[int, Field(ge=0, le=_MAX_SIZE, strict=True)]
RepoName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][\w.-]{0,95}(/[A-Za-z0-9_][\w.-]{0,95})?$")]
Texts = Annotated[tuple[str, ...], BeforeValidator(_texts)]

COMMIT = re.compile(r"[0-9a-f]{40}")
HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
"""A Git blob id, or a sha256: the only ETags that may become the name of a file."""


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Large(_Said):
    """The content of a large file; listings of models and of trees name its hash differently."""

    sha256: Sha256 = Field(validation_alias=AliasChoices("sha256", "oid"))
    size: Size


class ListedFile(_Said):
    """One file of a repository.

    Attributes:
        name: `folder/name` inside the repository.
        size: Size in bytes; `None` if the hub did not state it.
        git_id: Git blob id of what Git itself keeps, which for a large file is a pointer.
        lfs: Hash and size of a large file; `None` for a small one.
    """

    name: FileName = Field(validation_alias=AliasChoices("rfilename", "path"))
    size: Size | None = None
    git_id: Commit | None = Field(default=None, validation_alias=AliasChoices("blobId", "oid"))
    lfs: _Large | None = None

    @property
    def nbytes(self) -> int:
        """Size in bytes; 0 if it is not known."""
        return self.size or (self.lfs.size if self.lfs else 0)

    @property
    def content(self) -> str | None:
        """What identifies the content: sha256 of a large file, Git blob id of a small one."""
        return self.lfs.sha256 if self.lfs else self.git_id


class Card(_Said):
    """The front matter of a model card, as far as it is read here; every field as the texts that were in it."""

    license: Texts = ()
    license_name: Texts = ()
    language: Texts = ()
    base_model: Texts = ()
    instance_prompt: Texts = ()


class RepoListing(_Said):
    """What the hub says about a repository at one commit.

    Attributes:
        name: Its present name, which is another than was asked for if it was renamed.
        commit: The commit.
        files: Its files, of which no two have the same name.
        gated: Whether its terms must be accepted first; `None` if the hub does not say.
        tags: Its tags.
        card: Its model card.
    """

    name: RepoName | None = Field(default=None, validation_alias="id")
    commit: Commit = Field(validation_alias="sha")
    files: tuple[ListedFile, ...] = Field(default=(), validation_alias="siblings", max_length=MAX_FILES)
    gated: bool | str | None = None
    tags: Texts = ()
    card: Annotated[Card, BeforeValidator(lambda value: value if isinstance(value, dict) else {})] = Field(
        default=Card(), validation_alias="cardData"
    )

    @property
    def sizes(self) -> dict[str, int]:
        """Name -> bytes of every file."""
        return {file.name: file.nbytes for file in self.files}

    @property
    def contents(self) -> dict[str, str]:
        """Name -> what identifies the content, for the files of which the hub states it."""
        return {file.name: file.content for file in self.files if file.content}


def read_listing(raw: bytes) -> RepoListing:
    """Read the answer to a question about a repository.

    Raises:
        TooLargeError: If it lists more files than a checkpoint can have.
        ValueError: If it is not one, in words that say what is wrong.
    """
    said = parse_json(raw)
    files = said.get("siblings") if isinstance(said, dict) else None
    if isinstance(files, list) and len(files) > MAX_FILES:
        raise TooLargeError(f"it lists {len(files):,} files, and at most {MAX_FILES:,} are read")
    listing = _validated(RepoListing, said)
    _check_distinct([file.name for file in listing.files])
    return listing.model_copy(
        update={"files": tuple(file for file in listing.files if _is_stored_everywhere(file.name))}
    )


class _TreeEntry(ListedFile):
    type: str = "file"


class _Tree(_Said):
    entries: tuple[_TreeEntry, ...] = Field(max_length=MAX_FILES)


def read_tree(raw: bytes) -> list[dict[str, Any]]:
    """Read one page of the listing that the hub client asks for, and return what the client may see of it.

    Raises:
        ValueError: If it is not one.
    """
    entries = _validated(_Tree, {"entries": parse_json(raw)}).entries
    _check_distinct([entry.name for entry in entries])
    files = (entry for entry in entries if entry.type == "file" and _is_stored_everywhere(entry.name))
    return [_as_client_reads(entry) for entry in files]


def _as_client_reads(entry: ListedFile) -> dict[str, Any]:
    row: dict[str, Any] = {"type": "file", "path": entry.name, "size": entry.nbytes, "oid": entry.git_id or ""}
    if entry.lfs:
        row["lfs"] = {"oid": entry.lfs.sha256, "size": entry.lfs.size, "pointerSize": 0}
    return row


def _validated(model: type[M], value: Any) -> M:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{one_line(place, 60)}: {one_line(first['msg'].removeprefix('Value error, '))}") from None


def _check_distinct(names: list[str]) -> None:
    if len(set(names)) != len(names):
        raise ValueError("two of its files have the same name")
