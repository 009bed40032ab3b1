"""The closed world of the tiny zoo: what its models draw, in English and Chinese.

Captions, the judge and the benchmarks read the same lists, so that they cannot drift apart.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

RGB = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Term:
    """One name of the vocabulary and the words people use for it.

    Attributes:
        name: The key used everywhere in code and data.
        english: English words; the first is the plain one.
        chinese: Chinese words; the first is the plain one.
    """

    name: str
    english: tuple[str, ...]
    chinese: tuple[str, ...]


def _terms(*terms: Term) -> MappingProxyType[str, Term]:
    return MappingProxyType({term.name: term for term in terms})


OBJECT_TERMS: Final = _terms(
    Term(name="circle", english=("circle", "disc", "round circle"), chinese=("圆形", "圆圈", "圆")),
    Term(name="square", english=("square", "square block"), chinese=("正方形", "方块", "方形")),
    Term(name="triangle", english=("triangle", "triangular shape"), chinese=("三角形", "三角")),
    Term(name="star", english=("star", "five-pointed star"), chinese=("星星", "五角星", "星形")),
    Term(name="heart", english=("heart", "love heart"), chinese=("爱心", "心形", "心")),
    Term(name="tree", english=("tree", "leafy tree"), chinese=("树", "大树", "小树", "树木")),
    Term(name="house", english=("house", "home", "cottage"), chinese=("房子", "房屋", "小屋")),
    Term(name="fish", english=("fish", "little fish"), chinese=("鱼", "小鱼", "鱼儿")),
)
COLOR_TERMS: Final = _terms(
    Term(name="red", english=("red",), chinese=("红色", "红", "大红色")),
    Term(name="orange", english=("orange",), chinese=("橙色", "橘色", "橙")),
    Term(name="yellow", english=("yellow",), chinese=("黄色", "黄")),
    Term(name="green", english=("green",), chinese=("绿色", "绿")),
    Term(name="blue", english=("blue",), chinese=("蓝色", "蓝")),
    Term(name="purple", english=("purple", "violet"), chinese=("紫色", "紫")),
    Term(name="pink", english=("pink",), chinese=("粉色", "粉红色", "粉")),
    Term(name="brown", english=("brown",), chinese=("棕色", "褐色", "咖啡色")),
    Term(name="black", english=("black",), chinese=("黑色", "黑")),
)
BACKGROUND_TERMS: Final = _terms(
    Term(name="white", english=("white",), chinese=("白色", "白")),
    Term(name="gray", english=("gray", "grey"), chinese=("灰色", "灰")),
    Term(name="yellow", english=("yellow",), chinese=("黄色", "黄")),
    Term(name="orange", english=("orange",), chinese=("橙色", "橘色", "橙")),
    Term(name="green", english=("green",), chinese=("绿色", "绿")),
    Term(name="blue", english=("blue",), chinese=("蓝色", "蓝")),
    Term(name="purple", english=("purple", "violet"), chinese=("紫色", "紫")),
    Term(name="pink", english=("pink",), chinese=("粉色", "粉红色", "粉")),
)
STYLE_TERMS: Final = _terms(
    Term(
        name="vector",
        english=("flat vector art", "vector illustration", "flat design", "clean vector graphic"),
        chinese=("扁平矢量图", "矢量插画", "扁平插画"),
    ),
    Term(
        name="pixel",
        english=("pixel art", "pixelated picture", "retro pixel graphic"),
        chinese=("像素画", "像素艺术", "像素图"),
    ),
    Term(
        name="sketch",
        english=("pencil sketch", "pencil drawing", "hand-drawn sketch"),
        chinese=("铅笔素描", "素描", "手绘草图"),
    ),
    Term(
        name="oil",
        english=("oil painting", "oil on canvas", "oil paint picture"),
        chinese=("油画", "布面油画", "油画作品"),
    ),
)

OBJECTS: Final[tuple[str, ...]] = tuple(OBJECT_TERMS)
COLORS: Final[tuple[str, ...]] = tuple(COLOR_TERMS)
BACKGROUNDS: Final[tuple[str, ...]] = tuple(BACKGROUND_TERMS)
STYLES: Final[tuple[str, ...]] = tuple(STYLE_TERMS)

COLOR_RGB: Final = MappingProxyType[str, RGB](
    {
        "red": (222, 44, 48),
        "orange": (246, 130, 28),
        "yellow": (252, 208, 24),
        "green": (34, 152, 76),
        "blue": (36, 96, 214),
        "purple": (128, 54, 176),
        "pink": (240, 84, 160),
        "brown": (126, 76, 40),
        "black": (34, 34, 42),
    }
)
# Paler than the objects, so that every object shows on every ground, a blue fish on blue too.
BACKGROUND_RGB: Final = MappingProxyType[str, RGB](
    {
        "white": (250, 250, 250),
        "gray": (186, 189, 196),
        "yellow": (255, 240, 150),
        "orange": (255, 206, 150),
        "green": (182, 230, 176),
        "blue": (172, 216, 250),
        "purple": (212, 188, 244),
        "pink": (255, 206, 224),
    }
)

# Each object and each colour is still seen in training, only never these together.
HELD_OUT_PAIRS: Final[frozenset[tuple[str, str]]] = frozenset(
    {
        ("circle", "purple"),
        ("square", "pink"),
        ("triangle", "green"),
        ("star", "blue"),
        ("heart", "orange"),
        ("tree", "red"),
        ("house", "yellow"),
        ("fish", "black"),
    }
)

# The call at which the zoo's pipelines were measured; names are those of the stock pipeline.
SETTINGS: Final = MappingProxyType[str, float | int](
    {"num_inference_steps": 8, "guidance_scale": 1.5, "width": 64, "height": 64}
)
