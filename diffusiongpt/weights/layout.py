"""The layout of a module's tensors in one block of memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


ALIGNMENT = 64
"""Bytes; a cache line, and at least what any vector instruction requires."""

PIECE = 256 << 20
"""Largest size of one piece of a block in bytes, unless a single tensor is larger.

A device allocates piece by piece. So a tensor that something still holds keeps one piece from being used again, not
the whole component; and each piece is long enough for a copy to run at the full speed of the link.
"""


@dataclass(frozen=True, kw_only=True)
class Spot:
    """The place of a tensor in a block.

    Attributes:
        piece: Index of the piece.
        offset: Distance from the start of the piece, in elements of `dtype`.
        shape: Shape of the tensor.
        stride: Strides, in elements.
        dtype: The `torch.dtype`.
    """

    piece: int
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: Any


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The plan of a block.

    Attributes:
        spots: `id` of each tensor -> its place.
        groups: The tensors in the order of the block, those that share memory together.
        pieces: First and last byte (exclusive) of each piece of the block.
    """

    spots: dict[int, Spot]
    groups: tuple[tuple[Any, ...], ...]
    pieces: tuple[tuple[int, int], ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the block."""
        return self.pieces[-1][1] if self.pieces else 0


def is_packable(tensor: Any) -> bool:
    """Whether bytes, type, shape and strides are all there is to a tensor: no subclass, not quantised, not sparse."""
    import torch

    return (
        type(tensor) in {torch.Tensor, torch.nn.Parameter}
        and tensor.layout == torch.strided
        and not (tensor.is_quantized or tensor.is_conj() or tensor.is_neg())
    )


def lay_out(tensors: Iterable[Any], piece: int = PIECE) -> Layout:
    """Plan a block for tensors, in their order; those that share memory (tied weights, views) share it there too.

    A tensor whose elements fill its memory keeps its strides, such as those of `channels_last`; any other becomes
    contiguous.

    Args:
        tensors: The tensors to place.
        piece: Largest size of a piece in bytes, unless a single tensor is larger.
    """
    groups = _groups({id(tensor): tensor for tensor in tensors}.values())
    spots: dict[int, Spot] = {}
    pieces: list[tuple[int, int]] = []
    start = end = 0
    for group in groups:
        # Rounded up, so that every group and with it every piece begins aligned.
        size = -(-_extent(group) // ALIGNMENT) * ALIGNMENT
        if end + size - start > piece and end > start:
            pieces.append((start, end))
            start = end
        low = min(tensor.data_ptr() for tensor in group)
        for tensor in group:
            # Members keep their distances from each other, which `_groups` made sure are whole elements.
            distance = tensor.data_ptr() - low + end - start
            spots[id(tensor)] = Spot(
                piece=len(pieces),
                offset=distance // tensor.element_size(),
                shape=tuple(tensor.shape),
                stride=_stride(tensor),
                dtype=tensor.dtype,
            )
        end += size
    # A module whose tensors are all empty has one empty piece for them to point into.
    if end > start or groups:
        pieces.append((start, end))
    return Layout(spots=spots, groups=tuple(groups), pieces=tuple(pieces))


def views(spots: Iterable[Spot], pieces: Sequence[Any]) -> Iterator[Any]:
    """Tensors over the bytes of the pieces, one for each spot; no bytes are copied."""
    import torch

    # A strided view of a typed piece is one torch call per tensor instead of three, and there are thousands of tensors.
    typed: dict[tuple[int, Any], Any] = {}
    for spot in spots:
        key = spot.piece, spot.dtype
        if key not in typed:
            whole = pieces[spot.piece]
            # Cut to whole elements: torch refuses to view bytes as a type otherwise.
            typed[key] = whole[: len(whole) // spot.dtype.itemsize * spot.dtype.itemsize].view(spot.dtype)
        base = typed[key]
        yield torch.as_strided(base, spot.shape, spot.stride, base.storage_offset() + spot.offset)


def _groups(tensors: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Group tensors whose memory overlaps; each group takes the place of its first tensor in the order."""
    order = {id(tensor): at for at, tensor in enumerate(tensors)}
    # One with gaps becomes contiguous, and an empty one has no memory: neither can share.
    filled = [tensor for tensor in tensors if tensor.nbytes and _is_dense(tensor)]
    joined = [[tensor] for tensor in tensors if not (tensor.nbytes and _is_dense(tensor))]
    # In the order of addresses, a tensor overlaps its group exactly if it begins before the group's end so far.
    last: tuple[Any, int, int] = (None, 0, 0)
    for tensor in sorted(filled, key=lambda one: (str(one.device), one.data_ptr())):
        low, high = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
        device, first, end = last
        if device == tensor.device and low < end and (low - first) % tensor.element_size() == 0:
            joined[-1].append(tensor)
            last = device, first, max(end, high)
        else:
            joined.append([tensor])
            last = tensor.device, low, high
    groups = [tuple(sorted(group, key=lambda one: order[id(one)])) for group in joined]
    return sorted(groups, key=lambda group: order[id(group[0])])


def _is_dense(tensor: Any) -> bool:
    """Whether the elements fill the memory from the first to the last, in whatever order of dimensions."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True


def _stride(tensor: Any) -> tuple[int, ...]:
    import torch

    if _is_dense(tensor):
        return tuple(tensor.stride())
    return tuple(torch.empty(tensor.shape, device="meta").stride())


def _extent(group: tuple[Any, ...]) -> int:
    if len(group) == 1:
        return int(group[0].nbytes)
    low = min(tensor.data_ptr() for tensor in group)
    return int(max(tensor.data_ptr() + tensor.nbytes for tensor in group) - low)
