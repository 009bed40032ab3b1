"""The headers of GGUF files, checked: what tensors a file holds, on the disk or on the hub.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The package `gguf` maps a whole file into memory and
bounds nothing, so it cannot look at one that is still on the hub, or that a stranger wrote; its table of types is used.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from math import prod
from typing import Any, Final

from diffusiongpt.bounded import MAX_BYTES
from diffusiongpt.errors import NeedsExtraError

_MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)
_ALIGNMENT: Final = "general.alignment"
_USUAL_ALIGNMENT: Final = 32
LARGEST_ALIGNMENT: Final = 4_096
"""Bytes to which a file may be padded."""

_MOST_VALUES = 10_000
_MOST_TENSORS = 100_000
_LONGEST_NAME = 1_000
_MOST_SIDES = 8
_MOST_BITS = 1 << 48

_NUMBERS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Type of a value -> how `struct` names it."""

_TEXT, _LIST = 8, 9


def read_tensors(read: Callable[[int, int], bytes], step: int) -> dict[str, dict[str, Any]]:
    """Name -> type, shape and place of each tensor, as `Tensor` has them; places are counted from their beginning.

    Args:
        read: Returns a number of bytes from a position in the file, or fewer where it ends.
        step: Least number of bytes to ask for at once.

    Raises:
        ValueError: If it is not a GGUF file, or it is damaged or larger than any that a model needs.
        NeedsExtraError: If the package that knows its types is not installed.
    """
    header = _Header(read, step)
    if header.take(4) != _MAGIC:
        raise ValueError("has no GGUF header")
    version = header.number("I")
    if version not in _VERSIONS:
        raise ValueError(f"is GGUF of version {version}, and {' and '.join(map(str, _VERSIONS))} are known")
    count, values = header.number("Q"), header.number("Q")
    if count > _MOST_TENSORS or values > _MOST_VALUES:
        raise ValueError(f"has a damaged GGUF header: {count:,} tensors and {values:,} values")
    said = dict(header.value() for _ in range(values))
    alignment = said.get(_ALIGNMENT, _USUAL_ALIGNMENT)
    if not isinstance(alignment, int) or not 0 < alignment <= LARGEST_ALIGNMENT:
        raise ValueError("has a damaged GGUF header: its alignment is out of range")
    found = [header.tensor() for _ in range(count)]
    names = {name for name, _ in found}
    if len(names) != len(found):
        raise ValueError("has a damaged GGUF header: a tensor is in it twice")
    start = -(-header.at // alignment) * alignment
    return {name: _placed(tensor, start, alignment) for name, tensor in found}


def _placed(tensor: dict[str, Any], start: int, alignment: int) -> dict[str, Any]:
    first, size = tensor.pop("offset"), tensor.pop("size")
    if first % alignment:
        raise ValueError("has a damaged GGUF header: a tensor is not aligned")
    return {**tensor, "data_offsets": (start + first, start + first + size)}


class _Header:
    """The bytes of a header in order, read as they are needed."""

    def __init__(self, read: Callable[[int, int], bytes], step: int) -> None:
        self._read, self._step = read, step
        self._known = bytearray()
        self._ended = False
        self._sizes = _type_sizes()
        self.at = 0

    def take(self, count: int) -> bytes:
        """The next bytes."""
        end = self.at + count
        if end > MAX_BYTES:
            raise ValueError("has a GGUF header that is larger than any that a model needs")
        while len(self._known) < end and not self._ended:
            wanted = max(self._step, len(self._known), end - len(self._known))
            piece = self._read(len(self._known), wanted)
            self._known += piece
            self._ended = len(piece) < wanted
        if len(self._known) < end:
            raise ValueError("is cut: it ends within its GGUF header")
        piece = bytes(self._known[self.at : end])
        self.at = end
        return piece

    def number(self, form: str) -> Any:
        """The next number, in the form that `struct` names."""
        return struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}")))[0]

    def text(self, longest: int = MAX_BYTES) -> str:
        """The next text."""
        length = self.number("Q")
        if length > longest:
            raise ValueError("has a damaged GGUF header: a name is too long")
        return self.take(length).decode("utf-8", "replace")

    def value(self) -> tuple[str, Any]:
        """The next value with its name; lists are passed over."""
        name, kind = self.text(_LONGEST_NAME), self.number("I")
        if kind == _LIST:
            self._pass_list()
            return name, None
        return name, self._one(kind)

    def _one(self, kind: int) -> Any:
        if kind == _TEXT:
            return self.text()
        if kind not in _NUMBERS:
            raise ValueError(f"has a damaged GGUF header: a value of type {kind}")
        return self.number(_NUMBERS[kind])

    def _pass_list(self) -> None:
        kind, count = self.number("I"), self.number("Q")
        if kind == _LIST or count > MAX_BYTES:
            raise ValueError("has a damaged GGUF header: a list of lists, or one that is too long")
        if kind in _NUMBERS:
            self.take(count * struct.calcsize(f"<{_NUMBERS[kind]}"))
            return
        for _ in range(count):
            self._one(kind)

    def tensor(self) -> tuple[str, dict[str, Any]]:
        """The next tensor: its name, and its type, shape, place and size."""
        name, sides = self.text(_LONGEST_NAME), self.number("I")
        if sides > _MOST_SIDES:
            raise ValueError("has a damaged GGUF header: a tensor has too many sides")
        # the side that is next to each other in memory comes first
        shape = tuple(reversed([self.number("Q") for _ in range(sides)]))
        kind, offset = self.number("I"), self.number("Q")
        if kind not in self._sizes:
            raise ValueError(f"has tensors of type {kind}, which the installed gguf does not know")
        dtype, block, nbytes = self._sizes[kind]
        elements = prod(shape)
        if elements > _MOST_BITS or offset > _MOST_BITS or (shape and shape[-1] % block):
            raise ValueError("has a damaged GGUF header: a tensor has an impossible shape or place")
        return name, {"dtype": dtype, "shape": shape, "offset": offset, "size": elements // block * nbytes}


def _type_sizes() -> dict[int, tuple[str, int, int]]:
    """Number of a type -> its name, the numbers in a block of it, and the bytes of that.

    Raises:
        NeedsExtraError: If the package that knows them is not installed.
    """
    try:
        import gguf
    except ImportError as error:
        raise NeedsExtraError(
            "GGUF files need the package gguf, which is not installed", hint="pip install 'diffusiongpt[gguf]'"
        ) from error
    return {int(kind): (kind.name, *size) for kind, size in gguf.GGML_QUANT_SIZES.items()}
