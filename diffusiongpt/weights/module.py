"""The weights of one module: packed into one block of host memory, and copied from there to devices."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from diffusiongpt.errors import LoadError
from diffusiongpt.weights.layout import Spot, is_packable, lay_out, views
from diffusiongpt.weights.replica import Copy, registered
from diffusiongpt.weights.transfer import HostBlock, send, trim

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


HOST = "cpu"
"""Where weights come first, and where their canonical copy is."""

_TRIM_EVERY = 64 << 20
"""Bytes packed between two calls that give freed memory back to the system."""


class Weights:
    """The tensors of one torch module, in host memory and on devices.

    The host block is the canonical copy: nothing may write into it, so that leaving a device copies nothing back.
    On a device the module has a twin: the same classes and structure, sharing nothing that can change, whose tensors
    point into memory of that device. It is made once and kept, so that a later swap constructs nothing.

    Calls wait for each other. That nobody computes with a copy while it leaves or is restored, the caller sees to.

    Attributes:
        nbytes: Bytes a copy takes, on the host and on any device.
        loose: How many tensors are not in the block, because they are more than bytes (quantised ones and other
            subclasses). They stay as they are, and `.to` makes their copies.
    """

    def __init__(self, host: HostBlock, pieces: Sequence[tuple[int, int]], canonical: Copy) -> None:
        self._host: HostBlock | None = host
        self._pieces = tuple(pieces)
        self._copies = {HOST: canonical}
        self._lock = threading.RLock()
        loose = {id(entry.tensor): entry.tensor.numel() * entry.tensor.element_size() for entry in canonical.loose}
        self.loose = len(loose)
        self.nbytes = host.nbytes + sum(loose.values())

    @classmethod
    def pack(cls, module: Any) -> Weights:
        """Move the tensors of a module into one block, in place and one after another; gradients are off afterwards.

        The peak is one copy and the largest tensor. Tied weights lie there once and stay tied. Weights that are
        mapped from a file leave its pages to the system, which can take those away at any time.

        Raises:
            OutOfMemoryError: If the host has no room for the block.
            LoadError: If the module has no bytes to pack, because it is on the meta device.
        """
        entries = registered(module)
        if any(entry.tensor.is_meta for entry in entries):
            raise LoadError(f"{type(module).__name__} has no weights yet", hint="Load them before packing.")
        with _plain():
            for entry in entries:
                entry.tensor.requires_grad_(False)  # noqa: FBT003  # torch's own name
            plan = lay_out(entry.tensor for entry in entries if is_packable(entry.tensor))
            host = HostBlock(plan.nbytes)
            for entry in entries:
                entry.spot = plan.spots.get(id(entry.tensor))
            canonical = Copy(module, HOST, entries)
            blocks = [host.bytes[start:stop] for start, stop in plan.pieces]
            _fill(plan.groups, plan.spots, blocks)
            canonical.point(blocks)
            trim()
        return cls(host, plan.pieces, canonical)

    @property
    def places(self) -> frozenset[str]:
        """Where there is a copy now."""
        return frozenset(device for device, one in tuple(self._copies.items()) if one.blocks is not None)

    @property
    def pinned(self) -> bool:
        """Whether the host block is pinned, so that a GPU reads it without help of the CPU."""
        return self._host is not None and self._host.pinned

    def on(self, device: str) -> Any:
        """The module whose tensors are on a device: its twin there, or for `"cpu"` the module that was packed.

        Raises:
            LoadError: If there is no copy on the device.
        """
        return self._here(device).module

    def outline(self, device: str) -> Any:
        """The module of a device as `on` gives it, also where its weights are not there: they are empty then.

        Raises:
            LoadError: If tensors were added to the host's module before it had a twin there.
        """
        with self._lock, _plain():
            if device not in self._copies:
                self._copies[device] = self._copies[HOST].twin(device)
            return self._copies[device].module

    def bring(self, device: str) -> None:
        """Copy to a device, unless a copy is there; all bytes have arrived when it returns.

        To the host they come back from a device, where it lacks them.

        The first time for a device, nobody may have put an adapter or a hook that replaces `forward` on the host's
        module.

        Raises:
            LoadError: If there is no copy on the host, or the module was changed so.
        """
        with self._lock, _plain():
            if device in self.places:
                return
            if device == HOST:
                self._come_back()
            else:
                self._copy_to(device)

    def leave(self, device: str) -> None:
        """Free the copy on a device, if there is one; of `"cpu"` the block, while copies on devices live on."""
        with self._lock, _plain():
            if device not in self.places:
                return
            self._copies[device].drop()
            if device == HOST and self._host is not None:
                self._host.unpin()
                self._host = None

    def restore(self, device: str) -> None:
        """Let tensors that somebody replaced be those of the block again; cheap when nothing changed.

        Some autoencoders turn themselves into float32 and back while they run. Tensors that were added, such as
        those of an adapter, stay.

        Raises:
            LoadError: If there is no copy on the device.
        """
        with self._lock, _plain():
            self._here(device).restore()

    def free(self) -> None:
        """Free all copies, also where somebody still holds a module, whose tensors are empty then."""
        with self._lock:
            for device in self.places:
                self.leave(device)

    def _copy_to(self, device: str) -> None:
        canonical = self._here(HOST)
        assert self._host is not None  # noqa: S101  # the canonical copy is here
        blocks, wait = send(self._host, self._pieces, device)
        try:
            try:
                # thousands of small steps, while the bytes travel
                self.outline(device)
                self._copies[device].point(blocks)
                self._copies[device].adopt(canonical)
            finally:
                # whatever went wrong: nothing may be freed that a copy under way still reads or writes
                wait()
        except BaseException:
            if device in self._copies:
                self._copies[device].drop()
            raise

    def _come_back(self) -> None:
        """Fill a new block on the host from a device; nothing may have written into that copy."""
        source = self._here(next(iter(self.places), HOST))
        assert source.blocks is not None  # noqa: S101  # it is here
        host = HostBlock(self._pieces[-1][1] if self._pieces else 0)
        blocks = [host.bytes[start:stop] for start, stop in self._pieces]
        for block, there in zip(blocks, source.blocks, strict=True):
            block.copy_(there)
        self._host = host
        self._copies[HOST].point(blocks)
        self._copies[HOST].adopt(source)

    def _here(self, device: str) -> Copy:
        one = self._copies.get(device)
        if one is None or one.blocks is None:
            places = ", ".join(sorted(self.places)) or "nowhere"
            raise LoadError(f"the weights are not on {device!r} but on: {places}", hint="Bring them there first.")
        return one


def _fill(groups: Iterable[Sequence[Any]], spots: dict[int, Spot], blocks: Sequence[Any]) -> None:
    """Copy tensor by tensor, and let each use its place at once, so that the memory it had is free for others."""
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


@contextmanager
def _plain() -> Iterator[None]:
    """Make tensors that can be written to later, also when called while something draws in inference mode."""
    import torch

    with torch.inference_mode(mode=False), torch.no_grad():
        yield
