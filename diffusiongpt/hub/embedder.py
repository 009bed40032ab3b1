"""The weights of the sentence embedder, from the hub."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import file_digest
from typing import TYPE_CHECKING, cast

from diffusiongpt.embedding.sentence import REPO, TOKENIZER, WEIGHTS, WEIGHTS_SHA256, SentenceEmbedder
from diffusiongpt.errors import HubUnreachableError, PullError
from diffusiongpt.hub.download import OnBytes
from diffusiongpt.hub.pull import Puller
from diffusiongpt.zoo.expert import Expert, License

if TYPE_CHECKING:
    from pathlib import Path

    from diffusiongpt.backends.base import Backend
    from diffusiongpt.hub.plan import Agree, PullPlan
    from diffusiongpt.settings import Settings


_EXTRA = "Install diffusiongpt[embeddings], which carries it."
_LICENSE = License(id="Apache-2.0", commercial="yes")


class _TwoFiles:
    """The part of a backend that a pull asks."""

    def files(
        self, names: Sequence[str], _read: Callable[[str], bytes], *, variant: str | None, allow_unsafe: bool = False
    ) -> tuple[str, ...]:
        del variant, allow_unsafe
        if not {TOKENIZER, WEIGHTS}.issubset(names):
            raise PullError(f"{REPO} does not hold {TOKENIZER} and {WEIGHTS}", hint=f"Check HF_ENDPOINT. {_EXTRA}")
        return TOKENIZER, WEIGHTS


def pull_sentence_embedder(
    settings: Settings,
    *,
    agree: Agree | None = None,
    on_pull: Callable[[PullPlan], None] | None = None,
    tell: OnBytes | None = None,
) -> SentenceEmbedder:
    """The sentence embedder, pulled from the hub (91 MB, Apache-2.0) if its weights are not on this machine.

    Args:
        settings: Endpoint, folders, limits.
        agree: Asked if the pull is above `max_download_gb`.
        on_pull: Told the plan before the download begins.
        tell: Called with bytes done and in all.

    Raises:
        PullError: If it cannot be pulled, or is not the file it should be.
    """
    found = SentenceEmbedder.on_disk(settings)
    if found:
        return found
    if settings.offline:
        raise HubUnreachableError(f"{REPO} is not on this machine, and the settings forbid the network", hint=_EXTRA)
    puller = Puller(settings, on_pull=on_pull)
    wish = Expert(id="sentence-embedder", repo=REPO, license=_LICENSE)
    plan = puller.plan(wish, cast("Backend", _TwoFiles()))  # of a backend, planning asks nothing but the files
    puller.check(plan, agree)
    folder = puller.pull(plan, tell)
    if _sha256(folder / WEIGHTS) != WEIGHTS_SHA256:
        # what stays in the cache would be taken for good the next time
        puller.clear((REPO,))
        raise PullError(f"{REPO} has other weights than it should", hint="Check HF_ENDPOINT, then try again.")
    return SentenceEmbedder(folder)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
