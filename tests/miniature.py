"""Experts for the miniatures, and the one that most tests draw with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from miniatures import SIDE, make_miniature, miniature_settings

from diffusiongpt.zoo import CallSettings, Expert, License

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["KLEIN_EXTRA", "SIDE", "expert", "stable_diffusion"]

KLEIN_EXTRA = miniature_settings("flux2-klein").extra


def stable_diffusion(folder: Path, *, seed: int = 0, variant: str | None = None) -> Path:
    """Write a StableDiffusionPipeline, which has a negative prompt, guidance and reported steps."""
    return make_miniature("sd15", folder, seed=seed, variant=variant)


def expert(repo: str | Path, name: str = "mini", *, revision: str | None = None, **settings: Any) -> Expert:
    """An expert for a repository of the local hub, or for a folder."""
    wanted = {"width": SIDE, "height": SIDE, "num_inference_steps": 2, **settings}
    return Expert(
        id=name,
        repo=str(repo),
        revision=revision,
        license=License(id="Apache-2.0"),
        size_gb=0.003,
        settings=CallSettings(**wanted),
    )
