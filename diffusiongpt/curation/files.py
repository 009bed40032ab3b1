"""Zoo entries for one file of weights, which says by its tensors what it is: a whole checkpoint, or an adapter."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any

from diffusiongpt.backends.diffusers import DiffusersBackend, is_adapter, is_embedding
from diffusiongpt.errors import RequestError
from diffusiongpt.files import expand_home
from diffusiongpt.hub import shapes_on_disk
from diffusiongpt.zoo import GGUF

if TYPE_CHECKING:
    from pathlib import Path

    from diffusiongpt.backends import Shapes
    from diffusiongpt.zoo import Zoo


SAFE = ".safetensors"

_OTHER = (".ckpt", ".pt", ".pth", ".bin", GGUF)

_SIXTEEN_BITS = 2
"""Bytes of a number as it is loaded on a GPU, whatever the file has."""


def local_file(text: str) -> Path | None:
    """The file on this machine that a text names; `None` if it names something else.

    Raises:
        RequestError: If it names a file that does not exist, or is neither safetensors nor GGUF.
    """
    name = text.strip()
    if "://" in name or not name.endswith((SAFE, *_OTHER)):
        return None
    path = expand_home(name)
    if not path.is_file():
        raise RequestError(f"{path} does not exist", hint="Check the path; it is relative to the current folder.")
    if not name.endswith((SAFE, GGUF)):
        raise RequestError(
            f"{path} is not a .safetensors or .gguf file",
            hint="Other formats can run code when they are opened. Get the file as safetensors, or convert it.",
        )
    # a link keeps its own name
    return path.parent.resolve() / path.name


def facts_of(name: str, shapes: Shapes, *, base: str | None, zoo: Zoo | None) -> dict[str, Any]:
    """What the tensors of a file say about it: its kind, architecture and sizes.

    Args:
        name: Name of the file, for messages.
        shapes: Tensor -> shape.
        base: Base of an adapter.
        zoo: A zoo that may have the base, and so know its architecture.

    Raises:
        RequestError: If it is an adapter and no base is named, or a checkpoint and one is.
        LoadError: If it is neither a known checkpoint nor an adapter.
    """
    if is_adapter(shapes) or is_embedding(shapes):
        if base is None:
            raise RequestError(
                f"{name} is an adapter, and does not say for which checkpoint",
                hint="Name the repository or the file of the checkpoint with --base.",
            )
        known = next((one.architecture for one in (zoo or {}).values() if one.repo == base), None)
        return {"kind": "adapter", "base": base, "architecture": known, "size_gb": gigabytes(_bytes(shapes, ("",)))}
    found = DiffusersBackend().recognise(name, shapes)
    if base is not None:
        raise RequestError(f"{name} is a whole checkpoint", hint="Leave out --base.")
    sizes = {component: _bytes(shapes, part.prefixes) for component, part in found.parts.items()}
    return {
        "architecture": found.architecture,
        "components": {component: gigabytes(size) for component, size in sizes.items()},
        "size_gb": gigabytes(sum(sizes.values())),
    }


def describe_file(path: Path, *, base: str | None, zoo: Zoo | None) -> Mapping[str, Any]:
    """The facts for the zoo entry of a file on this machine; errors as for `facts_of`.

    Raises:
        PullError: If the file is cut, empty or damaged.
    """
    return {"repo": str(path), **facts_of(path.name, shapes_on_disk(path), base=base, zoo=zoo)}


def gigabytes(size: int) -> float | None:
    """Size in GB, to four digits; `None` for zero."""
    return float(f"{size / 1e9:.4g}") or None


def _bytes(shapes: Shapes, prefixes: tuple[str, ...]) -> int:
    return _SIXTEEN_BITS * sum(prod(shape) for name, shape in shapes.items() if name.startswith(prefixes))
