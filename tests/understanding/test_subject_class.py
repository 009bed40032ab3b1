"""The class of the subject, weighed from signs that are the same in English and Chinese."""

from __future__ import annotations

import pytest
from fixtures_routing import THINKER

from diffusiongpt.understanding import fit_classes, likeliest_class
from diffusiongpt.zoo import Zoo

NODES = tuple(Zoo.load("default").taxonomy.nodes.values())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a portrait of an old fisherman", "character"),
        ("一位戴草帽的老渔夫", "character"),
        ("a fox asleep in the snow", "animal"),
        ("雪地里睡着的狐狸", "animal"),
        ("a misty valley with a river at dawn", "scene"),
        ("清晨薄雾中的山谷和河流", "scene"),
        ("a copper teapot on a table", "other"),
        ("桌上的一把铜茶壶", "other"),
    ],
)
def test_plain_subjects_have_their_class(text: str, expected: str) -> None:
    """What hardly anyone would call otherwise is read in both languages."""
    assert THINKER.think(text, (), NODES).understanding.subject_class == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("一张猫的照片：坐在沙发上", "animal"),
        ("一张猫的照片，坐在沙发上", "animal"),
        ("一张猫的照片坐在沙发上", "animal"),
        ("一张猫的照片：沙发，柔和的光线", "animal"),
        ("一张狗的照片：在雪地里奔跑", "animal"),
        ("猫的插画：戴着帽子", "animal"),
        ("一张金毛犬的照片：背景是城堡", "animal"),
        ("一幅小狗的水彩画：花园，阳光", "animal"),
        ("一张熊猫的高清照片：竹林", "animal"),
        ("一幅女孩的素描：手里拿着一本书", "character"),
        ("一张消防员的照片：火焰和浓烟", "character"),
        ("一张咖啡杯的照片：放在木桌上", "other"),
        ("一幅山谷的油画：晨雾弥漫", "scene"),
        ("一张沙发的照片：一只猫睡在上面", "animal"),
        ("女孩拿着一张猫的照片", "character"),
        ("墙上挂着猫的照片的房间", "scene"),
        ("a photo of a cat: sitting on a sofa", "animal"),
        ("a photo of a cat: a sofa by the window", "animal"),
        ("a picture of a cute kitten: a cake on the table", "animal"),
        ("a photo of a golden retriever: castle in the background", "animal"),
        ("a watercolor of a puppy: garden, sunshine", "animal"),
        ("an illustration of an elephant: umbrella, balloons", "animal"),
        ("an image of a robot: gears, pipes, a lamp", "character"),
        ("a photo of a firefighter: flames and smoke", "character"),
        ("a photo of a sports car: parked by the sea", "other"),
        ("oil painting of a valley: morning mist", "scene"),
        ("a photo of a sofa: a cat asleep on it", "animal"),
        ("a girl holding a photo of a cat", "character"),
        ("a room with photos of cats on the wall", "scene"),
        ("photograph of a street with a mural of foxes", "scene"),
    ],
)
def test_a_picture_of_a_thing_is_about_the_thing(text: str, expected: str) -> None:
    """What follows such an announcement is detail, unless it is alive and what was announced is not."""
    assert THINKER.think(text, (), NODES).understanding.subject_class == expected


def test_every_sign_has_a_weight() -> None:
    """The weights of the package are of the signs that are read; a sign without one would raise."""
    signs = THINKER.signs_of_class("In the desert, a traveller carries a backpack.", NODES)
    assert signs["opens with a place"]
    assert signs["a place, then a character"]
    assert likeliest_class(signs) in ("character", "scene")


def test_weights_follow_the_labels_they_are_fitted_to() -> None:
    """Where every text that opens with a place is labelled a scene, such a text is read as one."""
    texts = ["In the desert, a traveller walks.", "On the beach, a girl waits.", "a girl with a hat", "a traveller"]
    signs = [THINKER.signs_of_class(text, NODES) for text in texts]
    fit = fit_classes([*zip(signs, ("scene", "scene", "character", "character"), strict=True)] * 20)
    assert [likeliest_class(one, fit) for one in signs] == ["scene", "scene", "character", "character"]


@pytest.mark.parametrize(
    ("text", "main"),
    [
        ("一座青铜雕塑，刻画了一只正在伸展触手的章鱼", "animal"),
        ("一只鲸鱼的身体由星云构成", "animal"),
        ("一只比公交车还大的狐狸", "animal"),
        ("一只穿着法老服饰的大熊猫", "animal"),
        ("一座拥有蝴蝶翅膀的自由女神像", "object"),
        ("一辆像山一样大的卡车", "object"),
        ("废弃阁楼的尘埃中，一个打开的盒子", "object"),
        ("一个由齿轮拼接而成的机器人抱着小猫", "character"),
        ("汽车广告图：一位女士站在路边", "character"),
        ("a whale's body made of stars", "animal"),
        ("a frog in a monk's robe", "animal"),
        ("the wreckage of a ship", "object"),
        ("in the style of a woodcut, with a fox in the foreground", "animal"),
        ("a mountain-sized teapot", "object"),
        ("an advertisement for a coat: a young man in the rain", "character"),
        ("a photo of a fox: soft light, autumn leaves", "animal"),
        ("一张猫的照片：坐在沙发上", "animal"),
        ("a comic about a boy", "character"),
        ("a family of four", "character"),
    ],
)
def test_the_main_subject_is_the_head_of_the_clause(text: str, main: str) -> None:
    """What says where, which or of what, and what is only compared or put on, is less of a subject than its noun."""
    subjects = THINKER.think(text, (), NODES).values
    named = {node: p for node, p in subjects.items() if node in ("character", "animal", "scene", "object", "design")}
    assert max(named, key=lambda node: named[node]) == main
