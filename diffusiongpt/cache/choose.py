"""Which files of a repository or folder an expert needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusiongpt.errors import PullError, UnsafeFilesError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from diffusiongpt.backends.base import Backend
    from diffusiongpt.expert import Expert

USUAL_NAME = "pytorch_lora_weights.safetensors"
"""What diffusers calls the file of an adapter unless told otherwise."""

_SAFE = ".safetensors"
_OTHER = (".bin", ".pt", ".pth", ".ckpt")
_TOLD = 5


def files_of(expert: Expert, backend: Backend, names: Sequence[str], read: Callable[[str], bytes]) -> tuple[str, ...]:
    """The files an expert needs of its own repository, those of its base left out.

    Args:
        expert: A checkpoint or an adapter.
        backend: Knows what a checkpoint needs.
        names: All files there are.
        read: Reads one of them.

    Raises:
        UnsafeFilesError: If there are weights, and none as safetensors.
        PullError: If the files do not make what the expert says it is.
    """
    if expert.kind == "adapter":
        return (adapter_file(names, expert),)
    try:
        return backend.files(names, read, variant=expert.settings.variant)
    except PullError as error:
        # of the two repositories that an adapter needs, say which
        raise type(error)(f"{expert.repo}: {error}", hint=error.hint) from error


def adapter_file(names: Iterable[str], expert: Expert) -> str:
    """The one file of an adapter: the one that is named, the usual one, or the only one.

    Raises:
        UnsafeFilesError: If the adapter is there in other formats only.
        PullError: If there is no such file, or several and none is named.
    """
    beside = [name for name in names if "/" not in name]
    found = sorted(name for name in beside if name.endswith(_SAFE))
    wanted = expert.settings.weight_name or USUAL_NAME
    if wanted in found:
        return wanted
    if expert.settings.weight_name:
        raise PullError(
            f"{expert.repo} has no file {wanted}",
            hint=f"Correct 'weight_name'; it has: {_told(found)}." if found else "Choose another repository.",
        )
    if len(found) == 1:
        return found[0]
    if found:
        raise PullError(
            f"{expert.repo} has {len(found)} adapter files, and {expert.id} names none: {_told(found)}",
            hint=f"Write one into the zoo file, for example 'weight_name: {found[0]}' under settings.",
        )
    others = sorted(name for name in beside if name.endswith(_OTHER))
    if others:
        raise UnsafeFilesError(
            f"{expert.repo} has its adapter only as {_told(others)}, not as safetensors",
            hint="Such files can run code when opened; choose a repository with safetensors, or convert this one.",
        )
    raise PullError(f"{expert.repo} has no adapter file", hint="Choose a repository with a .safetensors file in it.")


def _told(names: Sequence[str]) -> str:
    more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
    return ", ".join(names[:_TOLD]) + more
