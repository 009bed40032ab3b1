"""Zoo entries for GGUF files: the checkpoint that one was made from, with the component that the file holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diffusiongpt.backends import Listing
from diffusiongpt.backends.diffusers import INDEX, DiffusersBackend
from diffusiongpt.bounded import parse_json
from diffusiongpt.errors import LoadError, RequestError
from diffusiongpt.hub import header_bytes, shapes_of
from diffusiongpt.zoo import GGUF, Component

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from diffusiongpt.hub import Header, RepoListing

_QUANTISED_TAG = "base_model:quantized:"
_LISTED = 8
_BY_SIZE = ("transformer", "unet")
"""What GGUF files nearly always hold, whose error is the one that helps."""


@dataclass(frozen=True, kw_only=True)
class GgufFile:
    """A GGUF file that was found.

    Attributes:
        name: Its name in its repository or folder.
        source: Where it is, as an entry says it.
        header: Its tensors.
    """

    name: str
    source: Mapping[str, Any]
    header: Header


def gguf_in(repo: str, sizes: Mapping[str, int], wanted: str | None) -> str | None:
    """The GGUF file of a repository that is meant; `None` if none is.

    Raises:
        RequestError: If there are several, and none is named.
    """
    files = sorted(name for name in sizes if name.endswith(GGUF))
    if wanted:
        return wanted if wanted in files else None
    if not files or INDEX in sizes or any(name.endswith(".safetensors") for name in sizes):
        return None
    if len(files) > 1:
        raise RequestError(
            f"{repo} has {len(files)} GGUF files", hint=f"Name one with --weight-name: {', '.join(files[:_LISTED])}."
        )
    return files[0]


def base_of(repo: str | Path, info: RepoListing | None, named: str | None) -> str:
    """The repository that a GGUF file was made from.

    Raises:
        RequestError: If it is not named, and its card does not name exactly one.
    """
    tags = {tag.removeprefix(_QUANTISED_TAG) for tag in (info.tags if info else ()) if tag.startswith(_QUANTISED_TAG)}
    found = {named} if named else tags or {*(info.card.base_model if info else ())}
    if len(found) != 1:
        raise RequestError(
            f"{repo} holds one component of a checkpoint, and does not say of which",
            hint="Name the repository that it was made from, in diffusers' layout, with --base owner/name.",
        )
    return str(found.pop())


def component_of(file: GgufFile, whole: Listing) -> str:
    """The component of a checkpoint that a file holds.

    Args:
        file: The file.
        whole: The files of the checkpoint.

    Raises:
        LoadError: If it holds none of them.
        NeedsExtraError: If the package that reads such files is not installed.
    """
    backend, refused = DiffusersBackend(), {}
    index = parse_json(whole.read(INDEX))
    names = [str(name) for name, said in index.items() if isinstance(said, list) and said[:1] == ["diffusers"]]
    own = Listing(names=(file.name,), read=lambda _: b"")
    for name in sorted(names, key=lambda one: one not in _BY_SIZE):
        if f"{name}/config.json" not in whole.names:
            continue
        taken = Component(name=name, file=file.name, subfolder=None)
        try:
            types = {one.dtype for one in file.header.values()}
            backend.check_component(taken, whole, own, shapes_of(file.header), types)
        except LoadError as error:
            refused[name] = error
        else:
            return name
    raise next(iter(refused.values()), LoadError(f"{file.name} fits no component", hint="Name another with --base."))


def described(file: GgufFile, component: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a checkpoint with one component from a file.

    Args:
        file: The file.
        component: What it holds.
        facts: Those of the checkpoint without that component.
    """
    size = float(f"{header_bytes(file.header) / 1e9:.4g}")
    parts = {**facts["components"], component: {**file.source, "size_gb": size or None}}
    total = sum(facts["components"].values()) + size
    plain = {key: value for key, value in parts[component].items() if value not in (None, {}, [])}
    return {**facts, "components": {**parts, component: plain}, "size_gb": float(f"{total:.4g}") or None}
