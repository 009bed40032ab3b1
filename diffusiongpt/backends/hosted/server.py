"""Pictures by any server of the OpenAI Images API whose address and dialect the zoo states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from diffusiongpt.backends.base import FROM_TEXT
from diffusiongpt.backends.hosted.asking import check_online
from diffusiongpt.backends.hosted.dialects import Order, dialect_of
from diffusiongpt.backends.hosted.failures import Service
from diffusiongpt.backends.hosted.images_api import Place, draw_at, tasks_at
from diffusiongpt.backends.hosted.limits import USUAL, Limits
from diffusiongpt.backends.hosted.openai import check_client
from diffusiongpt.errors import DrawError, NeedsKeyError

if TYPE_CHECKING:
    from diffusiongpt.backends.base import OnStep
    from diffusiongpt.flow import Call, Drawing, Task
    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo import Expert


SERVICE = Service(key="DIFFUSIONGPT_SERVER_KEYS", address="server.url of this expert")

NO_KEY = "none"
"""What servers without keys are sent: the client wants one, and they ignore it."""


class ImagesServerBackend:
    """Has pictures drawn by vLLM-Omni, SGLang, LocalAI, stable-diffusion.cpp, llama-swap, or one of our own.

    A zoo file may be a stranger's: its server gets the prompt and nothing else of the user's, in particular no key but
    the one that `DIFFUSIONGPT_SERVER_KEYS` has for it. Addresses in an answer are fetched only from the server itself.

    Args:
        limits: How far its answers are read.
    """

    hosted: Literal[True] = True
    metered: Literal[True] = True

    def __init__(self, limits: Limits = USUAL) -> None:
        self._limits = limits

    def check(self, settings: Settings) -> None:
        """See `HostedBackend.check`; whether a server wants a key is known only of an expert: see `check_expert`."""
        check_client()
        check_online(settings)

    def check_expert(self, expert: Expert, settings: Settings) -> None:
        """The same for one expert, whose server may want a key."""
        self.check(settings)
        _place(expert, settings)

    def tasks(self, expert: Expert) -> frozenset[Task]:
        """See `Backend.tasks`."""
        try:
            dialect = dialect_of(expert.server.dialect if expert.server else "openai")
        except DrawError:
            return FROM_TEXT
        return tasks_at(dialect, expert)

    def draw(self, resolved: Call, settings: Settings, *, on_step: OnStep | None = None) -> Drawing:
        """See `HostedBackend.draw`."""
        self.check(settings)
        return draw_at(_place(resolved.expert, settings), resolved, self._limits, on_step=on_step)

    def sleep(self, expert: Expert, settings: Settings) -> bool:
        """Have a server give back the memory of its model, where it can.

        Returns:
            Whether it has such a request.

        Raises:
            DrawError: If it does not do so.
        """
        return self._order(expert, settings, dialect_of(_server(expert)[1]).sleep)

    def wake(self, expert: Expert, settings: Settings) -> bool:
        """Have a server bring its model back; result and errors as for `sleep`."""
        return self._order(expert, settings, dialect_of(_server(expert)[1]).wake)

    def _order(self, expert: Expert, settings: Settings, order: Order | None) -> bool:
        self.check(settings)
        if order is None:
            return False
        from diffusiongpt.backends.hosted.http import Caller, bounded_client, exchange

        place = _place(expert, settings)
        caller = Caller(service=SERVICE, key=place.key, timeout_s=self._limits.timeout_s, expert=expert)
        root = urlsplit(place.url)
        with bounded_client(limit=1_000_000, seconds=self._limits.timeout_s) as client:
            headers = {"Authorization": f"Bearer {place.key}"}
            content = {"json": order.body} if order.method == "POST" else {}
            address = f"{root.scheme}://{root.netloc}{order.path}"
            exchange(client, caller, order.method, address, headers=headers, **content)
        return True


def _server(expert: Expert) -> tuple[str, str]:
    """Address and dialect of an expert's server."""
    if expert.server is None:
        raise DrawError(
            f"{expert.id} names no server", hint="Write its address as 'server: {url: http://host:8000/v1}'."
        )
    return expert.server.url, expert.server.dialect


def _place(expert: Expert, settings: Settings) -> Place:
    url, name = _server(expert)
    dialect, key = dialect_of(name), settings.key_for(url)
    if key is None and dialect.needs_key:
        host = urlsplit(url).netloc
        raise NeedsKeyError(f"{expert.id}: no key is set for {host}", hint=f"Add {host}=KEY to {SERVICE.key}.")
    return Place(url=url, key=key or NO_KEY, dialect=dialect, service=SERVICE, by_zoo=True)
