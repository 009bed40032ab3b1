"""Which files of a repository or folder an expert needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusiongpt.errors import PullError, UnsafeFilesError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from diffusiongpt.backends.base import Backend
    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo.expert import Expert


USUAL_NAME = "pytorch_lora_weights.safetensors"
"""What diffusers calls the file of an adapter unless told otherwise."""

_SAFE = ".safetensors"
_OTHER = (".bin", ".pt", ".pth", ".ckpt")
_TOLD = 5


def files_of(
    expert: Expert, backend: Backend, names: Sequence[str], read: Callable[[str], bytes], settings: Settings
) -> tuple[str, ...]:
    """The files an expert needs of its own repository, those of its base left out.

    Args:
        expert: A checkpoint or an adapter.
        backend: Knows what a checkpoint needs.
        names: All files there are.
        read: Reads one of them.
        settings: Whether the user allows weights that are not safetensors.

    Raises:
        UnsafeFilesError: If there are weights, and none as safetensors, and not both the zoo entry and the settings
            allow others.
        PullError: If the files do not make what the expert says it is.
    """
    if expert.kind == "adapter":
        return (adapter_file(names, expert),)
    # said only if true, so that a backend that knows nothing of it still serves
    unsafe = {"allow_unsafe": True} if may_be_unsafe(expert, settings) else {}
    try:
        return backend.files(names, read, variant=expert.settings.variant, **unsafe)
    except UnsafeFilesError as error:
        hint = _other_permission(expert, settings)
        if hint and _would_do(expert, backend, names, read):
            raise UnsafeFilesError(f"{expert.repo}: {error}", hint=hint) from error
        raise UnsafeFilesError(f"{expert.repo}: {error}", hint=error.hint) from error
    except PullError as error:
        # of the two repositories that an adapter needs, say which
        raise type(error)(f"{expert.repo}: {error}", hint=error.hint) from error


def may_be_unsafe(expert: Expert, settings: Settings) -> bool:
    """Whether weights that are not safetensors may be used: the zoo entry and the user have to say so both."""
    return expert.settings.unsafe_weights and settings.allow_unsafe_weights


def needs_unsafe(names: Iterable[str]) -> bool:
    """Whether some component has `.bin` weights and none as safetensors, by the names of the files alone."""
    inside: dict[str, set[str]] = {}
    for name in names:
        folder, _, file = name.rpartition("/")
        inside.setdefault(folder, set()).add(f".{file.rpartition('.')[2]}")
    return any(".bin" in kinds and _SAFE not in kinds for folder, kinds in inside.items() if folder)


def check_unsafe_folder(expert: Expert, settings: Settings) -> None:
    """Refuse a local folder that the zoo entry allows to be opened unsafely and the user does not.

    Raises:
        UnsafeFilesError: If it has no safetensors weights for some component.
    """
    folder = expert.folder
    if folder is None or not expert.settings.unsafe_weights or settings.allow_unsafe_weights:
        return
    if needs_unsafe(path.relative_to(folder).as_posix() for path in folder.glob("*/*")):
        raise UnsafeFilesError(
            f"the folder {folder} has weights only as .bin", hint=_other_permission(expert, settings)
        )


def _other_permission(expert: Expert, settings: Settings) -> str:
    """What is still to be allowed where one of the two has been; empty if neither was."""
    if expert.settings.unsafe_weights and not settings.allow_unsafe_weights:
        return "Such files can run code when opened. If you trust them, set DIFFUSIONGPT_ALLOW_UNSAFE_WEIGHTS=1."
    if settings.allow_unsafe_weights and not expert.settings.unsafe_weights:
        return (
            "Such files can run code when opened. If you trust them, write 'unsafe_weights: true' under the "
            "expert's settings in the zoo file."
        )
    return ""


def _would_do(expert: Expert, backend: Backend, names: Sequence[str], read: Callable[[str], bytes]) -> bool:
    try:
        backend.files(names, read, variant=expert.settings.variant, allow_unsafe=True)
    except (PullError, TypeError):
        return False
    return True


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
