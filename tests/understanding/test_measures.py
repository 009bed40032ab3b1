"""Numbers with a meaning, in the wording of many people: sizes, shapes, counts, colours, and clear backgrounds."""

from __future__ import annotations

import pytest
from fixtures_routing import think

from diffusiongpt.understanding import asks_for_color


@pytest.mark.parametrize(
    ("prompt", "size"),
    [
        ("宽1024高768，一只猫", (1024, 768)),
        ("高度为768，宽度为1024的风景", (1024, 768)),
        ("width: 1280px, height: 720px, a train", (1280, 720)),
        ("512px square icon of a bell", (512, 512)),
        ("a door 90 cm wide and 200 cm high", (None, None)),
        ("16比9的雪山", "16:9"),
        ("１６：９の風景", "16:9"),
        ("１０２４×７６８，猫", (1024, 768)),
        ("以3比2战胜对手的球队", None),
        ("9×16 video cover with a surfer", "9:16"),
        ("8.5x11 flyer for a yard sale", "17:22"),
        ("a 4x6 photo grid", None),
        ("横向的风景画", "4:3"),
        ("橫式，海邊日落", "4:3"),
        ("直式海報，咖啡", "3:4"),
        ("手機桌布，貓咪", "9:16"),
        ("スマホの壁紙、夜空", "9:16"),
        ("縦長のポスター、桜", "3:4"),
        ("Hochformat, ein Leuchtturm", "3:4"),
        ("formato horizontal, un lago", "4:3"),
        ("4K wallpaper of a galaxy for my desktop", "16:9"),
        ("square, a minimalist logo", "1:1"),
        ("blocks: star, square, circle", None),
        ("一张方形的图，画一只柴犬", "1:1"),
        ("cinemascope shot of a desert highway", "239:100"),
        ("people dancing in Times Square", None),
    ],
)
def test_sizes_and_shapes_go_by_many_names(prompt: str, size: object) -> None:
    """Both sides behind their names, the shape of a screen or a print, and formats by name, in several languages."""
    read = think(prompt).understanding
    expected = size if isinstance(size, tuple) else (None, None)
    assert (read.width, read.height) == expected
    assert read.aspect_ratio == (None if isinstance(size, tuple) else size)


@pytest.mark.parametrize(
    ("prompt", "count"),
    [
        ("一对天鹅在湖上", 2),
        ("一双筷子", 2),
        ("一双大眼睛的女孩", None),
        ("a duo of violinists", 2),
        ("十五只羊", 15),
        ("一百二十个气球", 120),
        ("五六只麻雀", None),
        ("俩小孩", 2),
        ("九宫格表情包", 9),
        ("2行3列的水果图", 6),
        ("twenty-four hot air balloons", 24),
        ("100 balloons in the sky", 100),
        ("one apple on a table", 1),
        ("one of the guards", None),
        ("a street where a single lamp burns by the wall of an old house", None),
        ("drei Katzen auf einer Mauer", 3),
        ("tres gatos en un tejado", 3),
        ("an elf warrior, due north", None),
        ("고양이 세 마리", 3),
        ("三个苹果和一只杯子", 3),
        ("百只羊", 100),
        ("上百只鸟", None),
        ("千百只鸟", None),
        ("桌上三只猫", 3),
        ("a pair of scissors", None),
        ("a pair of round glasses and three books", 3),
        ("a pair of red boots", 2),
        ("10 20 30 countdown numbers", None),
    ],
)
def test_things_are_counted_in_many_ways(prompt: str, count: int | None) -> None:
    """Written numbers, pairs, grids and other languages count; a few, and words that look like numbers, do not."""
    assert think(prompt).understanding.object_count == count


@pytest.mark.parametrize(
    ("prompt", "colors"),
    [
        ("红裙子的女孩", ("#FF0000",)),
        ("一只黑猫和一只白猫", ("#000000", "#FFFFFF")),
        ("金字塔前的黑板、白菜和红绿灯", ()),
        ("black and white photo of a bridge", ()),
        ("a black and white cat", ("#000000", "#FFFFFF")),
        ("a car, color: hex 00FF00", ("#00FF00",)),
        ("ein rotes Auto", ("#FF0000",)),
        ("une robe bleue", ("#0000FF",)),
        ("красный шар", ("#FF0000",)),
        ("빨간 자동차", ("#FF0000",)),
        ("un gato negro en un tejado", ("#000000",)),
        ("film noir detective in the rain", ()),
        ("charcoal sketch of the Moulin Rouge", ()),
        ("rot on old wood", ()),
        ("Mont Blanc at dawn", ()),
        ("Verde valley, a man named Lila", ()),
    ],
)
def test_colours_have_names_in_many_languages(prompt: str, colors: tuple[str, ...]) -> None:
    """The colour of a thing counts, one Chinese character too; names and a way to photograph do not."""
    assert think(prompt).understanding.colors == colors


@pytest.mark.parametrize(
    ("prompt", "asked"),
    [
        ("an ink drawing of a sign that says RAINBOW", False),
        ('ink sign with the word "colorful"', False),
        ("手绘风格，不要彩色，一只鹤", False),
        ("ink wash rainbow over hills", True),
    ],
)
def test_written_and_denied_colours_are_not_asked_for(prompt: str, asked: bool) -> None:
    """Words that the picture shows as text, or must not follow, call for no colour."""
    assert asks_for_color(think(prompt).understanding) is asked


@pytest.mark.parametrize(
    ("prompt", "transparent"),
    [
        ("去背的貓", True),
        ("透過PNG、ねこのイラスト", True),
        ("fondo transparente, un gato", True),
        ("ein Fuchs, transparenter Hintergrund", True),
        ("прозрачный фон, кот", True),
        ("투명 배경의 고양이 스티커", True),
        ("a leaf icon with transparency", True),
        ("ein transparentes Glas", False),
        ("透明的玻璃杯", False),
    ],
)
def test_a_clear_background_is_asked_for_in_many_languages(prompt: str, transparent: bool) -> None:
    """A background that is to be transparent is one in every language; a transparent thing is a thing."""
    assert think(prompt).understanding.transparent_background is transparent
