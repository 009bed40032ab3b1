"""Where the weights of an entry are: repositories and folders, single files in them, and what is taken from each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    model_validator,
)

from diffusiongpt.zoo.call_settings import AdapterScale, FileName, Line, Name

SAFE: Final = ".safetensors"
GGUF: Final = ".gguf"
GGUF_REMEDY: Final = (
    "a GGUF file holds one component, the denoiser, and not a whole checkpoint; name the repository that it was made "
    "from, in diffusers' layout, as 'repo', and the file under 'components', such as "
    "transformer: {repo: owner/name, file: name.gguf}"
)

Gigabytes = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]

_IN_REPO = re.compile(r"(?:(?!\.)[^/\\:\x00-\x1f\x7f-\x9f]+/)*(?!\.)[^/\\:\x00-\x1f\x7f-\x9f]+")
_ON_HUB = re.compile(r"[\w.-]+/[\w.-]+")
_LOCAL = re.compile(r"\.{1,2}/|/|~|[A-Za-z]:|\\\\")
_LOCAL_FILE = re.compile(rf"(.*[/\\])([^/\\]+(?:{re.escape(SAFE)}|{re.escape(GGUF)}))")


def is_file(place: str) -> bool:
    """Whether a place is one file of weights."""
    return place.endswith(SAFE)


def is_local(place: str) -> bool:
    """Whether a place is a folder or a file of this machine."""
    # A drive or a network share counts on every system, so that a zoo file means the same everywhere.
    return _LOCAL.match(place) is not None


def wrong_place(key: str, place: str) -> str | None:
    """What is wrong with a place that a key names; `None` if nothing is."""
    if place.endswith(GGUF):
        return f"{key} {place!r}: {GGUF_REMEDY}"
    if not is_local(place) and not _ON_HUB.fullmatch(place):
        return f"{key} {place!r} is neither owner/name nor a folder such as ./my-model"
    return None


def _in_repo(*suffixes: str) -> Callable[[str], str]:
    def check(name: str) -> str:
        if GGUF not in suffixes and name.endswith(GGUF):
            raise ValueError(GGUF_REMEDY)
        if not name.endswith(suffixes):
            loaded = " and ".join(suffixes)
            raise ValueError(f"only {loaded} files are loaded, since others can run code when opened; convert it first")
        if not _IN_REPO.fullmatch(name):
            raise ValueError(f"this is not the path of a file in a repository, such as folder/name{suffixes[0]}")
        return name

    return check


def _is_folder_in_repo(name: str) -> str:
    if not _IN_REPO.fullmatch(name):
        raise ValueError("this is not the path of a folder in a repository, such as vae")
    return name


FileInRepo = Annotated[str, StringConstraints(max_length=400), AfterValidator(_in_repo(SAFE))]
"""The path of a file in its repository, with blanks and brackets as people write them."""

ComponentFile = Annotated[str, StringConstraints(max_length=400), AfterValidator(_in_repo(SAFE, GGUF))]
"""The same of a file with the weights of one component."""

FolderInRepo = Annotated[str, StringConstraints(max_length=400), AfterValidator(_is_folder_in_repo)]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class License(_Entry):
    """Licence of the weights. Not legal advice: read the licence itself.

    Attributes:
        id: SPDX id where there is one, else the name on the model card.
        commercial: Whether it allows commercial use.
        note: The condition for commercial use, in a few words.
    """

    id: Name
    commercial: Literal["yes", "conditional", "no", "unknown"] = "unknown"
    note: Line = ""


class Guest(_Entry):
    """An adapter that an expert draws with in addition to its own.

    Attributes:
        repo: Hub repository `owner/name`, or a folder or one `.safetensors` file, as for an expert.
        revision: Commit, tag or branch; by default the commit of the first pull.
        weight_name: Its file in the repository; by default the only one, or the one with the usual name.
        scale: Its strength; below 0 it draws the opposite of what it was trained for.
        license: Licence of its weights.
    """

    repo: Line = Field(min_length=1)
    revision: Name | None = None
    weight_name: FileName | None = None
    scale: AdapterScale = 1.0
    license: License | None = None


class Source(_Entry):
    """Where the weights of one component are, if they are not in the repository of the expert.

    Attributes:
        repo: Hub repository `owner/name`, or a folder or one `.safetensors` or `.gguf` file, as for an expert.
        revision: Commit, tag or branch; by default the commit of the first pull.
        file: The one file with its weights, `.safetensors` or `.gguf`; its configuration is that of the expert's own
            repository. Without it the component is a folder with its configuration, as diffusers writes it.
        subfolder: That folder in the repository; by default its top, or else the folder of the component's name.
        size_gb: Bytes that it takes in memory, in GB (1e9).
        license: Licence of its weights.
    """

    repo: Line = Field(min_length=1)
    revision: Name | None = None
    file: ComponentFile | None = None
    subfolder: FolderInRepo | None = None
    size_gb: Gigabytes | None = None
    license: License | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Source:
        wrong = [*self._contradictions()]
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def _contradictions(self) -> Iterator[str]:
        folder, file = self.place
        if self.file and folder != self.repo:
            yield "'repo' names one file already; leave 'file' out"
        elif file and self.subfolder:
            yield "'subfolder' is for a whole folder; write the path of one file in 'file'"
        wrong = wrong_place("repo", folder)
        if wrong:
            yield wrong

    @property
    def place(self) -> tuple[str, str | None]:
        """Repository or folder, and the one file in it if it is one."""
        match = _LOCAL_FILE.fullmatch(self.repo) if is_local(self.repo) else None
        return (match[1], match[2]) if match else (self.repo, self.file)


FORMS: Final = ("(size)", "(source)")
"""What may be said of a component."""


def _form(said: object) -> str:
    return FORMS[isinstance(said, dict | Source)]


def _is_no_place(said: object) -> object:
    if isinstance(said, str) and (is_local(said) or _ON_HUB.fullmatch(said)):
        raise ValueError(f"a number is its size; where the component is, is written as {{repo: {said}}}")
    return said


Said = Annotated[
    Annotated[Gigabytes, BeforeValidator(_is_no_place), Tag(FORMS[0])] | Annotated[Source, Tag(FORMS[1])],
    Discriminator(_form),
]
"""What an entry says of a component: its size where it is in the repository, else where it is."""
