"""Whether the repositories of a zoo are there, and at which commit."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from diffusiongpt.backends import is_hosted
from diffusiongpt.cache.disk.hub import TIMEOUT_S, hub_api, hub_errors
from diffusiongpt.errors import GatedRepoError, PullError, RepoMissingError
from diffusiongpt.hub_facts import check_online

if TYPE_CHECKING:
    from diffusiongpt.expert import Expert
    from diffusiongpt.settings import Settings

_AT_ONCE = 8
"""Requests in flight; the hub allows a visitor some hundreds a minute."""


@dataclass(frozen=True, kw_only=True)
class Presence:
    """What the hub says of one expert's repository.

    Attributes:
        expert: Id.
        repo: Repository.
        state: `ok`; `gated` if terms have to be accepted, which the token in use may have; `missing`; or
            `unreachable` if nobody knows.
        revision: What the zoo file asks for.
        commit: What that is at the moment; `None` if unknown.
        error: What went wrong, with its hint; `None` if nothing did.
    """

    expert: str
    repo: str
    state: Literal["ok", "gated", "missing", "unreachable"]
    revision: str | None
    commit: str | None = None
    error: PullError | None = None


def find_presence(experts: Sequence[Expert], settings: Settings) -> tuple[Presence, ...]:
    """Ask the hub about each expert; local folders and hosted experts are passed over.

    Raises:
        PullError: If the settings forbid the network, or the hub answers about none of them.
    """
    check_online(settings)
    remote = [expert for expert in experts if not (expert.is_local or is_hosted(expert.backend))]
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        found = tuple(pool.map(lambda expert: _presence(expert, settings), remote))
    errors = [one.error for one in found if one.error is not None and one.state == "unreachable"]
    if errors and len(errors) == len(found):
        raise errors[0]
    return found


def _presence(expert: Expert, settings: Settings) -> Presence:
    try:
        with hub_errors(expert.repo, settings):
            info = hub_api(settings).model_info(expert.repo, revision=expert.revision, timeout=TIMEOUT_S)
    except PullError as error:
        state: Literal["gated", "missing", "unreachable"] = "unreachable"
        if isinstance(error, RepoMissingError | GatedRepoError):
            state = "missing" if isinstance(error, RepoMissingError) else "gated"
        return Presence(expert=expert.id, repo=expert.repo, state=state, revision=expert.revision, error=error)
    return Presence(
        expert=expert.id,
        repo=expert.repo,
        state="gated" if info.gated else "ok",
        revision=expert.revision,
        commit=str(info.sha),
    )
