"""Draws the experts of a comparison; one that cannot draw after all makes room for another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from diffusiongpt.errors import (
    DiffusionGPTError,
    DrawError,
    HubUnreachableError,
    LoadError,
    NeedsExtraError,
    PullError,
    StorageError,
    TokenRefusedError,
    VoteError,
)

if TYPE_CHECKING:
    from diffusiongpt.flow import ShownIn
    from diffusiongpt.pictures import Generation

Choose = Callable[[Sequence[str]], tuple[tuple[str, ...], "ShownIn"]]
"""Chooses a ballot among the experts that can draw: the experts in blind order, and how likely each was shown."""


def draw_ballot(
    able: Sequence[str],
    choose: Choose,
    draw: Callable[[str], Generation],
    *,
    at_hand: Callable[[str], bool],
    replaces: bool,
) -> tuple[Generation, ...]:
    """The pictures of a ballot, in blind order.

    Args:
        able: Experts that can draw, as far as that is known beforehand.
        choose: Chooses among them.
        draw: Draws with an expert; a picture counts for a ballot that is chosen after another expert failed, too.
        at_hand: Whether an expert needs no download, and so no hub that was found to be down.
        replaces: Whether another expert may take the place of one that failed.

    Raises:
        VoteError: If too few experts can draw.
        PullError, LoadError, DrawError, NeedsExtraError: If an expert failed and no other can take its place.
    """
    left, failed = list(able), list[DiffusionGPTError]()
    drawn: dict[str, Generation] = {}
    while True:
        try:
            experts, shown_in = choose(left)
        except VoteError:
            if failed:
                raise failed[0] from None
            raise
        # not in the order shown: what is reported of pulls meanwhile must not give it away
        for expert in sorted(set(experts) - set(drawn)):
            try:
                drawn[expert] = draw(expert)
            except (PullError, LoadError, DrawError, NeedsExtraError) as error:
                if not replaces:
                    raise
                failed.append(error)
                left = [one for one in left if one != expert]
                if isinstance(error, HubUnreachableError | StorageError | TokenRefusedError):
                    left = [one for one in left if at_hand(one)]
                break
        else:
            return tuple(_shown(drawn[expert], shown_in) for expert in experts)


def _shown(generation: Generation, shown_in: ShownIn) -> Generation:
    records = tuple(record.model_copy(update={"shown_in": shown_in}) for record in generation.records)
    return replace(generation, records=records)
