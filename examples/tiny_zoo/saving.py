"""Writes an expert's folder as a stock diffusers pipeline in half precision."""

from __future__ import annotations

import json
import tempfile
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from diffusers import StableDiffusionPipeline

from examples.tiny_zoo.models import build_scheduler

if TYPE_CHECKING:
    from torch import nn
    from transformers import CLIPTextModel, CLIPTokenizer

# Written by diffusers or transformers, and only noise (or a warning) to whoever loads the folder.
_UNWANTED = {
    "vae": ("block_out_channels", "force_upcast"),
    "unet": (),
    "text_encoder": (),
    "scheduler": (),
    "tokenizer": ("is_local", "local_files_only"),
}


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What all experts have in common: byte-identical files in each folder."""

    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    vae: Any


def pipeline_of(shared: Shared, unet: nn.Module) -> Any:
    """A ready pipeline, not yet on disk."""
    return StableDiffusionPipeline(  # type: ignore[no-untyped-call]
        vae=shared.vae,
        text_encoder=shared.text_encoder,
        tokenizer=shared.tokenizer,
        unet=unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def save_expert(folder: Path, shared: Shared, unet: nn.Module, card: str) -> None:
    """Write a pipeline and its model card; the folder is replaced in one move, never seen half-written.

    Args:
        folder: The folder to write; its content is deleted.
        shared: The common parts.
        unet: The expert's own part.
        card: The text of README.md.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".writing-") as scratch:
        fresh = Path(scratch) / "pipeline"
        _save_in_half(fresh, shared, unet)
        _clean_configs(fresh)
        (fresh / "README.md").write_text(card, encoding="utf-8")
        if folder.exists():
            folder.rename(Path(scratch) / "old")
        fresh.rename(folder)


def _save_in_half(folder: Path, shared: Shared, unet: nn.Module) -> None:
    halves = Shared(
        tokenizer=shared.tokenizer,
        text_encoder=cast(Any, deepcopy(shared.text_encoder)).to(torch.float16),
        vae=deepcopy(shared.vae).to(torch.float16),
    )
    pipeline_of(halves, deepcopy(unet).to(torch.float16)).save_pretrained(folder, safe_serialization=True)


def _clean_configs(folder: Path) -> None:
    for part, keys in _UNWANTED.items():
        for path in (folder / part).glob("*config.json"):
            config = json.loads(path.read_text(encoding="utf-8"))
            kept = {key: value for key, value in config.items() if key not in (*keys, "_name_or_path")}
            path.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o644)
