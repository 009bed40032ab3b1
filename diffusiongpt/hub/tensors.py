"""The headers of safetensors files, checked: what tensors a file holds, on the disk or on the hub.

Format: https://huggingface.co/docs/safetensors#format. The hub client reads headers too, but without a limit, and
neither checks their types nor compares them with the size of the file.
"""

from __future__ import annotations

from collections import Counter
from math import prod
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from diffusiongpt.bounded import MAX_BYTES, parse_json
from diffusiongpt.hub.answers import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


LENGTH_BYTES = 8
"""A file begins with the length of its header, a little-endian number of this many bytes."""

FIRST_BYTES = 100_000
"""Bytes of the first request for a header on the hub; most headers are shorter."""

Number = Annotated[int, Field(ge=0, le=1 << 48, strict=True)]


class Tensor(BaseModel):
    """One tensor of a file.

    Attributes:
        dtype: Type as safetensors names it, such as `F16` or `I64`.
        shape: Its sides.
        data_offsets: Its first byte and the one after its last, counted from the end of the header.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dtype: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,15}$")]
    shape: Annotated[tuple[Number, ...], Field(max_length=16)]
    data_offsets: tuple[Number, Number]

    @property
    def elements(self) -> int:
        """Count of its numbers."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return self.data_offsets[1] - self.data_offsets[0]


_TENSORS = TypeAdapter(dict[str, Tensor])

Header = dict[str, Tensor]
"""Name -> tensor."""


def read_header(read: Callable[[int, int], bytes]) -> tuple[Header, int]:
    """Read a header.

    Args:
        read: Returns a number of bytes from a position in the file, or fewer where it ends.

    Returns:
        The header, and the length that its tensors give the file, in bytes.

    Raises:
        ValueError: If there is none, or it is damaged or larger than any that a model needs.
    """
    first = read(0, FIRST_BYTES)
    length = int.from_bytes(first[:LENGTH_BYTES], "little")
    if len(first) < LENGTH_BYTES or not 0 < length <= MAX_BYTES:
        raise ValueError("has no safetensors header")
    raw = first[LENGTH_BYTES : LENGTH_BYTES + length]
    if len(raw) < length:
        raw += read(LENGTH_BYTES + len(raw), length - len(raw))
    tensors = _validated(raw)
    return tensors, LENGTH_BYTES + length + max((one.data_offsets[1] for one in tensors.values()), default=0)


def header_on_disk(path: Path) -> tuple[Header, int]:
    """See `read_header`.

    Raises:
        ValueError: If it has none that can be read.
        OSError: If the file cannot be read.
    """
    with path.open("rb") as stream:

        def read(start: int, count: int) -> bytes:
            stream.seek(start)
            return stream.read(count)

        return read_header(read)


def count(tensors: Mapping[str, Tensor]) -> tuple[dict[str, int], dict[str, int]]:
    """Numbers of each type, and the bytes that they take in the file."""
    elements: Counter[str] = Counter()
    stored: Counter[str] = Counter()
    for tensor in tensors.values():
        elements[tensor.dtype] += tensor.elements
        stored[tensor.dtype] += tensor.nbytes
    return dict(elements), dict(stored)


def _validated(raw: bytes) -> Header:
    try:
        said: Any = parse_json(raw.rstrip())
        if isinstance(said, dict):
            said.pop("__metadata__", None)
        tensors = _TENSORS.validate_python(said)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"has a damaged safetensors header: {one_line(first['msg'])}") from None
    except ValueError as error:
        raise ValueError(f"has a damaged safetensors header: {one_line(str(error))}") from None
    if any(tensor.nbytes < 0 for tensor in tensors.values()):
        raise ValueError("has a damaged safetensors header: a tensor ends before it begins")
    return tensors
