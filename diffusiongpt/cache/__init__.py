"""The model-loader cache: what is on disk, what is in memory, and why."""

from __future__ import annotations

from diffusiongpt.cache.events import CacheEvent, Events, OnEvent
from diffusiongpt.cache.explain import Explanation, Resident
from diffusiongpt.cache.identity import ComponentKey, ModelKey
from diffusiongpt.cache.model_cache import SAFE_SHARE, ModelCache
from diffusiongpt.cache.prefetch import Coming
from diffusiongpt.cache.single_flight import OnProgress
from diffusiongpt.cache.tier import GDSF, LRU, EvictionPolicy
from diffusiongpt.hub.content import fingerprint
from diffusiongpt.hub.plan import Agree, PullPlan
from diffusiongpt.hub.pull import Puller
from diffusiongpt.hub.records import PullRecord
from diffusiongpt.weights.devices import HOST

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
