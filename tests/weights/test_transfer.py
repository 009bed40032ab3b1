"""From host memory to a device: which way the bytes take, and that they all arrive."""

from __future__ import annotations

import gc
import mmap
import re
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from diffusiongpt.errors import OutOfMemoryError
from diffusiongpt.weights import Cuda, HostBlock, Weights, copy_staged, lay_out, may_pin, pinned_bytes, send_cuda, views

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

GB = 10**9


class Runtime:
    """The part of the CUDA runtime that pins memory; refuses with another code than 0."""

    def __init__(self, code: int = 0) -> None:
        self.code = code
        self.registered: dict[int, int] = {}

    def cudaHostRegister(self, address: int, nbytes: int, _flags: int) -> int:  # noqa: N802  # NVIDIA's name
        """Record the range, or refuse."""
        if self.code == 0:
            self.registered[address] = nbytes
        return self.code

    def cudaHostUnregister(self, address: int) -> int:  # noqa: N802  # NVIDIA's name
        """Forget the range, which must be known."""
        del self.registered[address]
        return 0


class Machine(Cuda):
    """Replaces CUDA on a machine without it, and counts what is waited for."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__()
        self.waits = 0
        self.registry = runtime

    def runtime(self) -> Any:
        """The stream that was given."""
        return self.registry

    @contextmanager
    def stream(self, device: str) -> Iterator[Any]:
        """A stream that only counts waits."""
        del device
        yield SimpleNamespace(synchronize=self._wait)

    def buffers(self) -> tuple[Any, ...]:
        """Small ones, not pinned."""
        import torch

        return tuple(torch.empty(1 << 10, dtype=torch.uint8) for _ in range(2))

    def start(self, target: Any, filled: Any) -> Callable[[], None]:
        """Copy at once."""
        target.copy_(filled)
        return self._wait

    def flush(self, device: str) -> None:
        """Nothing."""

    def send(self, host: HostBlock, pieces: Sequence[tuple[int, int]], device: str) -> Any:
        """Send a block as if to a CUDA device."""
        return send_cuda(host, pieces, device, self)

    def _wait(self) -> None:
        self.waits += 1


def test_at_most_two_fifths_of_the_memory_are_pinned() -> None:
    """Pinned memory is kept below 40 % of what the process may use; if that is unknown, nothing is pinned."""
    assert may_pin(4 * GB, pinned=0, memory=10 * GB)
    assert may_pin(1 * GB, pinned=3 * GB, memory=10 * GB)
    assert not may_pin(2 * GB, pinned=3 * GB, memory=10 * GB)
    assert not may_pin(1, pinned=0, memory=None)


def test_a_block_is_pinned_until_it_is_let_go() -> None:
    """A block is pinned once, counted while it is, and always unregistered before its memory is freed, on any path."""
    runtime = Runtime()
    before = pinned_bytes()
    first, second = HostBlock(3000), HostBlock(3000)
    assert first.pin(runtime, _never, memory=10_000)
    assert first.pin(runtime, _never, memory=10_000)
    assert runtime.registered == {first.bytes.data_ptr(): 3000}
    assert not second.pin(runtime, _never, memory=10_000)
    first.unpin()
    assert not first.pinned
    assert runtime.registered == {}
    assert second.pin(runtime, _never, memory=10_000)
    assert pinned_bytes() == before + 3000
    del second
    gc.collect()
    assert runtime.registered == {}
    assert pinned_bytes() == before


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTFORK"), reason="only Linux copies pinned pages when it forks")
def test_a_fork_does_not_copy_what_is_pinned() -> None:
    """A pinned block, up to two fifths of the memory, stays out of forked children, and only while it is pinned."""
    block = HostBlock(3000)
    assert "dc" not in _flags_at(block.bytes.data_ptr())
    assert block.pin(Runtime(), _never, memory=10_000)
    assert "dc" in _flags_at(block.bytes.data_ptr())
    block.unpin()
    assert "dc" not in _flags_at(block.bytes.data_ptr())


def _flags_at(address: int) -> list[str]:
    """The kernel's flags of the mapping that an address is in; `dc` is "do not copy on fork"."""
    inside = False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        span = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
        if span:
            inside = int(span[1], 16) <= address < int(span[2], 16)
        elif inside and line.startswith("VmFlags:"):
            return line.split()[1:]
    raise AssertionError("the address is in no mapping")


def test_a_refused_registration_is_cleared_and_costs_nothing() -> None:
    """CUDA would report the refusal again at the next call, whatever it is."""
    flushed: list[bool] = []
    before = pinned_bytes()
    block = HostBlock(3000)
    assert not block.pin(Runtime(code=2), lambda: flushed.append(True), memory=10_000)
    assert flushed == [True]
    assert not block.pinned
    assert not block.pin(Runtime(), _never, memory=10_000)
    assert pinned_bytes() == before
    block.unpin()


@pytest.mark.parametrize("lengths", [[10], [64], [100, 7, 200], [0, 65], []])
def test_staging_fills_no_buffer_that_is_still_travelling(lengths: list[int]) -> None:
    """Every byte arrives although each copy happens as late as it may, with two in progress at a time."""
    import torch

    source = torch.randint(0, 256, (sum(lengths),), dtype=torch.uint8)
    targets = [torch.zeros(length, dtype=torch.uint8) for length in lengths]
    under_way: list[int] = []
    most = 0

    def start(target: Any, filled: Any) -> Callable[[], None]:
        nonlocal most
        under_way.append(target.data_ptr())
        most = max(most, len(under_way))

        def arrive() -> None:
            target.copy_(filled)
            under_way.remove(target.data_ptr())

        return arrive

    copy_staged(source, targets, [torch.empty(32, dtype=torch.uint8) for _ in range(2)], start)
    assert not under_way
    assert most == min(2, sum(-(-length // 32) for length in lengths))
    assert torch.equal(torch.cat([*targets, torch.empty(0, dtype=torch.uint8)]), source)


@pytest.mark.parametrize("code", [0, 2], ids=["pinned", "staged"])
def test_both_ways_to_a_gpu_bring_the_same_bytes(code: int) -> None:
    """A pinned block is one copy and one wait; otherwise the bytes go through the two buffers."""
    import torch

    machine = Machine(Runtime(code))
    block = HostBlock(5000)
    block.bytes.copy_(torch.randint(0, 256, (5000,), dtype=torch.uint8))
    sent, wait = machine.send(block, [(0, 3000), (3000, 5000)], "cpu:1")
    wait()
    assert [len(one) for one in sent] == [3000, 2000]
    assert torch.equal(torch.cat(sent), block.bytes)
    parts = 3 + 2
    assert machine.waits == (1 if code == 0 else parts + 1)
    assert block.pinned == (code == 0)
    block.unpin()


def test_the_host_block_is_unregistered_before_it_is_freed() -> None:
    """Leaving the host unpins its block, while the copy on the device remains."""
    import torch

    machine = Machine(Runtime())
    weights = Weights.pack(torch.nn.Linear(8, 8), send=machine.send)
    weights.bring("cpu:1")
    assert weights.pinned
    assert list(machine.registry.registered.values()) == [weights.nbytes]
    weights.leave("cpu")
    assert not weights.pinned
    assert machine.registry.registered == {}
    assert weights.on("cpu:1").weight.shape == (8, 8)


def test_a_block_has_pieces_of_which_none_cuts_a_tensor() -> None:
    """Blocks stay below the limit unless one tensor is larger, and cover the weights without a gap."""
    import torch

    sizes = [10, 100, 300, 1000, 20, 16, 0]
    tensors = [torch.full((size,), float(at)) for at, size in enumerate(sizes)]
    plan = lay_out(tensors, piece=2000)
    assert [stop - start for start, stop in plan.pieces] == [64 + 448 + 1216, 4032, 128 + 64]
    assert plan.nbytes == sum(-(-size * 4 // 64) * 64 for size in sizes)
    assert [start for start, _ in plan.pieces[1:]] == [stop for _, stop in plan.pieces[:-1]]
    blocks = [torch.zeros(stop - start, dtype=torch.uint8) for start, stop in plan.pieces]
    placed = list(views([plan.spots[id(tensor)] for tensor in tensors], blocks))
    for tensor, place in zip(tensors, placed, strict=True):
        place.copy_(tensor)
    assert all(torch.equal(tensor, place) for tensor, place in zip(tensors, placed, strict=True))


def test_too_large_a_block_is_out_of_memory() -> None:
    """What the system refuses is our own error, after which the cache can make room."""
    with pytest.raises(OutOfMemoryError, match="could not be allocated"):
        HostBlock(1 << 60)


def _never() -> None:
    raise AssertionError("nothing failed")
