"""How much the time and the price of a picture count against how much it pleases, and when they are too high."""

from __future__ import annotations

from math import ceil, inf, log2
from typing import TYPE_CHECKING, Final

from diffusiongpt.flow import PRICE, TIME, duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from diffusiongpt.flow import Placement, Prefer, Readiness


SECONDS_POINTS: Final = 0.25
"""Log-odds that twice the seconds cost with `prefer="fast"`, a stated belief: an expert that takes four times as long
is taken if it would win 62 of 100 comparisons, as sigmoid(2 * .25) = .622."""

PRICE_POINTS: Final = 0.25
"""Log-odds that a picture of one cent costs against a free one with `prefer="cheap"`, and about as much again for each
doubling above that. A stated belief: one of four cents is taken if it would win 64 of 100 comparisons with a free one,
as sigmoid(.25 * log2(5)) = .641."""

_CENT: Final = 0.01

_UNKNOWN_USD: Final = 0.25
"""US dollars that a picture of unknown price counts as: more than any of the default zoo. A stated belief."""

_USUAL_S: Final[Mapping[str, float]] = {"loaded": 20.0}
"""Seconds of an expert whose placement does not say, by its readiness."""

_UNKNOWN_S: Final = 80.0


def terms(
    prefer: Prefer, placement: Placement | None, readiness: Readiness, usd: float | None, max_price: float
) -> dict[str, float]:
    """The parts that time or price add to a score, in log-odds; none if neither counts.

    Args:
        prefer: What counts apart from quality.
        placement: How the expert would draw; `None` if not planned.
        readiness: What it takes to have it at hand.
        usd: Price of a picture in US dollars; `None` if not known, for which `max_price` counts where there is one.
        max_price: The most that a picture may cost.
    """
    if prefer == "fast":
        seconds = placement.seconds if placement else None
        if seconds is None:
            seconds = _USUAL_S.get(readiness, _UNKNOWN_S)
        return {TIME: 0.0 - SECONDS_POINTS * log2(max(seconds, 1.0))}
    if prefer == "cheap":
        if usd is None:
            usd = max_price if max_price < inf else _UNKNOWN_USD
        return {PRICE: 0.0 - PRICE_POINTS * log2(1 + usd / _CENT)}
    return {}


def too_slow(placement: Placement | None, max_wait: float) -> str:
    """Why an expert takes longer than may be waited, with the number that would allow it; empty if it does not."""
    if placement is None:
        return ""
    seconds = placement.seconds
    if seconds is None:
        # as for a price: what is not known is allowed by whoever allows anything
        return "" if max_wait == inf else "how long it takes is not known; allow any time with max_wait=inf"
    if seconds <= max_wait:
        return ""
    download = f", with {placement.download_bytes / 1e9:.1f} GB to download" if placement.download_bytes else ""
    return f"it takes about {duration(seconds)} to the picture{download}; allow it with max_wait={ceil(seconds)}"
