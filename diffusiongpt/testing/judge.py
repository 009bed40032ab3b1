"""Reads what is on a picture of the tiny zoo: a small classifier that only ever learnt from drawn originals.

It never saw a generated picture, so it is an independent measure of the models that make them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from diffusiongpt.testing.vocabulary import (
    BACKGROUND_TERMS,
    BACKGROUNDS,
    COLOR_TERMS,
    COLORS,
    OBJECT_TERMS,
    OBJECTS,
    STYLE_TERMS,
    STYLES,
    Term,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from PIL import Image
    from torch import Tensor, nn

JUDGE_FILE: Final = Path(__file__).parent / "tiny_zoo" / "judge.safetensors"
SIDE: Final = 64
_GROUND: Final = r"(?:\s+background|的?背景)"
QUESTIONS: Final[dict[str, tuple[str, ...]]] = {
    "object": OBJECTS,
    "color": COLORS,
    "background": BACKGROUNDS,
    "style": STYLES,
}


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the judge sees on one picture.

    Attributes:
        object: The most probable object.
        color: Its colour.
        background: The colour of the background.
        style: The style.
        probabilities: For each of the four questions, the probability of every answer.
    """

    object: str
    color: str
    background: str
    style: str
    probabilities: Mapping[str, Mapping[str, float]]


class TinyJudge:
    """Answers four questions about a picture: which object, which colour, which background, which style."""

    def __init__(self, network: nn.Sequential) -> None:
        self._network = network.eval()

    @classmethod
    def load(cls, path: Path = JUDGE_FILE) -> TinyJudge:
        """Load the trained judge; imports torch.

        Args:
            path: A safetensors file with the network's weights.
        """
        from safetensors.torch import load_file

        network = build_network()
        network.load_state_dict({name: weights.float() for name, weights in load_file(path).items()})
        return cls(network)

    def read(self, image: Image.Image) -> Reading:
        """Read one picture of any size."""
        return self.read_batch([image])[0]

    def read_batch(self, images: Sequence[Image.Image]) -> list[Reading]:
        """Read several pictures of any size at once; faster than one by one."""
        import torch

        if not images:
            return []
        with torch.inference_mode():
            answers = split_answers(self._network(as_batch(images)))
        shares = {question: logits.softmax(dim=1).tolist() for question, logits in answers.items()}
        return [_reading({question: rows[index] for question, rows in shares.items()}) for index in range(len(images))]

    def score(self, prompt: str, images: Sequence[Image.Image]) -> list[float]:
        """How much of what a prompt names each picture shows: a judge as `diffusiongpt.judges` wants it.

        Returns:
            For each picture the mean probability, from 0 to 1, of the named object, colour, background and style;
            of a prompt that names none of them, how sure the judge is of what it sees.
        """
        wanted = named_answers(prompt)
        return [_share_shown(reading, wanted) for reading in self.read_batch(images)]

    def all_correct(self, image: Image.Image, *, object: str, color: str, background: str, style: str) -> bool:  # noqa: A002 - the vocabulary's word
        """Whether the picture shows all four things asked for."""
        reading = self.read(image)
        return (reading.object, reading.color, reading.background, reading.style) == (object, color, background, style)


def named_answers(prompt: str) -> dict[str, tuple[str, ...]]:
    """The answers that a prompt names, for each question it is about; a colour is that of what it stands before."""
    text = prompt.lower()
    named: dict[str, tuple[str, ...]] = {}
    on_ground = _found(BACKGROUND_TERMS, text, before=_GROUND)
    for name in on_ground:
        for word in BACKGROUND_TERMS[name].english + BACKGROUND_TERMS[name].chinese:
            text = re.sub(re.escape(word) + _GROUND, " ", text)
    for question, terms in (("object", OBJECT_TERMS), ("color", COLOR_TERMS), ("style", STYLE_TERMS)):
        named[question] = _found(terms, text)
    named["background"] = on_ground
    return {question: names for question, names in named.items() if names}


def _found(terms: Mapping[str, Term], text: str, before: str = "") -> tuple[str, ...]:
    def is_there(term: Term) -> bool:
        english = any(re.search(rf"\b{re.escape(word)}{before}\b", text) for word in term.english)
        return english or any(re.search(re.escape(word) + before, text) for word in term.chinese)

    return tuple(name for name, term in terms.items() if is_there(term))


def _share_shown(reading: Reading, wanted: Mapping[str, Sequence[str]]) -> float:
    if not wanted:
        return sum(max(shares.values()) for shares in reading.probabilities.values()) / len(reading.probabilities)
    shown = [max(reading.probabilities[question][name] for name in names) for question, names in wanted.items()]
    return sum(shown) / len(shown)


def build_network() -> nn.Sequential:
    """The untrained network: four strided convolutions, then one linear layer with the answers side by side."""
    from torch import nn

    layers: list[nn.Module] = []
    channels = (3, 24, 32, 48, 64)
    for before, after in pairwise(channels):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(4, after), nn.SiLU()]
    cells = (SIDE // 2 ** (len(channels) - 1)) ** 2
    layers += [nn.Flatten(), nn.Linear(channels[-1] * cells, sum(map(len, QUESTIONS.values())))]
    return nn.Sequential(*layers)


def split_answers(logits: Tensor) -> dict[str, Tensor]:
    """Cut the network's output, shape (n, answers), into one tensor of logits per question."""
    import torch

    pieces = torch.split(logits, [len(names) for names in QUESTIONS.values()], dim=1)
    return dict(zip(QUESTIONS, pieces, strict=True))


def as_batch(images: Sequence[Image.Image]) -> Tensor:
    """Pictures as the network takes them: float32, shape (n, 3, 64, 64), from -1 to 1."""
    import numpy as np
    import torch
    from PIL.Image import Resampling

    sized = [image.convert("RGB").resize((SIDE, SIDE), Resampling.BOX) for image in images]
    pixels: Any = np.stack([np.asarray(image) for image in sized])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def _reading(shares: Mapping[str, Sequence[float]]) -> Reading:
    named = {question: dict(zip(QUESTIONS[question], row, strict=True)) for question, row in shares.items()}
    best = {question: max(row, key=row.__getitem__) for question, row in named.items()}
    return Reading(**best, probabilities=named)
