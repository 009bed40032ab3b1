"""The model-loader cache: what is on disk, what is in memory, and why."""

from __future__ import annotations

from diffusiongpt.cache.events import CacheEvent, Events
from diffusiongpt.cache.identity import Identities, ModelKey
from diffusiongpt.cache.loading import Checkpoint, Loader
from diffusiongpt.cache.memory import Memory
from diffusiongpt.cache.model_cache import SAFE_SHARE, ModelCache
from diffusiongpt.cache.prefetch import (
    DEVICE_DEPTH,
    HOST_DEPTH,
    PROTECTED,
    Coming,
    Move,
    Wanted,
    needed_soon,
    next_to_device,
    next_to_host,
)
from diffusiongpt.cache.single_flight import SharedCall, SingleFlight
from diffusiongpt.cache.tier import GDSF, LRU, Bring, EvictionPolicy, Key, Tier, Usage

__all__ = [
    "DEVICE_DEPTH",
    "GDSF",
    "HOST_DEPTH",
    "LRU",
    "PROTECTED",
    "SAFE_SHARE",
    "Bring",
    "CacheEvent",
    "Checkpoint",
    "Coming",
    "Events",
    "EvictionPolicy",
    "Identities",
    "Key",
    "Loader",
    "Memory",
    "ModelCache",
    "ModelKey",
    "Move",
    "SharedCall",
    "SingleFlight",
    "Tier",
    "Usage",
    "Wanted",
    "needed_soon",
    "next_to_device",
    "next_to_host",
]
