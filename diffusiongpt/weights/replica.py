"""A replica of a module on one device: where its tensors are registered, and what they point into."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diffusiongpt.errors import LoadError
from diffusiongpt.weights.layout import Spot, views

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


@dataclass(slots=True)
class Entry:
    """One tensor where a module has registered it; without a spot it is loose."""

    owner: Any
    table: str
    name: str
    tensor: Any
    spot: Spot | None = None
    address: int = 0

    def put(self, tensor: Any) -> None:
        """Register a tensor in place of the present one."""
        # Not by `setattr`: accelerate patches `register_parameter` for the whole process while a model is built.
        getattr(self.owner, self.table)[self.name] = tensor

    def aim(self, tensor: Any) -> None:
        """Point our tensor into the memory of another one, and register it."""
        self.tensor.data = tensor
        self.address = tensor.data_ptr()
        self.put(self.tensor)

    @property
    def moved(self) -> bool:
        """Whether what is registered is no longer the tensor over the block."""
        current = getattr(self.owner, self.table).get(self.name)
        if current is not self.tensor:
            return True
        return self.spot is not None and (current.data_ptr() != self.address or current.dtype != self.spot.dtype)


class Replica:
    """The module as it is on one device.

    Attributes:
        module: The torch module.
        device: The torch device.
        blocks: The pieces of memory that its tensors point into; `None` while its weights are not here.
        packed: The tensors in the pieces.
        loose: The other tensors.
    """

    def __init__(self, module: Any, device: str, entries: Iterable[Entry]) -> None:
        self.module = module
        self.device = device
        self.blocks: list[Any] | None = None
        self.packed: list[Entry] = []
        self.loose: list[Entry] = []
        for entry in entries:
            (self.packed if entry.spot else self.loose).append(entry)

    def point(self, blocks: Sequence[Any]) -> None:
        """Point all packed tensors into pieces of memory."""
        self.blocks = list(blocks)
        self._aim(self.packed)

    def adopt(self, source: Replica) -> None:
        """Copy the loose tensors of another replica; a tied one is copied once."""
        import torch

        made: dict[int, Any] = {}
        for entry, original in zip(self.loose, source.loose, strict=True):
            tensor = original.tensor
            if id(tensor) not in made:
                copied = tensor.to(device=self.device, copy=True)
                is_weight = isinstance(tensor, torch.nn.Parameter) and not isinstance(copied, torch.nn.Parameter)
                made[id(tensor)] = torch.nn.Parameter(copied, requires_grad=False) if is_weight else copied
            entry.tensor = made[id(tensor)]
            entry.put(entry.tensor)

    def restore(self) -> None:
        """See `Weights.restore`."""
        for entry in self.loose:
            if entry.moved:
                entry.put(entry.tensor)
        changed = [entry for entry in self.packed if entry.moved]
        if changed:
            self._aim(changed)

    def drop(self) -> None:
        """Free the memory; the tensors are empty afterwards."""
        import torch

        # In the type of the spot: the tensor itself may have been changed and not restored.
        dtypes = {entry.spot.dtype for entry in self.packed if entry.spot}
        empty = {dtype: torch.empty(0, dtype=dtype, device=self.device) for dtype in dtypes}
        for entry in self.packed:
            if entry.spot:
                entry.aim(empty[entry.spot.dtype])
        for entry in self.loose:
            entry.tensor = None
            entry.put(None)
        self.blocks = None

    def replicate(self, device: str) -> Replica:
        """A replica for another device: the same structure, with tensors of its own that are still empty."""
        import torch

        self.restore()
        entries = [*self.packed, *self.loose]
        self._check_unchanged({id(entry.tensor) for entry in entries})
        # `deepcopy` takes what the memo has instead of copying it: so no bytes of the original are copied.
        memo: dict[int, Any] = {id(entry.tensor): None for entry in self.loose}
        for entry in self.packed:
            if id(entry.tensor) not in memo:
                empty = torch.empty(0, dtype=entry.tensor.dtype, device=device)
                is_weight = isinstance(entry.tensor, torch.nn.Parameter)
                memo[id(entry.tensor)] = torch.nn.Parameter(empty, requires_grad=False) if is_weight else empty
        module = copy.deepcopy(self.module, memo)
        return Replica(
            module,
            device,
            [
                Entry(memo[id(entry.owner)], entry.table, entry.name, memo[id(entry.tensor)], entry.spot)
                for entry in entries
            ],
        )

    def _check_unchanged(self, known: set[int]) -> None:
        kind = type(self.module).__name__
        if {id(entry.tensor) for entry in registered(self.module)} != known:
            raise LoadError(
                f"tensors were added to {kind} after it was packed",
                hint="Bring it to the device before putting an adapter on it.",
            )
        # Hooks for offloading and casting put a function there that is bound to this very module.
        if any("forward" in vars(owner) for owner in self.module.modules()):
            raise LoadError(
                f"a hook has replaced a `forward` in {kind}, and a replica would still call the original module",
                hint="Bring it to the device before adding such hooks.",
            )

    def _aim(self, entries: Sequence[Entry]) -> None:
        assert self.blocks is not None  # noqa: S101  # only what is here is restored
        spots = [entry.spot for entry in entries if entry.spot]
        for entry, view in zip(entries, views(spots, self.blocks), strict=True):
            entry.aim(view)


def registered(module: Any) -> list[Entry]:
    """Every parameter and buffer of a module; a tensor that is registered twice is listed twice."""
    return [
        Entry(owner, table, name, tensor)
        for owner in module.modules()
        for table in ("_parameters", "_buffers")
        for name, tensor in getattr(owner, table).items()
        if tensor is not None
    ]


@contextmanager
def plain() -> Iterator[None]:
    """Make tensors that can be written to later, also when called while something draws in inference mode."""
    import torch

    with torch.inference_mode(mode=False), torch.no_grad():
        yield
