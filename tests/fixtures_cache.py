"""Backends that count and experts to lease, which the tests of the cache and of pulls share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from miniature import KLEIN_EXTRA, SIDE, expert

from diffusiongpt.backends import Loaded, Resolved, get_backend
from diffusiongpt.backends.diffusers import DiffusersBackend

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from diffusiongpt.cache import ModelCache
    from diffusiongpt.expert import Expert

BACKEND = get_backend("diffusers")
UNET = "unet/diffusion_pytorch_model.safetensors"

SD = expert("t/sd", "sd")
KLEIN = expert("t/klein", "klein", extra=KLEIN_EXTRA)


class Counting(DiffusersBackend):
    """The real backend, which also counts."""

    def __init__(self) -> None:
        self.loads: list[str] = []

    def load(self, expert: Expert, folder: Path, *, device: str) -> Loaded:
        """Count and load."""
        self.loads.append(expert.id)
        return super().load(expert, folder, device=device)


@dataclass
class Toy(DiffusersBackend):
    """Models of any size that load as long as a test likes."""

    sizes: dict[str, int] = field(default_factory=dict)
    loads: list[str] = field(default_factory=list)
    alive: set[str] = field(default_factory=set)
    before_load: Callable[[str], Any] = lambda _: None

    def load(self, expert: Expert, folder: Path, *, device: str) -> Loaded:
        """Count, do what the test wants, and return a name in place of a model."""
        assert folder.is_dir()
        self.loads.append(expert.id)
        self.before_load(expert.id)
        self.alive.add(expert.id)
        return Loaded(model=expert.id, device=device, nbytes=self.sizes.get(expert.id, 10))

    def unload(self, loaded: Loaded) -> None:
        """Forget it; a second time would be an error."""
        self.alive.remove(loaded.model)


def touch(cache: ModelCache, backend: Any, *experts: Expert) -> None:
    """Lease each in turn."""
    for who in experts:
        with cache.lease(who, backend, device="cpu"):
            pass


def draw(loaded: Loaded, who: Expert) -> list[bytes]:
    """Two steps with a fixed seed."""
    arguments = {"width": SIDE, "height": SIDE, "num_inference_steps": 2, **who.settings.extra}
    resolved = Resolved(expert=who, prompt="a fox", negative_prompt="", seeds=(3,), arguments=arguments)
    return [image.tobytes() for image in DiffusersBackend().draw(loaded, resolved).images]
