"""Ways to make an image, found by the entry-point group `diffusiongpt.backends`."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from diffusiongpt.backends.base import Backend, HostedBackend
from diffusiongpt.errors import ZooError

GROUP = "diffusiongpt.backends"

# A checkout that was not installed again since an entry point came still has its own backends.
_OURS = {
    "diffusers": "diffusiongpt.backends.diffusers:DiffusersBackend",
    "openai": "diffusiongpt.backends.hosted:OpenAIBackend",
}


def known_backends() -> tuple[str, ...]:
    """Names that an expert may put into `backend`, sorted."""
    return tuple(sorted({*_OURS, *(point.name for point in entry_points(group=GROUP))}))


@cache
def get_backend(name: str) -> Backend | HostedBackend:
    """The backend of that name; made once for each process.

    Raises:
        ZooError: If no installed package offers it, or its module cannot be imported.
    """
    point = _find(name)
    try:
        factory = point.load()
    except (ImportError, AttributeError) as error:
        raise ZooError(
            f"backend {name!r} cannot be imported from {point.value}: {error}",
            hint="Install the package that offers it again, with what it depends on.",
        ) from error
    return cast("Backend | HostedBackend", factory())


@cache
def is_hosted(name: str) -> bool:
    """Whether a backend draws on somebody else's machine; one that is not installed draws nowhere."""
    try:
        return get_backend(name).hosted
    except ZooError:
        return False


def _find(name: str) -> EntryPoint:
    found = tuple(entry_points(group=GROUP, name=name))
    if found:
        return found[0]
    if name in _OURS:
        return EntryPoint(name=name, value=_OURS[name], group=GROUP)
    raise ZooError(
        f"backend {name!r} is unknown",
        hint=f"Known backends: {', '.join(known_backends())}. Others come with packages that offer {GROUP!r}.",
    )
