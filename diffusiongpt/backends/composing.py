"""Checkpoints whose components come from several repositories: what a backend that builds them is asked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from diffusiongpt.backends.base import Backend, Component, Loaded, Part
from diffusiongpt.bounded import read_bounded
from diffusiongpt.errors import LoadError

if TYPE_CHECKING:
    from diffusiongpt.backends.single_file import Shapes
    from diffusiongpt.zoo import Component as Taken
    from diffusiongpt.zoo import Expert


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The files of one repository that are used, on the hub or on this disk.

    Attributes:
        names: Their names, as `folder/name` paths.
        read: Reads a small one of them.
    """

    names: tuple[str, ...]
    read: Callable[[str], bytes]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a component from elsewhere is on this disk, or the checkpoint itself.

    Attributes:
        folder: The folder of its repository.
        files: The files in it that `component_files` or `files` chose, as `folder/name` paths.
    """

    folder: Path
    files: tuple[str, ...]

    @property
    def listing(self) -> Listing:
        """What is there."""
        return Listing(names=self.files, read=lambda name: read_bounded(self.folder / name))


@runtime_checkable
class ComposingBackend(Backend, Protocol):
    """A backend that builds checkpoints of which some components come from other repositories.

    Its other methods have one more argument, which is passed only for such checkpoints: `files` is given the names of
    those components, whose weights are left out, and `components` and `load` where each of them is. A `Component` that
    they name has its files there.
    """

    def component_files(
        self,
        taken: Taken,
        names: Sequence[str],
        read: Callable[[str], bytes],
        *,
        variant: str | None,
        allow_unsafe: bool = False,
    ) -> tuple[str, ...]:
        """Choose the files of one component in a repository; arguments and errors as for `files`.

        Args:
            taken: Which component it is, and which folder or file of the repository.
            names: All files of the repository, as `folder/name` paths.
            read: Reads one of them; a small download.
            variant: Preferred file variant, such as `fp16`.
            allow_unsafe: Whether weights other than safetensors may be used; passed only if true.
        """
        ...

    def check_component(
        self, taken: Taken, whole: Listing, own: Listing, shapes: Shapes | None, types: Collection[str] = ()
    ) -> None:
        """Refuse a component that does not fit into its checkpoint, before its weights are pulled.

        Args:
            taken: Which component it is.
            whole: The files of the checkpoint.
            own: The files of the component.
            shapes: Tensor -> shape of its weights, where one file has them all.
            types: Types of the tensors in a GGUF file; passed only for such a file.

        Raises:
            PullError, LoadError: If it does not fit, or cannot be loaded here.
        """
        ...

    def files(
        self,
        names: Sequence[str],
        read: Callable[[str], bytes],
        *,
        variant: str | None,
        allow_unsafe: bool = False,
        without: Collection[str] = (),
    ) -> tuple[str, ...]:
        """See `Backend.files`."""
        ...

    def components(
        self,
        expert: Expert,
        folder: Path,
        files: Sequence[str],
        *,
        device: str,
        elsewhere: Mapping[str, Place] | None = None,
    ) -> tuple[Component, ...]:
        """See `Backend.components`."""
        ...

    def load(
        self,
        expert: Expert,
        folder: Path,
        files: Sequence[str],
        *,
        device: str,
        have: Mapping[str, Part],
        elsewhere: Mapping[str, Place] | None = None,
    ) -> Loaded:
        """See `Backend.load`."""
        ...


def for_components(backend: Backend, expert: Expert) -> ComposingBackend:
    """Return the backend if it takes components from other repositories.

    Raises:
        LoadError: If it does not.
    """
    if isinstance(backend, ComposingBackend):
        return backend
    raise LoadError(
        f"{expert.id} takes a component from {expert.repo}, and the backend {expert.backend!r} takes all of a "
        "checkpoint from one repository",
        hint="Leave the repository out of 'components' in the zoo file, or choose another expert.",
    )
