"""A studio whose hosted experts draw at a server on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fixtures_routing import expert, settings_in, tiny_zoo, zoo_of

from diffusiongpt.backends.hosted.openai import OpenAIBackend
from diffusiongpt.drawing.resolve import resolve
from diffusiongpt.flow.call import Resolved
from diffusiongpt.flow.request import Request
from diffusiongpt.flow.understanding import Understanding
from diffusiongpt.studio import DiffusionGPT
from diffusiongpt.zoo.expert import CallSettings, Capabilities, Expert, Price

if TYPE_CHECKING:
    from pathlib import Path

    from diffusiongpt.flow.call import Drawing
    from diffusiongpt.settings import Settings
    from diffusiongpt.testing.images import LocalImages

KEY = "sk-proj-a-secret-that-nobody-may-see"
SIZES = ("64x64", "96x64", "64x96")
PRICE = 0.04
TINY = "tiny-pixel"


def hosted(name: str = "cloud", **fields: Any) -> Expert:
    """A generalist that OpenAI's API draws for four cents, far better than the tiny experts by its tags."""
    wanted: dict[str, Any] = {
        "repo": f"openai/{name}",
        "backend": "openai",
        "price": Price(usd=PRICE, note="a test"),
        "settings": CallSettings(width=64, height=64, sizes=SIZES, extra={"quality": "low"}),
        "capabilities": Capabilities(transparent_background=True),
        **fields,
    }
    return expert(name, "pixel_art", **wanted)


def settings_for(images: LocalImages, folder: Path, **values: Any) -> Settings:
    """Settings with a key and the address of the server."""
    return settings_in(folder, **{"openai_api_key": KEY, "openai_base_url": images.url, **values})


def studio_with(settings: Settings, *experts: Expert) -> DiffusionGPT:
    """A studio with these experts before one of the tiny zoo."""
    return DiffusionGPT(zoo_of(*experts, tiny_zoo()[TINY]), settings=settings)


def ask(prompt: str = "a fox", who: Expert | None = None, **asked: Any) -> Resolved:
    """The exact call for a request to a hosted expert."""
    meant = {name: asked.pop(name) for name in tuple(asked) if name not in Request.__annotations__}
    return resolve(Request(prompt=prompt, **asked), Understanding(prompt=prompt, **meant), who or hosted())


def draw(settings: Settings, resolved: Resolved | None = None, *, timeout_s: float = 20) -> Drawing:
    """Draw at the server with the real client."""
    return OpenAIBackend(timeout_s=timeout_s).draw(resolved or ask(), settings)
