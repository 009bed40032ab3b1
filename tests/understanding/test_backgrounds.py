"""An expert that draws no transparent background is asked for a plain one, in the words of the prompt."""

from __future__ import annotations

import pytest
from fixtures_routing import expert, think

from diffusiongpt.flow import Request
from diffusiongpt.understanding import asked_of
from diffusiongpt.zoo import Capabilities, Expert

OPAQUE = expert("opaque")
ABLE = expert("able", capabilities=Capabilities(transparent_background=True))


def asked(prompt: str, of: Expert = OPAQUE, **request: bool) -> str:
    """The prompt that an expert gets."""
    return asked_of(of, Request(prompt=prompt, **request), think(prompt).understanding, "text-to-image").prompt


@pytest.mark.parametrize(
    ("prompt", "plain"),
    [
        ("logo of a fox, transparent background", "logo of a fox, plain white background"),
        ("a sticker of a cat with no background", "a sticker of a cat with a plain white background"),
        ("a sticker of a cat without background", "a sticker of a cat with a plain white background"),
        ("a fox, the background should be transparent", "a fox, the background should be plain white"),
        ("a fox, see-through background", "a fox, plain white background"),
        ("a fox, make the background fully transparent", "a fox, make the background fully plain white"),
        ("a fox with the background removed", "a fox with the background plain white"),
        ("a fox, erase the entire background", "a fox, make the entire background plain white"),
        ("a fox on a transparent\n  background", "a fox on a plain white background"),
        ("a transparent logo, #FF6600", "a plain white background logo, #FF6600"),
        ("an icon, PNG with alpha channel", "an icon, plain white background"),
        ("a fox isolated on transparent", "a fox isolated on plain white"),
        ("透明背景的logo", "纯白背景的logo"),
        ("背景透明，卡通狗", "背景纯白，卡通狗"),
        ("把背景变透明，一只猫", "把背景变纯白，一只猫"),
        ("一只猫，背景是透明的", "一只猫，背景是纯白的"),
        ("將背景設置為透明，一隻貓", "將背景设置为纯白，一隻貓"),
        ("去除背景，一只猫", "纯白背景，一只猫"),
        ("把图片的背景去掉，一只猫", "把图片的背景换成纯白，一只猫"),
        ("去掉背景的logo", "纯白背景的logo"),
        ("免摳圖標，一隻貓", "纯白背景圖標，一隻貓"),
        ("a white cat, transparent background", "a white cat, plain green background"),
        ("白色的猫，透明背景", "白色的猫，纯绿色背景"),
        ("a white cat in green grass, no background", "a white cat in green grass, a plain magenta background"),
    ],
)
def test_a_transparent_background_becomes_a_plain_one(prompt: str, plain: str) -> None:
    """In the same place and language, in a colour that the prompt does not name; all other words stay."""
    assert asked(prompt) == plain


def test_who_can_draw_it_gets_the_prompt_as_it_is() -> None:
    """So does everyone with `rewrite=False`, and where the words mean something else."""
    prompt = "logo of a fox, transparent background"
    assert asked(prompt, ABLE) == prompt
    assert asked(prompt, rewrite=False) == prompt
    assert asked("a transparent glass vase") == "a transparent glass vase"


@pytest.mark.parametrize(
    "prompt",
    [
        "a quiet library, no background noise",
        "a dance without background music",
        "a portrait of a singer, no background characters",
        "remove background people from the photo",
        "无背景音乐的舞会",
        "透明底座的奖杯",
        "穿透明图案裙子的女孩",
        "a logo of a fox, not on a transparent background",
        "a logo of a fox, no transparent background",
        "狐狸的标志，不要透明背景",
        "狐狸的标志，不透明背景",
        "a see-through dress, a background of roses",
        "a fox, don't remove the background",
        "去掉背景里的路人",
        "去除背景噪音的录音室",
        "不要去除背景，一只猫",
        "不要把背景去掉，一只猫",
        "一只猫，背景去除杂物",
    ],
)
def test_what_only_sounds_like_it_asks_for_nothing(prompt: str) -> None:
    """What is in a background, things that are transparent themselves, and a transparent background that is denied."""
    assert not think(prompt).understanding.transparent_background
    assert "plain" not in asked(prompt)
    assert "纯白" not in asked(prompt)


def test_what_is_quoted_stays() -> None:
    """A sign may say it."""
    prompt = 'a sign that says "no background" on a transparent background'
    assert asked(prompt) == 'a sign that says "no background" on a plain white background'
    assert asked('a sign that says "transparent background"') == 'a sign that says "transparent background"'


def test_a_need_that_only_an_llm_read_is_added() -> None:
    """Where no words ask for it, they are added at the end, in the language of the prompt."""
    for prompt, plain in (("a cut-out fox.", "a cut-out fox, on a plain white background"), ("狐狸", "狐狸，纯白背景")):
        understood = think(prompt).understanding.model_copy(update={"transparent_background": True, "prompt": prompt})
        assert asked_of(OPAQUE, Request(prompt=prompt), understood, "text-to-image").prompt == plain
