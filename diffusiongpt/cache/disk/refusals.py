"""Repositories that the hub refused, remembered for a while so that it is not asked again for each prompt."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from diffusiongpt.cache.disk.hub import hub_token
from diffusiongpt.errors import GatedRepoError, PullError, RepoMissingError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from diffusiongpt.expert import Expert
    from diffusiongpt.settings import Settings

REMEMBERED_S = 600.0


class Refusals:
    """Who is gated or missing; thread-safe.

    Args:
        clock: Seconds that only rise.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[Hashable, tuple[float, PullError]] = {}

    @contextmanager
    def asking(self, expert: Expert, settings: Settings) -> Iterator[None]:
        """Raise at once what the hub answered to the same question in the last ten minutes; else remember it.

        The same question is the same repository and revision, asked of the same endpoint with the same token.

        Raises:
            GatedRepoError: If terms have to be accepted.
            RepoMissingError: If there is no such repository or revision.
        """
        question = _question(expert, settings)
        with self._lock:
            until, known = self._known.get(question, (0.0, None))
            left = until - self._clock()
        if known is not None and left > 0:
            again = f"{known} (the hub said so; it is asked again in {_readable(left)})"
            raise type(known)(again, hint=known.hint)
        try:
            yield
        except (GatedRepoError, RepoMissingError) as error:
            # without its traceback, which would keep whatever the asker held
            kept = type(error)(str(error), hint=error.hint)
            with self._lock:
                self._known[question] = (self._clock() + REMEMBERED_S, kept)
            raise

    def forget(self) -> None:
        """Ask the hub again about everything."""
        with self._lock:
            self._known.clear()


def _question(expert: Expert, settings: Settings) -> Hashable:
    from huggingface_hub import get_token

    # without a token of ours the client takes the one of `hf auth login`, which may change meanwhile
    token = hub_token(settings) or get_token()
    return expert.repo, expert.revision, settings.hub_endpoint, token


def _readable(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"
