"""Things, animals, places and people in the words of three languages, and by meaning in others."""

from __future__ import annotations

import pytest
from fixtures_routing import base_nodes, think

from diffusiongpt.embedding import SentenceEmbedder
from diffusiongpt.understanding import Lexicon, LocalThinker, simplified
from diffusiongpt.zoo import Node

NAMED = {
    "animal": "鹰 鴿子 牧羊犬 美西螈是六角恐龙 うさぎ イルカ ペンギンの家族 森の鹿と狐 大猩猩 丹頂鶴 蝉 海龜",
    "character": "護士 空姐 程序员 外卖小哥 修女 調酒師 侍 魔女 お姫様 サムライ 宇宙飛行士 孕妇 小貓咪的主人是老太太",
    "scene": "お城 桜並木 神社 稻田 遊樂園 海边的木屋 东京タワー 図書館 胡同 紫禁城 商店街",
    "object": "カレーライス 自転車 カメラ 一碗兰州拉面 旗袍 油纸伞 航空母艦 りんご 提灯 糖葫芦 高鐵",
    "animal ": "Hund perro собака кошка 강아지 قطة",
    "character ": "Mädchen mujer femme девушка 소녀",
    "scene ": "Leuchtturm playa forêt деревня 해변",
    "design": "ポスター 看板 明信片 請柬 网页 名刺",
}


@pytest.mark.parametrize(
    ("prompt", "subject"), [(word, subject.strip()) for subject, words in NAMED.items() for word in words.split()]
)
def test_subjects_are_known_in_chinese_and_japanese(prompt: str, subject: str) -> None:
    """What the English list has, people type in simplified and traditional characters and in kana."""
    assert subject in [weight.node for weight in think(prompt).understanding.subjects]


@pytest.mark.parametrize(
    ("prompt", "subject"),
    [
        ("カメラとメガネ", "object"),
        ("クリスマスのスイカ", "object"),
        ("トラックが走る街並み", "scene"),
        ("鹰嘴豆沙拉", "object"),
        ("不是猫，是狗", "animal"),
        ("这是马来西亚的海边", "scene"),
        ("A4 portrait poster about recycling", "design"),
        ("A4 landscape poster about recycling", "design"),
    ],
)
def test_a_name_inside_another_word_names_nothing(prompt: str, subject: str) -> None:
    """Katakana names end where the katakana ends: カメラ has no turtle in it; a page may stand in portrait."""
    assert [weight.node for weight in think(prompt).understanding.subjects] == [subject]


def test_names_of_a_zoo_may_be_in_traditional_characters() -> None:
    """A name is read as texts are, so that whoever writes 貓 finds 猫, and the other way round."""
    lexicon = Lexicon([Node(id="cats", kind="subject", aliases=("貓咪",))])
    assert [mention.node for text in ("一隻貓咪", "一只猫咪") for mention in lexicon.mentions(simplified(text))] == [
        "cats",
        "cats",
    ]


@pytest.mark.parametrize(
    ("prompt", "subject"),
    [
        ("ドレスを着た猫", "animal"),
        ("図書館で本を読む少女", "character"),
        ("森の鹿", "animal"),
        ("桜の下の侍", "character"),
    ],
)
def test_a_japanese_clause_is_about_its_last_noun(prompt: str, subject: str) -> None:
    """What is held, where it is and whose it is stand before what the picture is about."""
    assert think(prompt).understanding.subjects[0].node == subject


@pytest.mark.parametrize(
    ("prompt", "subject"),
    [("una tazza di caffè", "object"), ("고양이가 자고 있다", "animal"), ("деревня зимой", "scene")],
)
def test_in_other_languages_the_meaning_stands_for_words(prompt: str, subject: str) -> None:
    """A subject that only the sentence embedder can read is named all the same."""
    sentences = SentenceEmbedder.installed()
    if sentences is None:
        pytest.skip("the sentence embedder is not installed")
    understood = LocalThinker(sentences=sentences).think(prompt, (), base_nodes()).understanding
    assert [weight.node for weight in understood.subjects] == [subject]


@pytest.mark.parametrize(
    ("prompt", "style", "unwanted"),
    [
        ("a photo, not a painting, of a violin", ["photo"], ("oil_painting",)),
        ("写实一点，别太卡通", ["photo"], ("cartoon",)),
        ("賽博龐克的小巷", ["fantasy_art"], ()),
        ("dessin au crayon d'un chat", ["sketch"], ()),
        ("Bleistiftzeichnung einer Katze", ["sketch"], ()),
        ("акварель, порт", ["watercolor"], ()),
    ],
)
def test_styles_have_names_and_polarity_in_many_languages(
    prompt: str, style: list[str], unwanted: tuple[str, ...]
) -> None:
    """A style counts by its name in other languages too, and one that is denied is unwanted."""
    understood = think(prompt).understanding
    assert [weight.node for weight in understood.styles] == style
    assert understood.unwanted == unwanted
