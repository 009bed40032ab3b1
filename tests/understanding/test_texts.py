"""Texts to render: quoted in the marks of many languages, or named without quotes, and other quotes."""

from __future__ import annotations

import pytest
from fixtures_routing import think

from diffusiongpt.understanding import read_literals


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ('un cartel que dice "Se vende"', ("Se vende",)),
        ('"Bonjour" écrit sur un tableau noir', ("Bonjour",)),
        ("ein Schild, auf dem „Betreten verboten“ steht", ("Betreten verboten",)),
        ("вывеска с надписью «Хлеб и молоко»", ("Хлеб и молоко",)),
        ('커피숍 간판에 "오늘의 커피"라고 적혀 있다', ("오늘의 커피",)),
        ('لافتة مكتوب عليها "مرحبا بكم"', ("مرحبا بكم",)),
        ("看板に「本日休業」と書いてある居酒屋", ("本日休業",)),
        ("『吾輩は猫である』の本の表紙", ("吾輩は猫である",)),
        ("ポスター、タイトル：夏祭り、夜", ("夏祭り",)),
        ("映画「君の名は」のワンシーン", ()),
        ("Ein Poster mit dem Titel: Sommerfest 2026", ("Sommerfest 2026",)),
    ],
)
def test_other_languages_have_words_for_writing_too(prompt: str, texts: tuple[str, ...]) -> None:
    """A verb of writing, a thing that carries writing or a label in another language is a reason, before or after."""
    assert think(prompt).understanding.text_to_render == texts


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ("球衣上印着号码“23”，旁边写着“冠军”", ("23", "冠军")),
        ("价签显示“¥17.90”，下方是“满300减50”", ("¥17.90", "满300减50")),
        ('标题“数字2026”，旁边一台27"的显示器', ("数字2026",)),
        ("横幅写着“他说：“明天会更好””", ("他说：“明天会更好”",)),
        ("“汇金”以经典宋体写于右侧的logo", ("汇金",)),
        ("黑板左上角的中文“觉醒”", ("觉醒",)),
        ("对联，上联“春回大地”，下联“日照神州”，横批“万象更新”", ("春回大地", "日照神州", "万象更新")),
        ("屏幕上显示绿色文字“空位 156”", ("空位 156",)),
        ("一件印着自由二字的白色T恤", ("自由",)),
        ("做一個海報，標題：週年慶，內文：全館五折", ("週年慶", "全館五折")),
        ("海报，标题「夜市 2026」，副标题是吃到饱，文字为绿色", ("夜市 2026", "吃到饱")),
        ("主题为奔跑的海报", ()),
        ("木盒上刻着精美的吉祥图案", ()),
        ("比出“V”字手势的女孩", ()),
        ("羽毛笔在羊皮纸上书写着笔记", ()),
    ],
)
def test_chinese_texts_end_where_their_marks_close(prompt: str, texts: tuple[str, ...]) -> None:
    """A number inside curly marks has no inches, marks nest, and what only leads to a quote is not written itself."""
    assert think(prompt).understanding.text_to_render == texts


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ('keyboard keycap with "Esc" on it', ("Esc",)),
        ('book cover titled "Gone (Again)" by "J. R. Smith"', ("Gone (Again)", "J. R. Smith")),
        ('please generate the number "9000" on the frame', ("9000",)),
        ('a single English character "L" on a switch', ("L",)),
        (
            "title: Moonlight Sonata\nsubtitle: a piano evening\nstyle: art deco",
            ("Moonlight Sonata", "a piano evening"),
        ),
        ("a wedding invite with the names Anna & Tom", ("Anna & Tom",)),
        ("a poster with the text Join us at the top and Free entry at the bottom", ("Join us", "Free entry")),
        ('a sign that says "OPEN", the text looks like neon', ("OPEN",)),
        ("a logo where the text needs to stay readable", ()),
        ('no text, no watermark, a lonely "lighthouse keeper" on a cliff', ()),
        ('my cat "Mr. Whiskers" asleep on a sofa', ()),
        ("title: none, a lake", ()),
        ("a bag with flowers painted on it", ()),
        ("a mug with ivy printed on it", ()),
        ("a hat with stripes stitched on it", ()),
        ("a bag with Summer Vibes printed on it", ("Summer Vibes",)),
        ("a cap with 1984 embroidered on it", ("1984",)),
        ("a shirt with 3 dogs printed on it", ()),
        ("a mug with best dad written on it", ("best dad",)),
    ],
)
def test_english_texts_have_a_reason(prompt: str, texts: tuple[str, ...]) -> None:
    """Words for text count where something is written, not where its look is spoken of or it is denied."""
    assert think(prompt).understanding.text_to_render == texts


def test_lines_of_a_quoted_text_stay() -> None:
    """White space becomes one space, except in what is to be written."""
    read = read_literals('A chalkboard menu:\n"Soup of the day\nTomato 4.50"\n\nin  a cafe')
    assert read.fields["text_to_render"] == ("Soup of the day\nTomato 4.50",)
    assert read.prompt == 'A chalkboard menu: "Soup of the day\nTomato 4.50" in a cafe'


def test_long_texts_are_kept_whole() -> None:
    """A poem of several hundred characters is one text."""
    poem = "床前明月光，疑是地上霜。" * 40
    assert think(f"石碑上刻着“{poem}”").understanding.text_to_render == (poem,)
