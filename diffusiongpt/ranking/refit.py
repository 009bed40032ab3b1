"""When a table has to be fitted again, rather than updated."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffusiongpt.votes import Changes

FEW = 60
"""Votes and ratings up to which every change is answered by a refit, which takes about 30 ms."""

AT_ONCE = 1000
"""Votes and ratings up to which a new rating is refitted before the next route, which takes a second: while a source
has few ratings, each of them changes the estimate of its scale."""

SHARE = 0.01
"""Votes added since the last fit, as a share of those fitted, above which a refit is due. Up to there, sequential
updates choose nearly as a refit would."""


def is_awaited(fitted: int, changes: Changes) -> bool:
    """Whether the next route is to wait for a refit.

    Args:
        fitted: Votes and ratings that the table knows.
        changes: What it does not know.
    """
    added = len(changes.votes) + len(changes.ratings)
    size = fitted + added
    return size <= FEW or bool(changes.ratings and size <= AT_ONCE) or added > AT_ONCE


def is_due(fitted: int, pending: int, changes: Changes, *, fitting: bool = False) -> bool:
    """Whether everything is to be fitted again, while routes go on with the updated table.

    Args:
        fitted: Votes and ratings of the last fit.
        pending: Those that were added since, and that the table knows.
        changes: What was new at the last update.
        fitting: Whether a fit is under way: that includes most new votes, but neither what was retracted or erased
            nor what was rated meanwhile.
    """
    at_any_rate = changes.retracted or bool(changes.ratings) or not changes.intact
    return at_any_rate or (not fitting and pending > SHARE * fitted)
