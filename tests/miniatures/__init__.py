"""Checkpoints of a few hundred kilobytes with random weights: the real architectures, built in code, no download."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffusiongpt.backends.diffusers import architectures
from diffusiongpt.errors import RequestError
from diffusiongpt.zoo import CallSettings
from miniatures import _dit, _flow, _language, _newest, _seeing, _unets

SIDE = 32
"""Width and height that miniatures draw at, in pixels."""


@dataclass(frozen=True, kw_only=True)
class _Miniature:
    build: Callable[[], Any]
    side: int = SIDE
    extra: dict[str, Any] = field(default_factory=dict)
    draws: bool = True


_NO_BINS = {"use_resolution_binning": False}
"""The pipeline would draw at the nearest size of the real model."""

_MINIATURES = {
    "sd15": _Miniature(build=_unets.sd15),
    "sd21": _Miniature(build=_unets.sd21),
    "lcm": _Miniature(build=_unets.lcm),
    "sdxl": _Miniature(build=_unets.sdxl),
    "sd3": _Miniature(build=_flow.sd3),
    "flux1": _Miniature(build=_flow.flux1),
    "flux2-klein": _Miniature(
        build=_flow.flux2_klein, extra={"text_encoder_out_layers": (0, 1, 2), "max_sequence_length": 16}
    ),
    "qwen-image": _Miniature(build=_language.qwen_image),
    "z-image": _Miniature(build=_language.z_image),
    # the instruction that precedes prompts of the real model has two thousand of our tokens
    "sana": _Miniature(build=_language.sana, extra={**_NO_BINS, "complex_human_instruction": []}),
    "sana-sprint": _Miniature(build=_language.sana_sprint, extra={**_NO_BINS, "complex_human_instruction": []}),
    "pixart-alpha": _Miniature(build=_dit.pixart_alpha, extra=_NO_BINS),
    "pixart": _Miniature(build=_dit.pixart, extra=_NO_BINS),
    "lumina2": _Miniature(build=_language.lumina2),
    "chroma": _Miniature(build=_flow.chroma),
    "kandinsky3": _Miniature(build=_unets.kandinsky3, side=64),
    "hunyuandit": _Miniature(build=_dit.hunyuandit, extra=_NO_BINS),
    "ernie-image": _Miniature(build=_newest.ernie_image, extra={"use_pe": False}),
    "ovis-image": _Miniature(build=_newest.ovis_image),
    "krea2": _Miniature(build=_newest.krea2),
    "cogview4": _Miniature(build=_language.cogview4),
    "auraflow": _Miniature(build=_flow.auraflow),
    # real ones have a megapixel, to which this pipeline scales every picture
    "flux1-kontext": _Miniature(build=_flow.flux1_kontext, extra={"max_area": SIDE * SIDE, "_auto_resize": False}),
    "flux1-fill": _Miniature(build=_flow.flux1_fill, draws=False),
    "sd15-inpaint": _Miniature(build=_unets.sd15_inpaint, draws=False),
    "sdxl-inpaint": _Miniature(build=_unets.sdxl_inpaint, draws=False),
    "sdxl-pix2pix": _Miniature(build=_unets.sdxl_pix2pix, draws=False),
    "sd15-pix2pix": _Miniature(build=_unets.sd15_pix2pix, draws=False),
    # these are built where torchvision is installed
    "flux2": _Miniature(build=_seeing.flux2, extra={"text_encoder_out_layers": (0, 1, 2), "max_sequence_length": 32}),
    "qwen-image-2.1": _Miniature(build=_seeing.qwen_image_21, side=64, extra={"output_resolution": 64}),
    "qwen-image-edit": _Miniature(build=_seeing.qwen_image_edit, side=64, draws=False),
}

DRAWING = tuple(name for name, one in _MINIATURES.items() if one.draws)
"""Architectures that have miniatures and draw from text."""

CHANGING = tuple(name for name, one in _MINIATURES.items() if not one.draws)
"""Architectures that have miniatures and only change pictures."""

ARCHITECTURES = tuple(name for name in DRAWING if not architectures()[name].missing)
"""Those that draw from text and can be built with what is installed."""

FROM_PICTURES = tuple(name for name in CHANGING if not architectures()[name].missing)
"""Those that only change pictures and can be built with what is installed."""


def make_miniature(architecture: str, folder: str | Path, *, seed: int = 0, variant: str | None = None) -> Path:
    """Write a random checkpoint of an architecture, in the form of a repository on the hub.

    It draws noise, but through the same classes, files and arguments as the real thing: serve it with
    `LocalHub`, name it in a zoo file, and test what you build on top.

    Args:
        architecture: One of `ARCHITECTURES`.
        folder: Where to write; made if it is not there.
        seed: Another seed gives other weights.
        variant: File variant for the weights, such as `fp16`.

    Returns:
        The folder.

    Raises:
        RequestError: If there is no miniature of that architecture.
    """
    chosen = _find(architecture)
    import torch

    from diffusiongpt.backends.diffusers import quiet_construction

    with quiet_construction(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipe = chosen.build()
        pipe.save_pretrained(folder, variant=variant)
    (Path(folder) / "README.md").write_text(f"A random {type(pipe).__name__}.\n", encoding="utf-8")
    return Path(folder)


def miniature_settings(architecture: str) -> CallSettings:
    """The settings for a miniature: its size, two steps, and whatever else its small size requires.

    Raises:
        RequestError: If there is no miniature of that architecture.
    """
    chosen = _find(architecture)
    return CallSettings(width=chosen.side, height=chosen.side, num_inference_steps=2, extra=chosen.extra)


def _find(architecture: str) -> _Miniature:
    try:
        return _MINIATURES[architecture]
    except KeyError:
        raise RequestError(
            f"there is no miniature of {architecture!r}", hint=f"There are: {', '.join(ARCHITECTURES)}."
        ) from None
