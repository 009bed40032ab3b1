"""The vocabulary of the tiny zoo, and its judge: which object, style and colours a tiny picture shows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from PIL import Image
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Term:
    """One name of the vocabulary and the words people use for it.

    Attributes:
        name: Key in code and data.
        english: English words; the first is the plain one.
        chinese: Chinese words; the first is the plain one.
    """

    name: str
    english: tuple[str, ...]
    chinese: tuple[str, ...]


def _terms(**words: tuple[str, str]) -> Mapping[str, Term]:
    """Terms by name, from their English and Chinese words, which commas separate."""
    return MappingProxyType(
        {
            name: Term(name=name, english=tuple(english.split(", ")), chinese=tuple(chinese.split(", ")))
            for name, (english, chinese) in words.items()
        }
    )


OBJECT_TERMS: Final = _terms(
    circle=("circle, disc, round circle", "圆形, 圆圈, 圆"),
    square=("square, square block", "正方形, 方块, 方形"),
    triangle=("triangle, triangular shape", "三角形, 三角"),
    star=("star, five-pointed star", "星星, 五角星, 星形"),
    heart=("heart, love heart", "爱心, 心形, 心"),
    tree=("tree, leafy tree", "树, 大树, 小树, 树木"),
    house=("house, home, cottage", "房子, 房屋, 小屋"),
    fish=("fish, little fish", "鱼, 小鱼, 鱼儿"),
)
COLOR_TERMS: Final = _terms(
    red=("red", "红色, 红, 大红色"),
    orange=("orange", "橙色, 橘色, 橙"),
    yellow=("yellow", "黄色, 黄"),
    green=("green", "绿色, 绿"),
    blue=("blue", "蓝色, 蓝"),
    purple=("purple, violet", "紫色, 紫"),
    pink=("pink", "粉色, 粉红色, 粉"),
    brown=("brown", "棕色, 褐色, 咖啡色"),
    black=("black", "黑色, 黑"),
)
BACKGROUND_TERMS: Final[Mapping[str, Term]] = {
    **_terms(white=("white", "白色, 白"), gray=("gray, grey", "灰色, 灰")),
    **{name: COLOR_TERMS[name] for name in ("yellow", "orange", "green", "blue", "purple", "pink")},
}
STYLE_TERMS: Final = _terms(
    vector=(
        "flat vector art, vector illustration, flat design, clean vector graphic",
        "扁平矢量图, 矢量插画, 扁平插画",
    ),
    pixel=("pixel art, pixelated picture, retro pixel graphic", "像素画, 像素艺术, 像素图"),
    sketch=("pencil sketch, pencil drawing, hand-drawn sketch", "铅笔素描, 素描, 手绘草图"),
    oil=("oil painting, oil on canvas, oil paint picture", "油画, 布面油画, 油画作品"),
)

OBJECTS: Final[tuple[str, ...]] = tuple(OBJECT_TERMS)
COLORS: Final[tuple[str, ...]] = tuple(COLOR_TERMS)
BACKGROUNDS: Final[tuple[str, ...]] = tuple(BACKGROUND_TERMS)
STYLES: Final[tuple[str, ...]] = tuple(STYLE_TERMS)

JUDGE_FILE: Final = Path(__file__).parent / "judge.safetensors"
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
    """What the judge sees in one picture.

    Attributes:
        object: Most probable object.
        color: Most probable colour of the object.
        background: Most probable colour of the background.
        style: Most probable style.
        probabilities: For each of the four questions, the probability of every answer.
    """

    object: str
    color: str
    background: str
    style: str
    probabilities: Mapping[str, Mapping[str, float]]


class TinyJudge:
    """Answers four questions about a picture: its object, colour, background and style.

    Args:
        network: The trained network of `build_network`.
    """

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
        """Read several pictures of any size in one batch."""
        import torch

        if not images:
            return []
        with torch.inference_mode():
            answers = split_answers(self._network(as_batch(images)))
        shares = {question: logits.softmax(dim=1).tolist() for question, logits in answers.items()}
        return [_reading({question: rows[index] for question, rows in shares.items()}) for index in range(len(images))]

    def score(self, prompt: str, images: Sequence[Image.Image]) -> list[float]:
        """How much of what a prompt names each picture shows; the method that a judge needs.

        Returns:
            For each picture the mean probability, from 0 to 1, of the named object, colour, background and style;
            if the prompt names none of them, the judge's mean confidence in its answers.
        """
        wanted = named_answers(prompt)
        return [_share_shown(reading, wanted) for reading in self.read_batch(images)]


def named_answers(prompt: str) -> dict[str, tuple[str, ...]]:
    """The answers that a prompt names, by question; a colour before "background" is that of the background."""
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
    """The untrained network: four strided convolutions, then one linear layer with the logits of all answers."""
    from torch import nn

    layers: list[nn.Module] = []
    channels = (3, 24, 32, 48, 64)
    for before, after in pairwise(channels):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(4, after), nn.SiLU()]
    cells = (SIDE // 2 ** (len(channels) - 1)) ** 2
    layers += [nn.Flatten(), nn.Linear(channels[-1] * cells, sum(map(len, QUESTIONS.values())))]
    return nn.Sequential(*layers)


def split_answers(logits: Tensor) -> dict[str, Tensor]:
    """Split the network's output, shape (n, answers), into logits by question, shape (n, answers of the question)."""
    import torch

    pieces = torch.split(logits, [len(names) for names in QUESTIONS.values()], dim=1)
    return dict(zip(QUESTIONS, pieces, strict=True))


def as_batch(images: Sequence[Image.Image]) -> Tensor:
    """Pictures as input of the network: float32, shape (n, 3, 64, 64), values from -1 to 1."""
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
