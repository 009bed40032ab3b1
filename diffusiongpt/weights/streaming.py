"""A module on a device whose layers come one group after another while it computes, from the one block on the host."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from diffusiongpt.weights.layout import ALIGNMENT, Spot, views
from diffusiongpt.weights.replica import plain
from diffusiongpt.weights.transfer import finished

if TYPE_CHECKING:
    from diffusiongpt.weights.replica import Entry, Replica
    from diffusiongpt.weights.transfer import HostBlock, Send


GROUP_SHARE: Final = 0.04
"""Largest group as a share of its module; larger layers are divided further. Two groups are on the device at a time:
the one that computes and the one that comes. Models have 30 to 60 layers, each 2 to 3 % of them."""

_ALONE: Final = 8
"""What is not in a layer is a group by itself if it is larger than a group divided by this: tables of embeddings."""

_POSITIONS: Final = 1024
"""Rows of a table up to which it may be one of positions, of which models look at the shape; text encoders have 77 to
512. Stated, not measured."""


@dataclass(eq=False)
class _Group:
    """Tensors that come together.

    Attributes:
        entries: Where they are registered.
        spots: Their places in `runs`.
        runs: First and last byte (exclusive) of each stretch of the host's block that holds them.
        blocks: The bytes on the device; `None` while they are not there.
        arrived: Waits for the bytes.
        computed: Waits until nothing on the device reads them.
    """

    entries: list[Entry]
    spots: list[Spot] = field(default_factory=list)
    runs: list[tuple[int, int]] = field(default_factory=list)
    blocks: list[Any] | None = None
    arrived: Callable[[], None] | None = None
    computed: Callable[[], None] | None = None


class Streaming:
    """Lets a replica compute while at most two groups of its layers are on the device.

    While one group computes, the next one comes; which that is, is learnt from the order of the last call. What is in
    no group stays for the whole time. Nothing is copied on the host: the groups come from the block that is there.

    Args:
        replica: The replica, whose tensors are empty.
        host: The block that has their bytes.
        pieces: First and last byte of each piece of the block, which the spots of tensors refer to.
        send: Starts a copy to a device.
        share: See `GROUP_SHARE`.
    """

    def __init__(
        self,
        replica: Replica,
        host: HostBlock,
        pieces: Sequence[tuple[int, int]],
        send: Send,
        *,
        share: float = GROUP_SHARE,
    ) -> None:
        self._replica = replica
        self._host = host
        self._send = send
        self._last: _Group | None = None
        limit = share * sum(stop - start for start, stop in pieces)
        owners = {id(part): module for module in _layers(replica, limit, pieces) for part in module.modules()}
        by_module, stays = _divide(replica.packed, owners, pieces)
        self._groups = {module: _placed(entries, pieces) for module, entries in by_module.items()}
        self._stays = _placed(stays, pieces)
        order = list(self._groups.values())
        self._next = dict(zip(order, [*order[1:], *order[:1]], strict=True))
        self._undo: list[Any] = []

    def begin(self) -> None:
        """Bring what stays, and let the groups follow the computation.

        Raises:
            RuntimeError: torch's, if there is no room.
        """
        self._start(self._stays)
        self._point(self._stays)
        # these count as the replica's own, so that it is known to be on the device and frees them with the rest
        self._replica.blocks = self._stays.blocks
        for module, group in self._groups.items():
            self._undo += [
                module.register_forward_pre_hook(lambda *_, group=group: self._enter(group)),
                module.register_forward_hook(lambda *_, group=group: self._exit(group)),
            ]

    def end(self) -> None:
        """Take the hooks off, and free the groups; the caller frees what stays."""
        for hook in self._undo:
            hook.remove()
        self._undo.clear()
        for group in self._groups.values():
            self._drop(group)
        self._last = None

    def _enter(self, group: _Group) -> None:
        with plain():
            if self._last is not None:
                self._next[self._last] = group
            if group.blocks is None:
                # another one was expected
                for other in self._others(group):
                    self._drop(other)
                self._start(group)
            self._point(group)

    def _exit(self, group: _Group) -> None:
        # in this order: what is waited for is the group before, while the device computes this one
        with plain():
            group.computed = finished(self._replica.device)
            self._last = group
            following = self._next[group]
            for other in self._others(group):
                if other is not following:
                    self._drop(other)
            if following.blocks is None:
                self._start(following)

    def _others(self, group: _Group) -> list[_Group]:
        return [one for one in self._groups.values() if one is not group and one.blocks is not None]

    def _start(self, group: _Group) -> None:
        group.blocks, group.arrived = self._send(self._host, group.runs, self._replica.device)

    def _point(self, group: _Group) -> None:
        """Point tensors at their bytes, in the types that they were given while they were empty."""
        if group.arrived is None or group.blocks is None:
            return
        group.arrived()
        group.arrived = None
        for entry, view in zip(group.entries, views(group.spots, group.blocks), strict=True):
            wanted = entry.tensor.dtype
            entry.aim(view)
            if wanted != view.dtype:
                entry.tensor.data = view.to(wanted)

    def _drop(self, group: _Group) -> None:
        import torch

        if group.blocks is None:
            return
        # neither a copy that still writes nor a kernel that still reads may lose its memory
        for wait in (group.arrived, group.computed):
            if wait is not None:
                wait()
        for entry in group.entries:
            entry.aim(torch.empty(0, dtype=entry.tensor.dtype, device=self._replica.device))
        group.blocks = group.arrived = group.computed = None


def _layers(replica: Replica, limit: float, pieces: Sequence[tuple[int, int]]) -> list[Any]:
    """The modules that come and go by themselves: layers of at most `limit` bytes, and the parts of larger ones.

    Layers are what lists of modules hold. Modules of torch are taken out of a larger layer by themselves; elsewhere
    only tables of embeddings are, because some models compute with the weights of other modules without calling them.
    """
    import torch

    leaves = (torch.nn.Linear, torch.nn.Conv2d)
    own: Counter[int] = Counter()
    for entry in replica.packed:
        start, stop = _extent(entry, pieces)
        own[id(entry.owner)] += stop - start
    found: list[Any] = []

    def walk(parent: Any, *, in_layer: bool) -> None:
        if isinstance(parent, torch.nn.MultiheadAttention):
            return  # computes with the weights of its parts itself
        in_layer = in_layer or isinstance(parent, torch.nn.ModuleList)
        for child in parent.children():
            size = sum(own[id(part)] for part in child.modules())
            is_layer = isinstance(parent, torch.nn.ModuleList) and size <= limit
            is_table = isinstance(child, torch.nn.Embedding) and child.num_embeddings > _POSITIONS
            is_table = is_table and size > limit / _ALONE
            if is_layer or is_table or (in_layer and isinstance(child, leaves)):
                found.append(child)
            else:
                walk(child, in_layer=in_layer)

    walk(replica.module, in_layer=False)
    return found


def _divide(
    entries: Sequence[Entry], owners: dict[int, Any], pieces: Sequence[tuple[int, int]]
) -> tuple[dict[Any, list[Entry]], list[Entry]]:
    """The entries of each group, and those that stay: also those whose memory two groups share."""
    by_module: dict[Any, list[Entry]] = {}
    stays: list[Entry] = []
    for cluster in _clusters(entries, pieces):
        modules = {owners.get(id(entry.owner)) for entry in cluster}
        module = modules.pop()
        if modules or module is None:
            stays += cluster
        else:
            by_module.setdefault(module, []).extend(cluster)
    return by_module, stays


def _clusters(entries: Sequence[Entry], pieces: Sequence[tuple[int, int]]) -> Iterator[list[Entry]]:
    """Entries that share memory, in the order of the block."""
    cluster: list[Entry] = []
    end = 0
    for entry in sorted(entries, key=lambda one: _extent(one, pieces)):
        start, stop = _extent(entry, pieces)
        if cluster and start >= end:
            yield cluster
            cluster = []
        cluster.append(entry)
        end = max(end, stop)
    if cluster:
        yield cluster


def _placed(entries: list[Entry], pieces: Sequence[tuple[int, int]]) -> _Group:
    """A group with the stretches of the block that its tensors take, and their places in those."""
    group = _Group(entries)
    for entry in sorted(entries, key=lambda one: _extent(one, pieces)):
        start, stop = _extent(entry, pieces)
        start -= start % ALIGNMENT
        if group.runs and start <= -(-group.runs[-1][1] // ALIGNMENT) * ALIGNMENT:
            group.runs[-1] = group.runs[-1][0], max(stop, group.runs[-1][1])
        else:
            group.runs.append((start, stop))
    for entry in entries:
        start, _ = _extent(entry, pieces)
        run = bisect_right(group.runs, start, key=lambda one: one[0]) - 1
        spot = _spot(entry)
        group.spots.append(replace(spot, piece=run, offset=(start - group.runs[run][0]) // spot.dtype.itemsize))
    return group


def _extent(entry: Entry, pieces: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """First and last byte (exclusive) of a tensor in the block; it is dense there."""
    spot = _spot(entry)
    start = pieces[spot.piece][0] + spot.offset * spot.dtype.itemsize
    count = 1
    for side in spot.shape:
        count *= side
    return start, start + count * spot.dtype.itemsize


def _spot(entry: Entry) -> Spot:
    assert entry.spot is not None  # noqa: S101  # packed entries have one
    return entry.spot
