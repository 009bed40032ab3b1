"""The model-loader cache: what is on disk, what is in memory, and why."""

from __future__ import annotations

from diffusiongpt.cache.cache import SAFE_SHARE, ModelCache
from diffusiongpt.cache.disk.fingerprint import fingerprint
from diffusiongpt.cache.disk.plan import Agree, PullPlan
from diffusiongpt.cache.disk.pull import Puller
from diffusiongpt.cache.disk.records import PullRecord
from diffusiongpt.cache.events import CacheEvent, Events, OnEvent
from diffusiongpt.cache.eviction import GDSF, LRU, EvictionPolicy
from diffusiongpt.cache.explain import Explanation, Resident
from diffusiongpt.cache.flight import OnProgress
from diffusiongpt.cache.identity import ComponentKey, ModelKey
from diffusiongpt.cache.memory import HOST
from diffusiongpt.cache.prefetch import Coming

__all__ = [
    "GDSF",
    "HOST",
    "LRU",
    "SAFE_SHARE",
    "Agree",
    "CacheEvent",
    "Coming",
    "ComponentKey",
    "Events",
    "EvictionPolicy",
    "Explanation",
    "ModelCache",
    "ModelKey",
    "OnEvent",
    "OnProgress",
    "PullPlan",
    "PullRecord",
    "Puller",
    "Resident",
    "fingerprint",
]
