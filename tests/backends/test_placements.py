"""Every architecture draws the same picture wherever and however its weights are placed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fixtures_diffusers import BACKEND, pixels
from miniature import expert
from miniatures import ARCHITECTURES, make_miniature, miniature_settings

from diffusiongpt.backends.diffusers.backend import DiffusersBackend
from diffusiongpt.cache.cache import ModelCache
from diffusiongpt.flow.call import Resolved

if TYPE_CHECKING:
    from pathlib import Path

    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo.expert import Expert

# diffusers calls its own deprecated method there
pytestmark = pytest.mark.filterwarnings("ignore:`upcast_vae` is deprecated:FutureWarning")

DEVICE = "cpu:1"
"""To torch it is host memory like any other, so it serves as a second device."""


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A miniature of each architecture; do not write into them."""
    return {name: make_miniature(name, tmp_path_factory.mktemp(name)) for name in ARCHITECTURES}


def entry(name: str, folder: Path, dtype: str = "float32") -> Expert:
    """The zoo entry of a miniature, in a type that the host has too."""
    settings = miniature_settings(name).model_copy(update={"dtype": dtype})
    return expert(folder, name).model_copy(update={"settings": settings, "architecture": name})


def call(who: Expert, *seeds: int) -> Resolved:
    """Two steps at the miniature's size."""
    settings = who.settings
    arguments: dict[str, Any] = {"width": settings.width, "height": settings.height, "num_inference_steps": 2}
    return Resolved(
        expert=who,
        prompt="a red fox",
        negative_prompt="",
        seeds=seeds or (7,),
        arguments={**arguments, **settings.extra},
    )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_offloaded_the_same_pixels(settings: Settings, folders: dict[str, Path], name: str) -> None:
    """Large parts take turns; small ones stay, so pipelines that read tensors of the autoencoder find them."""
    who = entry(name, folders[name])
    cache = ModelCache(settings)
    with cache.lease(who, BACKEND, device=DEVICE) as loaded:
        wanted = pixels(BACKEND.draw(loaded, call(who, 7, 8)))
        sizes = {part: weights.nbytes for part, weights in loaded.parts.items()}
    cache.clear(DEVICE)
    # as on a GPU: the autoencoder stays, the largest part does not
    decoder = next(size for part, size in sizes.items() if part in ("vae", "movq"))
    backend = DiffusersBackend(small_bytes=min(decoder, max(sizes.values()) - 1))
    with cache.lease(who, backend, device=DEVICE, offload=True) as loaded:
        assert pixels(backend.draw(loaded, call(who, 7, 8), offload=True)) == wanted
        assert all(DEVICE not in part.places for part in loaded.parts.values())  # type: ignore[attr-defined]
