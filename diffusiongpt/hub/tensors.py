"""The headers of weight files, checked: what tensors a file holds, on the disk or on the hub.

Those of safetensors are read here: https://huggingface.co/docs/safetensors#format. The hub client reads them too, but
without a limit, and neither checks their types nor compares them with the size of the file.
"""

from __future__ import annotations

from collections import Counter
from math import prod
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from diffusiongpt.bounded import MAX_BYTES, parse_json
from diffusiongpt.hub.answers import one_line
from diffusiongpt.hub.gguf import LARGEST_ALIGNMENT, read_tensors
from diffusiongpt.zoo import GGUF

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
        dtype: Type as the format names it, such as `F16`, `I64` or `Q4_K`.
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


FORMATS = (".safetensors", GGUF)
"""Suffixes of the files whose headers are read."""


def read_header(name: str, read: Callable[[int, int], bytes]) -> tuple[Header, int]:
    """Read a header.

    Args:
        name: Name of the file, which says its format.
        read: Returns a number of bytes from a position in the file, or fewer where it ends.

    Returns:
        The header, and the length that its tensors give the file, in bytes.

    Raises:
        ValueError: If there is none, or it is damaged or larger than any that a model needs.
        NeedsExtraError: If the format needs a package that is not installed.
    """
    if name.endswith(GGUF):
        tensors = _validated(read_tensors(read, FIRST_BYTES))
        return tensors, max((one.data_offsets[1] for one in tensors.values()), default=0)
    first = read(0, FIRST_BYTES)
    length = int.from_bytes(first[:LENGTH_BYTES], "little")
    if len(first) < LENGTH_BYTES or not 0 < length <= MAX_BYTES:
        raise ValueError("has no safetensors header")
    raw = first[LENGTH_BYTES : LENGTH_BYTES + length]
    if len(raw) < length:
        raw += read(LENGTH_BYTES + len(raw), length - len(raw))
    tensors = _validated(_parsed(raw))
    return tensors, LENGTH_BYTES + length + max((one.data_offsets[1] for one in tensors.values()), default=0)


def is_whole(name: str, stated: int, size: int) -> bool:
    """Whether a file has the length that its header gives it; one of GGUF may be padded."""
    return 0 <= size - stated < (LARGEST_ALIGNMENT if name.endswith(GGUF) else 1)


def header_on_disk(path: Path, name: str | None = None) -> tuple[Header, int]:
    """See `read_header`.

    Args:
        path: The file.
        name: Its name in the repository, which says its format; `None` for the name it has here.

    Raises:
        ValueError: If it has none that can be read.
        NeedsExtraError: As for `read_header`.
        OSError: If the file cannot be read.
    """
    with path.open("rb") as stream:

        def read(start: int, count: int) -> bytes:
            stream.seek(start)
            return stream.read(count)

        return read_header(name or path.name, read)


def count(tensors: Mapping[str, Tensor]) -> tuple[dict[str, int], dict[str, int]]:
    """Numbers of each type, and the bytes that they take in the file."""
    elements: Counter[str] = Counter()
    stored: Counter[str] = Counter()
    for tensor in tensors.values():
        elements[tensor.dtype] += tensor.elements
        stored[tensor.dtype] += tensor.nbytes
    return dict(elements), dict(stored)


def _parsed(raw: bytes) -> Any:
    try:
        said: Any = parse_json(raw.rstrip())
    except ValueError as error:
        raise ValueError(f"has a damaged safetensors header: {one_line(str(error))}") from None
    if isinstance(said, dict):
        said.pop("__metadata__", None)
    return said


def _validated(said: Any) -> Header:
    try:
        tensors = _TENSORS.validate_python(said)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"has a damaged header: {one_line(first['msg'])}") from None
    if any(tensor.nbytes < 0 for tensor in tensors.values()):
        raise ValueError("has a damaged header: a tensor ends before it begins")
    return tensors
