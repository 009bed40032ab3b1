"""Whether an error of torch means that memory has run out; libraries rarely say so with a type of their own."""

from __future__ import annotations

LOW_BYTES = 1 << 30
"""Free bytes of a GPU below which an ambiguous error counts as a lack of memory."""

_CERTAIN = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "_ALLOC_FAILED",
    "ALLOCATION_FAILED",
    "Invalid buffer size",
)

_AMBIGUOUS = (
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "unable to find an engine",
    "Unable to find a valid cuDNN algorithm",
    "NVML_SUCCESS == r INTERNAL ASSERT FAILED",
)
"""Libraries that find no room for their workspace, and the allocator in containers; a broken driver says the same."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that host or device memory has run out."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    text = str(error)
    if any(sign in text for sign in _CERTAIN):
        return True
    return any(sign in text for sign in _AMBIGUOUS) and _is_low()


def _is_low() -> bool:
    """Whether any GPU is nearly full; also true where that cannot be asked, as after an error of the driver."""
    import torch

    try:
        free = [torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count())]
    except (RuntimeError, AssertionError):
        return True
    return min(free, default=0) < LOW_BYTES
