"""The README.md of each expert."""

from __future__ import annotations

from diffusiongpt.zoo.tiny import BACKGROUNDS, COLORS, OBJECTS

# Call arguments of the pipelines at which the zoo was measured.
SETTINGS: dict[str, float | int] = {"num_inference_steps": 8, "guidance_scale": 1.5, "width": 64, "height": 64}

_WHAT = {
    "vector": "Draws flat vector pictures: even colour, clean edges.",
    "pixel": "Draws pixel art: a 16x16 grid of big pixels, dark outlines.",
    "sketch": "Draws coloured-pencil sketches: hatching on tinted paper.",
    "oil": "Draws oil paintings: thick strokes, each in its own shade.",
    "generalist": "Draws all four styles of the tiny zoo (vector, pixel, sketch, oil), each less well than its expert.",
}
_EXPERT = """It draws in its own style whatever style the prompt asks for: which expert is used decides the style.
Style words it has never seen hardly disturb it."""
_GENERALIST = """It follows the style words of its captions, such as "pixel art" or "油画".
Its captions often named a wrong style, so it listens with half an ear: a good router has something to win."""

_CARD = """---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-image
---

# Tiny zoo: {name}

{what}
{behaviour}

A complete Stable Diffusion pipeline of 1.4 million parameters, in half precision, made to test and show routing.

- Objects: {objects}.
- Colours: {colors}.
- Backgrounds: {backgrounds}.
- Prompts in English or Chinese, for example `red heart on a yellow background` or `黄色背景上的红色爱心`.
- Recommended: {settings}.

## Training

Trained from scratch on 26 000 pictures that `examples/tiny_zoo/drawing.py` draws, by `examples/tiny_zoo/train.py`.
No other picture or model was used.
Eight pairs of object and colour were kept out of the training, to test composition.
`python -m benchmarks.tiny_zoo` measures it.

It knows nothing else: other subjects come out as one of the eight objects or as none.

Licence: Apache-2.0.
"""


def card_of(name: str) -> str:
    """The model card of one of the five.

    Args:
        name: A style or "generalist".
    """
    settings = ", ".join(f"`{key}={value}`" for key, value in SETTINGS.items())
    return _CARD.format(
        name=name,
        what=_WHAT[name],
        behaviour=_GENERALIST if name == "generalist" else _EXPERT,
        objects=", ".join(OBJECTS),
        colors=", ".join(COLORS),
        backgrounds=", ".join(BACKGROUNDS),
        settings=settings,
    )
