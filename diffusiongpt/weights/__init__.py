"""The weights of modules in memory: layout, copies on devices, and the way between them."""

from __future__ import annotations

from diffusiongpt.weights.devices import (
    HOST,
    ONE_MEMORY,
    allocated_memory,
    best_device,
    device_facts,
    device_memory,
    is_out_of_memory,
    release_cached,
    slot,
    watch_peak,
)
from diffusiongpt.weights.layout import lay_out, views
from diffusiongpt.weights.module import Weights
from diffusiongpt.weights.streaming import GROUP_SHARE
from diffusiongpt.weights.transfer import (
    Cuda,
    HostBlock,
    copy_staged,
    finish,
    may_pin,
    pinned_bytes,
    send,
    send_cuda,
)

__all__ = [
    "GROUP_SHARE",
    "HOST",
    "ONE_MEMORY",
    "Cuda",
    "HostBlock",
    "Weights",
    "allocated_memory",
    "best_device",
    "copy_staged",
    "device_facts",
    "device_memory",
    "finish",
    "is_out_of_memory",
    "lay_out",
    "may_pin",
    "pinned_bytes",
    "release_cached",
    "send",
    "send_cuda",
    "slot",
    "views",
    "watch_peak",
]
