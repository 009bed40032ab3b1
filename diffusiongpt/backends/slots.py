"""One compute slot for each device: whoever draws on it, or changes modules that are there, is alone meanwhile."""

from __future__ import annotations

import threading

_SLOTS: dict[str, threading.RLock] = {}


def slot(device: str) -> threading.RLock:
    """The lock of a device, the same for the whole process.

    Pipelines keep state of the call on themselves, tokenizers serve one thread at a time, adapters are switched on
    modules that others share, and some autoencoders change type while they run.
    """
    return _SLOTS.setdefault(device, threading.RLock())
