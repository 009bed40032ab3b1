"""A lack of memory is recognised in whatever words it comes, and placing weights reports it as ours."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch

from diffusiongpt.errors import OutOfMemoryError
from diffusiongpt.weights import Weights, is_out_of_memory, send

REAL = (
    "CUDA out of memory. Tried to allocate 2.00 GiB",
    "CUDA error: out of memory",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    "Unable to find a valid cuDNN algorithm to run convolution",
    "GET was unable to find an engine to execute this computation",
    'NVML_SUCCESS == r INTERNAL ASSERT FAILED at "../c10/cuda/CUDACachingAllocator.cpp":1090, please report a bug',
    "MPS backend out of memory (MPS allocated: 17.74 GB, other allocations: 384.00 KB, max allowed: 18.13 GB)",
    "Invalid buffer size: 16.00 GiB",
    "HIP out of memory. Tried to allocate 2.00 GiB",
)
"""Messages of torch on CUDA, ROCm and Metal, as users have reported them."""


@pytest.mark.parametrize("text", REAL)
def test_real_messages_are_recognised(text: str) -> None:
    """Of all the words that torch, cuBLAS, cuDNN, NVML and Metal have for it."""
    assert is_out_of_memory(RuntimeError(text))


@pytest.mark.parametrize(("free", "expected"), [(200 << 20, True), (8 << 30, False)])
def test_an_ambiguous_message_counts_only_where_memory_is_low(
    monkeypatch: pytest.MonkeyPatch, free: int, expected: bool
) -> None:
    """CuBLAS that cannot start on a GPU with gigabytes free has another problem; clear words need no such proof."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _: (free, 24 << 30))
    assert is_out_of_memory(RuntimeError(REAL[3])) is expected
    assert is_out_of_memory(RuntimeError(REAL[1]))


def test_other_errors_are_not_taken_for_it() -> None:
    """Neither by type nor by words."""
    assert not is_out_of_memory(RuntimeError("The size of tensor a (16) must match the size of tensor b (0)"))
    assert not is_out_of_memory(ValueError("out of memory"))


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, RuntimeError, MemoryError])
def test_placing_without_room_is_our_error(kind: type[Exception]) -> None:
    """It holds nothing of what did find room, nothing stays on the device, and a second try can succeed."""
    held: list[weakref.ref[torch.Tensor]] = []

    def crowded(host: Any, pieces: Any, device: str) -> Any:
        blocks, wait = send(host, pieces, device)
        if not held:
            held.extend(weakref.ref(block) for block in blocks)
            raise kind("CUDA out of memory. Tried to allocate 256.00 MiB.")
        return blocks, wait

    weights = Weights.pack(torch.nn.Linear(8, 8), send=crowded)
    with pytest.raises(OutOfMemoryError, match="do not fit on cpu:1") as caught:
        weights.bring("cpu:1")
    gc.collect()
    assert caught.value.retryable
    assert [block() for block in held] == [None]
    assert weights.places == {"cpu"}
    weights.bring("cpu:1")
    assert weights.places == {"cpu", "cpu:1"}
