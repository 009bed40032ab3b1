"""Checkpoints in one file, looked at before they are pulled or loaded: by their headers, on the hub or on this disk."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from diffusiongpt.backends import for_single_files
from diffusiongpt.errors import LoadError, PullError
from diffusiongpt.hub.client import part_reader
from diffusiongpt.hub.tensors import header_on_disk, is_whole, read_header

if TYPE_CHECKING:
    from pathlib import Path

    from diffusiongpt.backends import Backend, Shapes
    from diffusiongpt.hub.tensors import Header
    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo import Expert


_LISTED = 5
_CUT = "Get a complete copy of the file, or choose another."


def named_file(names: Iterable[str], expert: Expert) -> str:
    """The file that an expert names.

    Raises:
        PullError: If it is not there.
    """
    there = [*names]
    wanted = str(expert.single_file)
    if wanted in there:
        return wanted
    others = sorted(name for name in there if name.endswith(".safetensors"))[:_LISTED]
    hint = f"Correct 'file' in the zoo file; it has: {', '.join(others)}." if others else "Choose another repository."
    raise PullError(f"{expert.repo} has no file {wanted}", hint=hint)


def read_on_disk(path: Path, name: str | None = None) -> Header:
    """The header of a file here.

    Args:
        path: The file.
        name: Its name in the repository, which says its format; `None` for the name it has here.

    Raises:
        PullError: If it is cut, empty or damaged.
    """
    own = name or path.name
    try:
        header, stated = header_on_disk(path, own)
        _check_size(own, stated, path.stat().st_size)
    except ValueError as error:
        raise PullError(f"{path} {error}", hint=_CUT) from error
    return header


def read_on_hub(settings: Settings, repo: str, commit: str, name: str, size: int) -> Header:
    """The same of a file on the hub, of which a small part is read.

    Raises:
        PullError: If it is cut, empty or damaged, or the hub fails.
    """
    try:
        header, stated = read_header(name, partial(part_reader(settings, repo, commit), name))
        _check_size(name, stated, size)
    except ValueError as error:
        raise PullError(f"{name} of {repo} {error}", hint=_CUT) from error
    return header


def shapes_on_disk(path: Path) -> Shapes:
    """Tensor -> shape of a file here; errors as for `read_on_disk`."""
    return shapes_of(read_on_disk(path))


def shapes_on_hub(settings: Settings, repo: str, commit: str, name: str, size: int) -> Shapes:
    """The same of a file on the hub; errors as for `read_on_hub`."""
    return shapes_of(read_on_hub(settings, repo, commit, name, size))


def check_recognised(expert: Expert, backend: Backend, shapes: Shapes) -> None:
    """Refuse a file that a backend cannot load.

    Raises:
        LoadError: With the place of the file.
    """
    name = str(expert.single_file)
    try:
        for_single_files(backend, expert).recognise(name, shapes)
    except LoadError as error:
        raise LoadError(f"{expert.repo}: {error}", hint=error.hint) from error


def _check_size(name: str, stated: int, size: int) -> None:
    if not is_whole(name, stated, size):
        raise ValueError(f"is cut or damaged: its header says {stated:,} bytes, and it has {size:,}")


def shapes_of(header: Header) -> Shapes:
    """Tensor -> shape."""
    return {name: tensor.shape for name, tensor in header.items()}
