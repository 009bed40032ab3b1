"""The weights of one module: packed into one block of host memory, and copied from there to devices."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from diffusiongpt.errors import LoadError, OutOfMemoryError
from diffusiongpt.weights.devices import HOST, is_out_of_memory, moving
from diffusiongpt.weights.layout import PIECE, Spot, is_packable, lay_out, views
from diffusiongpt.weights.replica import Replica, plain, registered
from diffusiongpt.weights.streaming import GROUP_SHARE, Streaming
from diffusiongpt.weights.transfer import HostBlock, Send, pin, send, trim

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


_TRIM_EVERY = 64 << 20
"""Bytes that are packed between two calls of `trim`."""


class Weights:
    """The tensors of one torch module, in host memory and on devices.

    The host block is the canonical copy: nothing may write into it, so that leaving a device copies nothing back.
    On a device the module has a replica: the same classes and structure, sharing nothing that can change, whose
    tensors point into memory of that device. It is made once and kept, so that a later swap constructs nothing.

    Calls wait for each other. The caller makes sure that nothing computes with a copy that leaves or is restored.

    Attributes:
        nbytes: Bytes that a copy takes, on the host and on any device.
        loose: How many tensors are not in the block because they are more than bytes (quantised ones and other
            subclasses). They stay as they are, and `.to` copies them.
    """

    def __init__(self, host: HostBlock, pieces: Sequence[tuple[int, int]], canonical: Replica, send: Send) -> None:
        self._host: HostBlock | None = host
        self._send = send
        self._pieces = tuple(pieces)
        self._replicas = {HOST: canonical}
        self._streams: dict[str, Streaming] = {}
        self._lock = threading.RLock()
        loose = {id(entry.tensor): entry.tensor.numel() * entry.tensor.element_size() for entry in canonical.loose}
        self.loose = len(loose)
        self.nbytes = host.nbytes + sum(loose.values())

    @classmethod
    def pack(cls, module: Any, *, piece: int = PIECE, send: Send = send) -> Weights:
        """Move the tensors of a module into one block, in place and one after another; gradients are off afterwards.

        The peak is one copy and the largest tensor. Tied weights are stored once and stay tied. Weights that were
        mapped from a file leave its pages to the system, which can drop them at any time.

        Args:
            module: A torch module on the host.
            piece: Largest size of a piece in bytes, unless a single tensor is larger.
            send: Starts a copy of the block to a device.

        Raises:
            OutOfMemoryError: If the host has no room for the block.
            LoadError: If the module is on the meta device, and so has no bytes to pack.
        """
        entries = registered(module)
        if any(entry.tensor.is_meta for entry in entries):
            raise LoadError(
                f"{type(module).__name__} has no weights yet", hint="Load the weights before packing the module."
            )
        with plain():
            for entry in entries:
                entry.tensor.requires_grad_(False)  # noqa: FBT003  # torch's own name
            plan = lay_out((entry.tensor for entry in entries if is_packable(entry.tensor)), piece)
            host = HostBlock(plan.nbytes)
            for entry in entries:
                entry.spot = plan.spots.get(id(entry.tensor))
            canonical = Replica(module, HOST, entries)
            blocks = [host.bytes[start:stop] for start, stop in plan.pieces]
            _fill(plan.groups, plan.spots, blocks)
            canonical.point(blocks)
            trim()
        return cls(host, plan.pieces, canonical, send)

    @property
    def places(self) -> frozenset[str]:
        """The devices that have a copy now, the host included."""
        return frozenset(device for device, one in tuple(self._replicas.items()) if one.blocks is not None)

    @property
    def pinned(self) -> bool:
        """Whether the host block is pinned, so that a GPU reads it without the help of the CPU."""
        return self._host is not None and self._host.pinned

    def on(self, device: str) -> Any:
        """The module whose tensors are on a device: its replica there, or for `"cpu"` the module that was packed.

        Raises:
            LoadError: If there is no copy on the device.
        """
        return self._here(device).module

    def outline(self, device: str) -> Any:
        """The module of a device as `on` returns it, but with empty tensors where the weights are not there.

        Raises:
            LoadError: If tensors were added to the host's module before it had a replica there.
        """
        with self._lock, plain():
            if device not in self._replicas:
                self._replicas[device] = self._replicas[HOST].replicate(device)
            return self._replicas[device].module

    def bring(self, device: str) -> None:
        """Copy to a device, unless a copy is there; all bytes have arrived when it returns.

        If the host has no copy, it gets one from a device.

        Before the first time for a device, the host's module must not have got an adapter, or a hook that replaces
        `forward`.

        Raises:
            OutOfMemoryError: If the place has no room for it.
            LoadError: If there is no copy to take the bytes from, or the module was changed in such a way.
        """
        self._come(device, self._come_back if device == HOST else partial(self._copy_to, device))

    def stream(self, device: str, *, share: float = GROUP_SHARE) -> None:
        """Let the replica on a device compute while its layers come group by group; `leave` ends that.

        Args:
            device: The device; the host keeps its copy.
            share: Largest group as a share of the module; two are on the device at a time.

        Raises:
            OutOfMemoryError: If there is no room for what stays on the device.
            LoadError: If the host has no copy.
        """
        self._come(device, partial(self._stream_to, device, share))

    def pin(self, device: str) -> None:
        """Pin the host's block for copies to a device now, before those of other modules take up what may be pinned."""
        with self._lock:
            if self._host is not None:
                pin(self._host, device)

    def leave(self, device: str) -> None:
        """Free the copy on a device, if there is one; for `"cpu"` the block, while copies on devices remain.

        What computed with it must have ended: see `finish`.
        """
        with moving(device), self._lock, plain():
            if device not in self.places:
                return
            if device in self._streams:
                self._streams.pop(device).end()
            self._replicas[device].drop()
            if device == HOST and self._host is not None:
                self._host.unpin()
                self._host = None

    def restore(self, device: str) -> None:
        """Put the tensors of the block back where they were replaced; cheap when nothing has changed.

        Some autoencoders turn themselves into float32 and back while they run. Tensors that were added, such as
        those of an adapter, stay.

        Raises:
            LoadError: If there is no copy on the device.
        """
        with self._lock, plain():
            self._here(device).restore()

    def free(self) -> None:
        """Free all copies; the tensors of a module that is still held elsewhere are empty afterwards."""
        for device in self.places:
            self.leave(device)

    def _come(self, device: str, work: Callable[[], None]) -> None:
        # the host may take its copy from any device
        with ExitStack() as moves:
            for place in sorted(self.places) if device == HOST else (device,):
                moves.enter_context(moving(place))
            self._come_to(device, work)

    def _come_to(self, device: str, work: Callable[[], None]) -> None:
        with self._lock, plain():
            if device in self.places:
                return
            try:
                work()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = f"{type(error).__name__}: {error}"
            else:
                return
        # After the block, since the traceback of torch's error holds the pieces that did find room.
        raise OutOfMemoryError(
            f"{self.nbytes} bytes of weights do not fit on {device}: {reason}",
            hint="Choose a smaller expert, or close other programs that use the device.",
        )

    def _stream_to(self, device: str, share: float) -> None:
        canonical = self._here(HOST)
        assert self._host is not None  # noqa: S101  # the canonical copy is here
        self.outline(device)
        replica = self._replicas[device]
        streaming = Streaming(replica, self._host, self._pieces, self._send, share=share)
        try:
            streaming.begin()
            replica.adopt(canonical)
        except BaseException:  # a Ctrl-C too must not leave memory of the device behind
            streaming.end()
            replica.drop()
            raise
        self._streams[device] = streaming

    def _copy_to(self, device: str) -> None:
        canonical = self._here(HOST)
        assert self._host is not None  # noqa: S101  # the canonical copy is here
        blocks, wait = self._send(self._host, self._pieces, device)
        try:
            try:
                # Thousands of small steps, done while the bytes travel.
                self.outline(device)
                self._replicas[device].point(blocks)
                self._replicas[device].adopt(canonical)
            finally:
                # Even after a failure: nothing may be freed that a copy under way still reads or writes.
                wait()
        except BaseException:  # as above
            if device in self._replicas:
                self._replicas[device].drop()
            raise

    def _come_back(self) -> None:
        """Fill a new block on the host from a device, into whose copy nothing may have written."""
        source = self._here(next(iter(self.places), HOST))
        assert source.blocks is not None  # noqa: S101  # it is here
        host = HostBlock(self._pieces[-1][1] if self._pieces else 0)
        blocks = [host.bytes[start:stop] for start, stop in self._pieces]
        for block, there in zip(blocks, source.blocks, strict=True):
            block.copy_(there)
        self._host = host
        self._replicas[HOST].point(blocks)
        self._replicas[HOST].adopt(source)

    def _here(self, device: str) -> Replica:
        one = self._replicas.get(device)
        if one is None or one.blocks is None:
            places = ", ".join(sorted(self.places)) or "nowhere"
            raise LoadError(f"the weights are not on {device!r} but on: {places}", hint="Bring them there first.")
        return one


def _fill(groups: Iterable[Sequence[Any]], spots: dict[int, Spot], blocks: Sequence[Any]) -> None:
    """Copy tensor by tensor and point each at its place at once, so that the memory it had is free for others."""
    since = 0
    for group in groups:
        places = list(views([spots[id(tensor)] for tensor in group], blocks))
        for tensor, place in zip(group, places, strict=True):
            place.copy_(tensor.detach())
        for tensor, place in zip(group, places, strict=True):
            tensor.data = place
        since += group[0].nbytes
        if since > _TRIM_EVERY:
            trim()
            since = 0
