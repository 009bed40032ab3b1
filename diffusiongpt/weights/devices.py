"""Devices: which to draw on, how much memory they have, whether it has run out, and one compute slot for each."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # its types are a package of their own

from diffusiongpt.errors import SettingsError
from diffusiongpt.forks import free_in_child

HOST = "cpu"
"""The device whose memory is the host's: all weights come here first."""

_DEVICE = re.compile(r"^(cpu|mps|cuda(:\d+)?)$")
_NO_LIMIT = 1 << 60
"""Control groups without a limit report numbers near 2**63."""

_GPU_NODES = ("nvidiactl", "nvmap", "kfd", "dxg")
"""Device nodes without which no CUDA or ROCm build of torch finds a GPU on Linux."""


def best_device(requested: str | None = None) -> str:
    """The device to draw on: the one asked for, else the best one present.

    `"cuda"` is resolved to the index of the calling thread's current device, since every thread has its own, and
    memory, slots and streams go by the name.

    Args:
        requested: `"cuda"`, `"cuda:1"`, `"mps"`, `"cpu"`, or `None` for the best one.

    Raises:
        SettingsError: If the name is none of these, or this machine has no such device.
    """
    if requested is not None and not _DEVICE.match(requested):
        raise SettingsError(f"device {requested!r} is unknown", hint="Use 'cuda', 'cuda:N', 'mps' or 'cpu'.")
    if requested == "cpu" or (requested is None and not _may_have_accelerator()):
        return "cpu"
    present = _present()
    if requested is None:
        requested = next(iter(present))
    if requested not in present:
        raise SettingsError(
            f"this machine has no device {requested!r}, only {', '.join(present)}",
            hint="Leave the device out to take the best one, or install a torch build for it.",
        )
    return present[requested]


def device_memory(device: str) -> int | None:
    """Bytes that this process may use on a device in total, not what is free now; `None` if unknown."""
    if device == HOST:
        return _host_memory()
    import torch

    if device.startswith("cuda"):
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(torch.mps.recommended_max_memory()) if device == "mps" else None


def device_facts(device: str) -> tuple[str, bool]:
    """What the driver calls a device, and whether it computes in bfloat16; neither allocates anything on it."""
    if not device.startswith("cuda"):
        return "", True
    import torch

    facts = torch.cuda.get_device_properties(device)
    # compute capability 8 (Ampere) is the first with bfloat16 in hardware
    return str(facts.name), bool(torch.version.hip) or facts.major >= 8


def allocated_memory(device: str) -> int | None:
    """Bytes that this process has taken on a device by its allocator's count; on the host, its resident set.

    `None` where they are not counted.
    """
    if device == HOST:
        return int(psutil.Process().memory_info().rss)
    import torch

    if device.startswith("cuda"):
        return int(torch.cuda.memory_allocated(device))
    return int(torch.mps.current_allocated_memory()) if device == "mps" else None


def watch_peak(device: str) -> Callable[[], int | None]:
    """Begin to watch the memory of a device.

    Returns:
        The most bytes that were taken since, beyond those that were taken before; `None` where it is not counted, or
        where something else came to the device or left it meanwhile.
    """
    if not device.startswith("cuda"):
        return lambda: None
    import torch

    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)

    def most() -> int | None:
        changed = abs(torch.cuda.memory_allocated(device) - before)
        return torch.cuda.max_memory_allocated(device) - before if changed < _UNCHANGED else None

    return most


_UNCHANGED = 64 << 20
"""Bytes by which the memory of a device may differ after a drawing: buffers that libraries make at their first use."""


def release_cached(device: str) -> None:
    """Give memory that torch keeps for later use back to the device."""
    if device == HOST:
        return
    import torch

    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    elif device == "mps":
        torch.mps.empty_cache()


def _may_have_accelerator() -> bool:
    # Importing torch takes a second or more, and is not needed to see that a Linux machine has no driver.
    if sys.platform != "linux" or "torch" in sys.modules:
        return True
    return any(Path("/dev", node).exists() for node in _GPU_NODES)


def _present() -> dict[str, str]:
    """The devices that are present by the names that select them, the best one first."""
    import torch

    found: dict[str, str] = {}
    if torch.cuda.is_available():
        names = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        found |= {"cuda": names[torch.cuda.current_device()], **dict(zip(names, names, strict=True))}
    if torch.backends.mps.is_available():
        found["mps"] = "mps"
    return {**found, HOST: HOST}


def _host_memory() -> int:
    return min([int(psutil.virtual_memory().total), *_cgroup_limits()])


def _cgroup_limits(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> list[int]:
    """Limits of the control groups of this process; any group on the way to the root may have the tightest."""
    files = [root / "memory" / "memory.limit_in_bytes"]
    for line in _read(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            group = Path(path.lstrip("/"))
            files += [root / parent / "memory.max" for parent in (group, *group.parents)]
        elif "memory" in controllers.split(","):
            files.append(root / "memory" / path.lstrip("/") / "memory.limit_in_bytes")
    texts = [_read(file).strip() for file in files]
    return [int(text) for text in texts if text.isdigit() and int(text) < _NO_LIMIT]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


_SLOTS: dict[str, threading.RLock] = {}


def slot(device: str) -> threading.RLock:
    """The lock of a device, the same for the whole process.

    Pipelines keep the state of a call on themselves, tokenizers serve one thread at a time, adapters are switched on
    and off on modules that other models share, and some autoencoders change their type while they run.
    """
    found = _SLOTS.get(device)
    return found or _SLOTS.setdefault(device, free_in_child(threading.RLock()))


ONE_MEMORY = frozenset({"mps"})
"""Devices whose memory is the host's own: a second copy on the host would be a waste."""


def moving(device: str) -> AbstractContextManager[object]:
    """Held while weights come to a device, are read from it, or leave it.

    Where memory is shared it is the slot of the device, so that nothing moves during a drawing: two threads that use
    MPS at once end the process (pytorch/pytorch#197805). Elsewhere weights move during drawings.
    """
    return slot(device) if device in ONE_MEMORY else nullcontext()


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
