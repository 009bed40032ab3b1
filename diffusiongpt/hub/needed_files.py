"""Which files of a repository or folder an expert needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffusiongpt.backends import PEFT_CONFIG, for_adapters, for_components
from diffusiongpt.errors import LoadError, PullError, UnsafeFilesError
from diffusiongpt.hub.records import key_of
from diffusiongpt.hub.single_file import named_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from diffusiongpt.backends import Backend
    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo import Expert


USUAL_NAME = "pytorch_lora_weights.safetensors"
"""Default name of the file of an adapter in diffusers."""

_CONFIG = "config.json"
_USUAL_CONTROL = ("diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.safetensors")
"""Names of the weights of a ControlNet, the smaller file first."""

_SAFE = ".safetensors"
_OTHER = (".bin", ".pt", ".pth", ".ckpt")
_LISTED = 5
"""Most file names that a message lists."""


def names_in(folder: Path) -> tuple[str, ...]:
    """All files in a folder, as `folder/name` paths."""
    return tuple(path.relative_to(folder).as_posix() for path in folder.glob("**/*") if path.is_file())


def files_of(
    expert: Expert, backend: Backend, names: Sequence[str], read: Callable[[str], bytes], settings: Settings
) -> tuple[str, ...]:
    """The files an expert needs of its own repository or folder, without those of its base or from elsewhere.

    Args:
        expert: A checkpoint, a component or an adapter.
        backend: Chooses the files of a checkpoint.
        names: Names of all files in the repository or folder.
        read: Reads one of them.
        settings: Whether the user allows weights that are not safetensors.

    Raises:
        UnsafeFilesError: If the weights are not safetensors, unless both the zoo entry and the settings allow that.
        PullError: If the files are not a complete checkpoint or adapter.
        LoadError: If the checkpoint needs what is not installed, or is for another task than drawing from text.
    """
    if expert.kind == "control":
        config, weights = control_files(names, expert)
        try:
            for_adapters(backend, expert).check_control(read(config))
        except (PullError, LoadError) as error:
            raise type(error)(f"{expert.repo}: {error}", hint=error.hint) from error
        return config, weights
    if expert.kind == "adapter":
        return guest_files(names, expert)
    if expert.single_file:
        return (named_file(names, expert),)
    # passed only if true, so that backends without this argument still work
    unsafe = {"allow_unsafe": True} if may_be_unsafe(expert, settings) else {}
    try:
        return _chosen(expert, backend, names, read, **unsafe)
    except UnsafeFilesError as error:
        hint = _other_permission(expert, settings)
        if hint and _usable_if_unsafe(expert, backend, names, read):
            raise UnsafeFilesError(f"{expert.repo}: {error}", hint=hint) from error
        raise UnsafeFilesError(f"{expert.repo}: {error}", hint=error.hint) from error
    except (PullError, LoadError) as error:
        # an expert may need several repositories: say which one it is
        raise type(error)(f"{expert.repo}: {error}", hint=error.hint) from error


def _chosen(
    expert: Expert, backend: Backend, names: Sequence[str], read: Callable[[str], bytes], **unsafe: bool
) -> tuple[str, ...]:
    """The files that a backend chooses for a checkpoint or a component."""
    variant = expert.settings.variant
    if expert.component is not None:
        return for_components(backend, expert).component_files(expert.component, names, read, variant=variant, **unsafe)
    if expert.elsewhere:
        composing, without = for_components(backend, expert.elsewhere[0]), key_of(expert).without
        return composing.files(names, read, variant=variant, without=without, **unsafe)
    return backend.files(names, read, variant=variant, **unsafe)


def may_be_unsafe(expert: Expert, settings: Settings) -> bool:
    """Whether weights other than safetensors may be used: both the zoo entry and the user must allow it."""
    return expert.settings.unsafe_weights and settings.allow_unsafe_weights


def needs_unsafe(names: Iterable[str]) -> bool:
    """Whether some component has `.bin` weights and no safetensors, judging by the names of the files."""
    inside: dict[str, set[str]] = {}
    for name in names:
        folder, _, file = name.rpartition("/")
        inside.setdefault(folder, set()).add(f".{file.rpartition('.')[2]}")
    return any(".bin" in kinds and _SAFE not in kinds for folder, kinds in inside.items() if folder)


def check_unsafe_folder(expert: Expert, settings: Settings) -> None:
    """Refuse a local folder whose unsafe weights the zoo entry allows and the user does not.

    Raises:
        UnsafeFilesError: If some component has no safetensors weights.
    """
    folder = expert.folder
    if folder is None or not expert.settings.unsafe_weights or settings.allow_unsafe_weights:
        return
    if needs_unsafe(path.relative_to(folder).as_posix() for path in folder.glob("*/*")):
        raise UnsafeFilesError(
            f"the folder {folder} has weights only as .bin", hint=_other_permission(expert, settings)
        )


def _other_permission(expert: Expert, settings: Settings) -> str:
    """A hint that names the missing permission if one of the two is given; empty if neither is."""
    if expert.settings.unsafe_weights and not settings.allow_unsafe_weights:
        return "Such files can run code when opened. If you trust them, set DIFFUSIONGPT_ALLOW_UNSAFE_WEIGHTS=1."
    if settings.allow_unsafe_weights and not expert.settings.unsafe_weights:
        return (
            "Such files can run code when opened. If you trust them, write 'unsafe_weights: true' under the "
            "expert's settings in the zoo file."
        )
    return ""


def _usable_if_unsafe(expert: Expert, backend: Backend, names: Sequence[str], read: Callable[[str], bytes]) -> bool:
    try:
        _chosen(expert, backend, names, read, allow_unsafe=True)
    except (PullError, LoadError, TypeError):
        return False
    return True


def guest_files(names: Iterable[str], expert: Expert) -> tuple[str, ...]:
    """The files of an adapter or of a ControlNet, by their names alone; errors as for `adapter_file`."""
    known = tuple(names)
    if expert.kind == "control":
        return control_files(known, expert)
    return (adapter_file(known, expert), *(name for name in known if name == PEFT_CONFIG))


def control_files(names: Iterable[str], expert: Expert) -> tuple[str, str]:
    """The configuration and the weights of a ControlNet; errors as for `adapter_file`."""
    at_top = [name for name in names if "/" not in name]
    if _CONFIG not in at_top:
        raise PullError(
            f"{expert.repo} has no {_CONFIG}, so it is not a ControlNet in diffusers' layout",
            hint="Choose a repository with config.json and diffusion_pytorch_model.safetensors.",
        )
    usual = next((name for name in _USUAL_CONTROL if name in at_top and not expert.weight_file), None)
    return _CONFIG, usual or adapter_file(at_top, expert)


def adapter_file(names: Iterable[str], expert: Expert) -> str:
    """The one file of an adapter: the one that the zoo entry names, otherwise the usual one or the only one.

    Raises:
        UnsafeFilesError: If the adapter exists only in other formats.
        PullError: If there is no such file, or there are several and none is named.
    """
    at_top = [name for name in names if "/" not in name]
    found = sorted(name for name in at_top if name.endswith(_SAFE))
    wanted = expert.weight_file or USUAL_NAME
    if wanted in found:
        return wanted
    if expert.weight_file:
        raise PullError(
            f"{expert.repo} has no file {wanted}",
            hint=f"Correct 'weight_name'; it has: {_listed(found)}." if found else "Choose another repository.",
        )
    if len(found) == 1:
        return found[0]
    if found:
        raise PullError(
            f"{expert.repo} has {len(found)} adapter files, and {expert.id} does not name one: {_listed(found)}",
            hint=f"Write one into the zoo file, for example 'weight_name: {found[0]}' under settings.",
        )
    others = sorted(name for name in at_top if name.endswith(_OTHER))
    if others:
        raise UnsafeFilesError(
            f"{expert.repo} has its adapter only as {_listed(others)}, not as safetensors",
            hint="Such files can run code when opened. Choose a repository with safetensors, or convert this one.",
        )
    raise PullError(f"{expert.repo} has no adapter file", hint="Choose a repository with a .safetensors file.")


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
