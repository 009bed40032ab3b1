"""Bytes from host memory to a device, as fast as the link allows: pinned in place, or through a pinned buffer."""

from __future__ import annotations

import ctypes
import mmap
import threading
import weakref
from collections.abc import Callable
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from diffusiongpt.errors import OutOfMemoryError
from diffusiongpt.forks import free_in_child
from diffusiongpt.safe_text import logger
from diffusiongpt.weights.devices import HOST, device_memory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


log = logger("diffusiongpt.backends")

PINNED_SHARE = 0.4
"""Largest share of this process's memory that is pinned, which the system cannot move (ComfyUI's default as well)."""

STAGE = 64 << 20
"""Bytes of a staging buffer; a power of two, to which torch rounds pinned memory up (pytorch/pytorch#150517)."""

_PORTABLE = 1
"""`cudaHostRegisterPortable`: the memory is pinned for all CUDA devices of the process."""


class HostBlock:
    """Page-aligned memory that is given back to the system as soon as nothing points into it.

    Attributes:
        bytes: A `uint8` tensor over all of it.
        pinned: Whether it is registered with CUDA, so that the system leaves it in place.
    """

    def __init__(self, nbytes: int) -> None:
        import torch

        self.nbytes = nbytes
        self.pinned = False
        self._refused = False
        self._unpin: Callable[[], object] = _nothing
        self._map = _map(max(nbytes, 1))
        # torch keeps the map until the last tensor over it is gone.
        self.bytes = torch.frombuffer(self._map, dtype=torch.uint8)[:nbytes]

    def pin(self, cudart: Any, flush: Callable[[], None], memory: int | None = None) -> bool:
        """Pin the memory where it is, unless too much would be pinned or CUDA has refused before.

        Args:
            cudart: The CUDA runtime: `torch.cuda.cudart()`.
            flush: Called when it refuses, to clear the error that it would otherwise report again later.
            memory: Bytes that this process may use; what the machine and its control groups allow if left out.

        Returns:
            Whether it is pinned now.
        """
        if self.pinned or self._refused or not self.nbytes:
            return self.pinned
        address = self.bytes.data_ptr()
        # Counted before it is pinned, so that two threads cannot exceed the limit together.
        if not _PINNED.take(address, self.nbytes, memory or device_memory(HOST)):
            return False
        if int(cudart.cudaHostRegister(address, self.nbytes, _PORTABLE)) != 0:
            _PINNED.drop(address)
            self._refused = True
            flush()
            log.info("%d bytes could not be pinned; copies go through a buffer", self.nbytes)
            return False
        # The map must not be freed while it is registered, even if `unpin` is never called.
        self._unpin = weakref.finalize(self, _unregister, cudart, address)
        self._unpin.atexit = False  # the driver has shut down by then
        self.pinned = True
        # A fork copies pinned pages at once, all of them (Linux since 5.10), and CUDA does not work in its child. To
        # read them there ends the child; its studios refuse before that (`forks`).
        self._advise("MADV_DONTFORK")
        return True

    def unpin(self) -> None:
        """Let the system move the memory again; called before it is freed."""
        self._unpin()
        if self.pinned:
            self._advise("MADV_DOFORK")
        self.pinned = False

    def _advise(self, advice: str) -> None:
        with suppress(AttributeError, OSError):  # elsewhere than on Linux, and in a child that has no such pages
            self._map.madvise(getattr(mmap, advice))


class _Pinned:
    """What this process has pinned: address -> bytes.

    `drop` also runs in finalizers, which may interrupt any code, so it takes no lock and changes one thing.
    """

    def __init__(self) -> None:
        self._sizes: dict[int, int] = {}
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        return sum(tuple(self._sizes.values()))

    def take(self, address: int, nbytes: int, memory: int | None) -> bool:
        with self._lock:
            if not may_pin(nbytes, pinned=self.nbytes, memory=memory):
                return False
            self._sizes[address] = nbytes
            return True

    def drop(self, address: int) -> None:
        self._sizes.pop(address, None)


_PINNED = _Pinned()


def pinned_bytes() -> int:
    """Bytes that this process has pinned."""
    return _PINNED.nbytes


def may_pin(nbytes: int, *, pinned: int, memory: float | None) -> bool:
    """Whether `nbytes` more may be pinned beyond `pinned` bytes, in a process that may use `memory` bytes."""
    return memory is not None and pinned + nbytes <= PINNED_SHARE * memory


Send = Callable[[HostBlock, "Sequence[tuple[int, int]]", str], tuple[list[Any], Callable[[], None]]]
"""Starts a copy to a device, as `send` does."""


def send(host: HostBlock, pieces: Sequence[tuple[int, int]], device: str) -> tuple[list[Any], Callable[[], None]]:
    """Start to copy a block to a device, piece by piece.

    Args:
        host: The block; it must live until the copy is complete.
        pieces: First and last byte (exclusive) of each piece.
        device: A torch device.

    Returns:
        The pieces on the device, and a function that waits until all bytes have arrived.
    """
    if device.startswith("cuda"):
        return send_cuda(host, pieces, device, _CUDA)
    import torch

    blocks = [torch.empty(stop - start, dtype=torch.uint8, device=device) for start, stop in pieces]
    for block, (start, stop) in zip(blocks, pieces, strict=True):
        block.copy_(host.bytes[start:stop])
    return blocks, _nothing


def finish(device: str, *, everywhere: bool = False) -> None:
    """Wait for what was started on a device, before weights that it reads may leave.

    Weights that leave are free for others at once. Were a stream to be recorded on them instead, they would come free
    only behind all that was queued there, such as the drawing during which they leave.

    Args:
        device: The device.
        everywhere: On all streams of the process, and not on that of this thread alone.
    """
    if not device.startswith("cuda"):
        return
    import torch

    try:
        if everywhere:
            torch.cuda.synchronize(device)
        else:
            torch.cuda.current_stream(device).synchronize()
    except RuntimeError as error:
        # an error of the device ends all that runs there, which has reported it
        log.debug("what ran on %s failed: %s", device, error)


def finished(device: str) -> Callable[[], None]:
    """A function that waits until the work submitted so far to this thread's stream of a device has finished."""
    if not device.startswith("cuda"):
        return _nothing
    import torch

    event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch has no types here
    event.record(torch.cuda.current_stream(device))
    wait: Callable[[], None] = event.synchronize
    return wait


def pin(host: HostBlock, device: str) -> None:
    """Pin a block for a device before others take up what may be pinned; nothing where that is not done."""
    if device.startswith("cuda"):
        host.pin(_CUDA.runtime(), lambda: _CUDA.flush(device))


def copy_staged(
    source: Any,
    targets: Sequence[Any],
    buffers: Sequence[Any],
    start: Callable[[Any, Any], Callable[[], None]],
) -> None:
    """Copy through buffers: while the bytes of one travel, the next is filled.

    Args:
        source: A `uint8` tensor in host memory.
        targets: `uint8` tensors on the device, which take its bytes one after another.
        buffers: `uint8` tensors in pinned memory, all of one length.
        start: Starts the copy of the second argument into the first, and returns what waits for its end.
    """
    # One wait per buffer: a buffer may be filled again once its own bytes have travelled, while the other travels.
    waits: list[Callable[[], None]] = [_nothing] * len(buffers)
    turn = at = 0
    for target in targets:
        for begin in range(0, len(target), len(buffers[0])):
            part = target[begin : begin + len(buffers[0])]
            waits[turn]()
            filled = buffers[turn][: len(part)].copy_(source[at : at + len(part)])
            waits[turn] = start(part, filled)
            at += len(part)
            turn = (turn + 1) % len(buffers)
    for wait in waits:
        wait()


def trim() -> None:
    """Give freed memory that the C library keeps in its heap back to the system (glibc; elsewhere nothing)."""
    library = _c_library()
    if library is not None:
        library.malloc_trim(0)


class Cuda:
    """What `send_cuda` needs of torch and CUDA; a stand-in runs the same code on a machine without a GPU."""

    def __init__(self) -> None:
        self._streams: dict[str, Any] = {}
        self._buffers: tuple[Any, ...] = ()

    def runtime(self) -> Any:
        """The CUDA runtime, with `cudaHostRegister` and `cudaHostUnregister`."""
        import torch

        return torch.cuda.cudart()  # type: ignore[no-untyped-call]  # torch has no types here

    @contextmanager
    def stream(self, device: str) -> Iterator[Any]:
        """Allocate and copy on the side stream of a device while the block runs; yields it."""
        import torch

        if device not in self._streams:
            self._streams[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch has no types here
        with torch.cuda.stream(self._streams[device]):
            yield self._streams[device]

    def buffers(self) -> tuple[Any, ...]:
        """The two staging buffers in pinned memory; the caller holds the staging lock."""
        import torch

        if not self._buffers:
            self._buffers = tuple(torch.empty(STAGE, dtype=torch.uint8, device=HOST, pin_memory=True) for _ in range(2))
        return self._buffers

    def start(self, target: Any, filled: Any) -> Callable[[], None]:
        """Start a copy on the present stream; return what waits for its end."""
        import torch

        target.copy_(filled, non_blocking=True)
        sent = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch has no types here
        sent.record()
        wait: Callable[[], None] = sent.synchronize
        return wait

    def flush(self, device: str) -> None:
        """Make a call that fails: CUDA reports a refused registration again at the next call, whichever it is."""
        import torch

        try:
            torch.zeros(1, device=device).add_(1)
        except RuntimeError as error:
            log.debug("the error that was left over: %s", error)


_CUDA = Cuda()

_STAGING = free_in_child(threading.Lock())
"""Held while the staging buffers are in use. There is one pair: two copies at a time make a link no faster."""


def send_cuda(
    host: HostBlock, pieces: Sequence[tuple[int, int]], device: str, cuda: Cuda
) -> tuple[list[Any], Callable[[], None]]:
    """Start to copy a block to a CUDA device, pinned in place or through the staging buffers; see `send`."""
    import torch

    # Allocated on the side stream: so the copy need not wait for the drawing under way, and no activation is ever
    # placed among the weights.
    with cuda.stream(device) as stream:
        host.pin(cuda.runtime(), lambda: cuda.flush(device))
        blocks = [torch.empty(stop - start, dtype=torch.uint8, device=device) for start, stop in pieces]
        if host.pinned:
            for block, (start, stop) in zip(blocks, pieces, strict=True):
                block.copy_(host.bytes[start:stop], non_blocking=True)
        else:
            with _STAGING:
                copy_staged(host.bytes, blocks, cuda.buffers(), cuda.start)
    # Not waited for here: the caller has thousands of tensors to point at the blocks meanwhile.
    return blocks, stream.synchronize


def _unregister(cudart: Any, address: int) -> None:
    cudart.cudaHostUnregister(address)
    _PINNED.drop(address)


def _map(nbytes: int) -> mmap.mmap:
    try:
        if not hasattr(mmap, "MAP_ANONYMOUS"):
            return mmap.mmap(-1, nbytes)
        # Private, because many containers count shared memory as files and allow little of it. No huge pages, because
        # on some virtual machines their first use takes many times as long as that of small ones.
        return mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        reason = str(error)
    raise OutOfMemoryError(
        f"{nbytes} bytes of host memory could not be allocated: {reason}",
        hint="Choose a smaller expert, or close other programs.",
    )


@cache
def _c_library() -> Any:
    try:
        library = ctypes.CDLL(None)
    except (OSError, TypeError):
        return None
    return library if hasattr(library, "malloc_trim") else None


def _nothing() -> None:
    pass
