"""What the services that are asked by forms share: the caller, the form, and the sizes that they choose themselves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from io import BytesIO
from math import log
from typing import TYPE_CHECKING, Any

from diffusiongpt.backends.hosted.asking import check_online
from diffusiongpt.errors import NeedsExtraError, NeedsKeyError

if TYPE_CHECKING:
    from PIL.Image import Image
    from pydantic import SecretStr

    from diffusiongpt.backends.hosted.failures import Service
    from diffusiongpt.settings import Settings


SAME_SHAPE = 0.06
"""How far, as a share, the shape of a picture may be from what was asked for to be brought to that size: the widths
and heights of these services are multiples of 64."""


def ready_key(key: SecretStr | None, service: Service, settings: Settings) -> str:
    """The key of a service, if it can be asked.

    Raises:
        NeedsKeyError: If no key is set.
        NeedsExtraError: If the HTTP library is not installed.
        ServiceError: If the settings forbid network access.
    """
    if key is None:
        raise NeedsKeyError(f"{service.key} is not set", hint=f"Set {service.key}.")
    if find_spec("httpx2") is None:
        raise NeedsExtraError("the package httpx2 is not installed", hint="pip install 'diffusiongpt[hosted]'")
    check_online(settings)
    return key.get_secret_value()


def form(fields: Mapping[str, Any], pictures: Mapping[str, Image] | None = None) -> dict[str, Any]:
    """Fields as the parts of a form, objects and lists as JSON; with pictures as files.

    A form without a file would be sent in another encoding, which these services do not take.
    """
    texts = {
        name: (None, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        for name, value in fields.items()
        if value is not None
    }
    files = {name: (f"{name}.png", png_of(image), "image/png") for name, image in (pictures or {}).items()}
    return {**texts, **files}


def nearest_ratio(width: int, height: int, ratios: tuple[str, ...], separator: str = ":") -> str:
    """The ratio of sides that comes nearest to a size."""

    def distance(ratio: str) -> float:
        across, down = map(int, ratio.split(separator))
        return abs(log(across * height / (down * width)))

    return min(ratios, key=distance)


def as_asked(image: Image, width: object, height: object) -> Image:
    """A picture of nearly the shape that was asked for, in that size; others are left as they are."""
    from PIL.Image import Resampling

    if not isinstance(width, int) or not isinstance(height, int) or image.size == (width, height):
        return image
    if abs(log(image.width * height / (image.height * width))) > SAME_SHAPE:
        return image
    return image.resize((width, height), Resampling.LANCZOS)


def png_of(image: Image) -> bytes:
    """A picture as it is sent."""
    buffer = BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
