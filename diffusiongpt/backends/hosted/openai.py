"""Pictures by OpenAI's Images API, or by another service under its address that speaks as it does."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from diffusiongpt.backends.hosted.asking import check_online
from diffusiongpt.backends.hosted.dialects import dialect_of
from diffusiongpt.backends.hosted.failures import Service
from diffusiongpt.backends.hosted.images_api import Place, draw_at, tasks_at
from diffusiongpt.backends.hosted.limits import USUAL, Limits
from diffusiongpt.errors import NeedsExtraError, NeedsKeyError

if TYPE_CHECKING:
    from diffusiongpt.backends.base import OnStep
    from diffusiongpt.flow import Call, Drawing, Task
    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo import Expert


SERVICE = Service(key="OPENAI_API_KEY", address="OPENAI_BASE_URL")


class OpenAIBackend:
    """Calls `client.images.generate` and `client.images.edit`.

    Pictures come in the answer, and no address in it is followed.

    Args:
        limits: How far its answers are read.
    """

    hosted: Literal[True] = True
    metered: Literal[True] = True

    def __init__(self, limits: Limits = USUAL) -> None:
        self._limits = limits

    def check(self, settings: Settings) -> None:
        """See `HostedBackend.check`."""
        _key(settings)
        check_client()
        check_online(settings)

    def tasks(self, expert: Expert) -> frozenset[Task]:
        """See `Backend.tasks`."""
        return tasks_at(dialect_of("openai"), expert)

    def draw(self, resolved: Call, settings: Settings, *, on_step: OnStep | None = None) -> Drawing:
        """See `HostedBackend.draw`."""
        self.check(settings)
        place = Place(url=settings.openai_base_url, key=_key(settings), dialect=dialect_of("openai"), service=SERVICE)
        return draw_at(place, resolved, self._limits, on_step=on_step)


def check_client() -> None:
    """Check that the client is installed.

    Raises:
        NeedsExtraError: If it is not.
    """
    if find_spec("openai") is None:
        raise NeedsExtraError("the package openai is not installed", hint="pip install 'diffusiongpt[openai]'")


def _key(settings: Settings) -> str:
    if settings.openai_api_key is None:
        raise NeedsKeyError(
            f"{SERVICE.key} is not set", hint=f"Set {SERVICE.key}; a server of your own takes any word."
        )
    return settings.openai_api_key.get_secret_value()
