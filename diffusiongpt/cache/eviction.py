"""What is worth keeping: the order in which idle residents of a tier go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(kw_only=True)
class Usage:
    """What is known of one resident of a tier.

    Attributes:
        nbytes: Bytes it takes there.
        reload_s: Seconds it took to bring it there from the tier below.
        uses: How often it was asked for since it came.
        last_used: When it was last asked for, on the cache's clock.
        floor: What the last resident that went had been worth, when this one was last used; so that what was
            worth much long ago goes in the end.
    """

    nbytes: int
    reload_s: float
    uses: int
    last_used: float
    floor: float


class EvictionPolicy(Protocol):
    """Says what a resident is worth; the one worth least goes first."""

    def worth(self, usage: Usage) -> float:
        """Any number; it is compared within one tier only."""
        ...


class GDSF:
    """Greedy-dual-size-frequency: what a resident's bytes are good for, aged by what went before.

    `worth = floor + uses ** 0.5 * reload_s ** 1.5 / nbytes` (Cherkasova 1998, HP Labs HPL-98-69R1, with measured
    seconds as the cost and with exponents). The root lets go of what was popular once. Seconds weigh more than
    themselves because look-ahead hides a short load behind a drawing and not a long one, for which all wait that
    come after. `benchmarks/cache_trace.py` prints what the exponents bring.
    """

    def worth(self, usage: Usage) -> float:
        """See `EvictionPolicy.worth`."""
        return float(usage.floor + usage.uses**0.5 * usage.reload_s**1.5 / max(1, usage.nbytes))


class LRU:
    """Least recently used, for comparison."""

    def worth(self, usage: Usage) -> float:
        """See `EvictionPolicy.worth`; a time."""
        return usage.last_used
