"""Checkpoints in one file: what a backend that loads them says of a file before it is pulled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from diffusiongpt.backends.base import Backend
from diffusiongpt.errors import LoadError

if TYPE_CHECKING:
    from diffusiongpt.zoo import Expert


Shapes = Mapping[str, tuple[int, ...]]
"""Tensor -> its sides, as the header of a file has them."""


@dataclass(frozen=True, kw_only=True)
class SingleFilePart:
    """A component of a checkpoint in one file.

    Attributes:
        package: Where its class is.
        kind: Name of its class.
        config: Its configuration.
        prefixes: Beginnings of the names of its tensors.
    """

    package: str
    kind: str
    config: Mapping[str, Any]
    prefixes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SingleFile:
    """What a checkpoint in one file is.

    Attributes:
        architecture: Its architecture, as zoo files name it.
        family: That of the plain checkpoint that it is a variant of.
        pipeline: Class of its pipeline.
        parts: Component -> what it is.
        scheduler: Configuration of its scheduler.
    """

    architecture: str
    family: str
    pipeline: str
    parts: Mapping[str, SingleFilePart]
    scheduler: Mapping[str, Any]


@runtime_checkable
class SingleFileBackend(Backend, Protocol):
    """A backend that also loads checkpoints in one file; `files` is the name of that file in all of its methods."""

    def recognise(self, name: str, shapes: Shapes) -> SingleFile:
        """What a file is, from its header alone.

        Args:
            name: Its name, for messages.
            shapes: Tensor -> shape.

        Raises:
            LoadError: If it is not a whole checkpoint of a known architecture, or cannot be built here.
        """
        ...


def for_single_files(backend: Backend, expert: Expert) -> SingleFileBackend:
    """Return the backend if it loads checkpoints in one file.

    Raises:
        LoadError: If it does not.
    """
    if isinstance(backend, SingleFileBackend):
        return backend
    raise LoadError(
        f"{expert.id} is a single file, and the backend {expert.backend!r} loads none",
        hint="Choose an expert in the layout that this backend loads.",
    )
