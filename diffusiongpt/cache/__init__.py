"""The model-loader cache: what is on disk, what is in memory, and why."""

from __future__ import annotations

from diffusiongpt.cache.cache import ModelCache
from diffusiongpt.cache.fingerprint import fingerprint
from diffusiongpt.cache.flight import OnProgress
from diffusiongpt.cache.plan import Agree, PullPlan
from diffusiongpt.cache.pull import Puller
from diffusiongpt.cache.records import PullRecord
from diffusiongpt.cache.resident import ModelKey, Resident

__all__ = [
    "Agree",
    "ModelCache",
    "ModelKey",
    "OnProgress",
    "PullPlan",
    "PullRecord",
    "Puller",
    "Resident",
    "fingerprint",
]
